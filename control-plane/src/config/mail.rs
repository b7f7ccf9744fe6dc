//! Mail: who it comes from and how it leaves.

use std::path::PathBuf;

use secrecy::SecretString;

use super::reader::{REDACTED, Reader};

#[derive(Debug, Clone)]
pub struct MailConfig {
    /// An address, or a name with an address in angle brackets.
    pub from: String,
    pub transport: MailTransport,
}

#[derive(Debug, Clone)]
pub enum MailTransport {
    /// Each mail becomes a file: nothing leaves the machine.
    Files {
        directory: PathBuf,
    },
    Smtp(SmtpConfig),
}

#[derive(Debug, Clone)]
pub struct SmtpConfig {
    pub host: String,
    pub port: u16,
    pub security: SmtpSecurity,
    pub login: Option<(String, SecretString)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmtpSecurity {
    /// TLS from the first byte.
    Tls,
    /// TLS before anything else is said; a server without it is refused.
    StartTls,
    None,
}

impl SmtpSecurity {
    const ALL: [Self; 3] = [Self::StartTls, Self::Tls, Self::None];

    const fn name(self) -> &'static str {
        match self {
            Self::StartTls => "starttls",
            Self::Tls => "tls",
            Self::None => "none",
        }
    }

    const fn port(self) -> u16 {
        match self {
            Self::StartTls => 587,
            Self::Tls => 465,
            Self::None => 25,
        }
    }
}

impl MailConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let from = reader.parse_with(
            "MAIL_FROM",
            "Prime VPN <noreply@localhost>".to_owned(),
            "an address such as noreply@example.org, or \"Prime VPN <noreply@example.org>\"",
            |text| {
                let is_mailbox = text.parse::<lettre::message::Mailbox>().is_ok();
                is_mailbox.then(|| text.to_owned())
            },
            String::clone,
        );
        let directory = reader.text("MAIL_DIR", "mail").into();
        let host = reader.optional("SMTP_HOST");
        let smtp = read_smtp(reader, host.clone().unwrap_or_default());
        let transport = match host {
            Some(_) => MailTransport::Smtp(smtp),
            None => MailTransport::Files { directory },
        };
        Self { from, transport }
    }
}

fn read_smtp(reader: &mut Reader<'_>, host: String) -> SmtpConfig {
    let security = reader.parse_with(
        "SMTP_SECURITY",
        SmtpSecurity::StartTls,
        "starttls, tls or none",
        |text| {
            let mut all = SmtpSecurity::ALL.into_iter();
            all.find(|it| it.name() == text)
        },
        |security| security.name().to_owned(),
    );
    let port = reader.parse("SMTP_PORT", security.port(), "a port number");
    let user = reader.optional("SMTP_USER");
    let password = reader.given("SMTP_PASSWORD").map(SecretString::from);
    reader.note("SMTP_PASSWORD", password.as_ref().map_or("", |_| REDACTED));
    let login = match (user, password) {
        (Some(user), Some(password)) => Some((user, password)),
        (None, None) => None,
        (Some(_), None) => {
            reader.problem("SMTP_PASSWORD", "is needed with SMTP_USER");
            None
        }
        (None, Some(_)) => {
            reader.problem("SMTP_USER", "is needed with SMTP_PASSWORD");
            None
        }
    };
    SmtpConfig {
        host,
        port,
        security,
        login,
    }
}
