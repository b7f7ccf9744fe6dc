//! Alerts: who hears of attacks, and what is one.

use super::reader::{Reader, split};
use crate::accounts::Email;

#[derive(Debug, Clone)]
pub struct AlertsConfig {
    /// The operators who get a mail; nobody does where there is none.
    pub emails: Vec<Email>,
    /// Refusals by limits in a minute, of one process, beyond which it is an attack.
    pub refused_per_minute: u32,
}

impl AlertsConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let parse = |text: &str| {
            let emails = split(text).map(Email::parse);
            emails.collect::<Result<Vec<_>, _>>().ok()
        };
        Self {
            emails: reader.parse_with(
                "ALERT_EMAILS",
                Vec::new(),
                "addresses such as ops@example.org, separated by commas",
                parse,
                |emails| {
                    let texts: Vec<_> = emails.iter().map(Email::as_str).collect();
                    texts.join(",")
                },
            ),
            refused_per_minute: reader.count("ALERT_REFUSED_PER_MINUTE", 600),
        }
    }
}
