//! Takes typed values out of a map of strings and remembers what was wrong and what is in effect.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use secrecy::SecretString;

use super::Variables;

/// One variable with the value in effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    pub name: &'static str,
    /// As it is shown: a secret is redacted.
    pub value: String,
    pub origin: Origin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Given,
    Default,
}

/// One variable that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub name: String,
    pub message: String,
}

/// Everything that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    pub(super) fn env_file(error: dotenvy::Error) -> Self {
        let message = match error {
            // The text of the line may be a secret.
            dotenvy::Error::LineParse(_, position) => {
                format!("a line cannot be parsed at its character {position}")
            }
            other => other.to_string(),
        };
        Self {
            problems: vec![Problem {
                name: ".env".to_owned(),
                message,
            }],
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration cannot be used:")?;
        for Problem { name, message } in &self.problems {
            write!(f, "\n  {name}: {message}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

pub(super) struct Reader<'a> {
    variables: &'a Variables,
    problems: Vec<Problem>,
    settings: Vec<Setting>,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(variables: &'a Variables) -> Self {
        Self {
            variables,
            problems: Vec::new(),
            settings: Vec::new(),
        }
    }

    pub(super) fn finish(self) -> Result<Vec<Setting>, ConfigError> {
        if self.problems.is_empty() {
            Ok(self.settings)
        } else {
            Err(ConfigError {
                problems: self.problems,
            })
        }
    }

    /// The value as given. An empty one counts as absent, as `NAME=` in a `.env` means it.
    pub(super) fn given(&self, name: &str) -> Option<&'a str> {
        self.variables
            .get(name)
            .map(|value| value.trim())
            .filter(|value| !value.is_empty())
    }

    pub(super) fn problem(&mut self, name: &str, message: impl Into<String>) {
        self.problems.push(Problem {
            name: name.to_owned(),
            message: message.into(),
        });
    }

    pub(super) fn note(&mut self, name: &'static str, value: impl Into<String>) {
        let origin = match self.given(name) {
            Some(_) => Origin::Given,
            None => Origin::Default,
        };
        self.settings.push(Setting {
            name,
            value: value.into(),
            origin,
        });
    }

    /// The parsed value, or the default. `takes` completes "takes …".
    pub(super) fn parse_with<T>(
        &mut self,
        name: &'static str,
        default: T,
        takes: &str,
        parse: impl FnOnce(&str) -> Option<T>,
        show: impl FnOnce(&T) -> String,
    ) -> T {
        let value = match self.given(name).map(|text| (text, parse(text))) {
            None => default,
            Some((_, Some(value))) => value,
            Some((text, None)) => {
                self.problem(name, format!("takes {takes}, not {text:?}"));
                default
            }
        };
        let shown = show(&value);
        self.note(name, shown);
        value
    }

    pub(super) fn parse<T: FromStr + ToString>(
        &mut self,
        name: &'static str,
        default: T,
        takes: &str,
    ) -> T {
        self.parse_with(name, default, takes, |text| text.parse().ok(), T::to_string)
    }

    /// A whole number of at least one.
    pub(super) fn count(&mut self, name: &'static str, default: u32) -> u32 {
        self.parse_with(
            name,
            default,
            "a whole number from 1",
            |text| text.parse().ok().filter(|count| *count > 0),
            u32::to_string,
        )
    }

    pub(super) fn text(&mut self, name: &'static str, default: &str) -> String {
        let value = self.given(name).unwrap_or(default).to_owned();
        self.note(name, value.clone());
        value
    }

    pub(super) fn optional(&mut self, name: &'static str) -> Option<String> {
        let value = self.given(name).map(str::to_owned);
        self.note(name, value.clone().unwrap_or_default());
        value
    }

    pub(super) fn flag(&mut self, name: &'static str, default: bool) -> bool {
        let takes = "true or false";
        self.parse_with(name, default, takes, parse_flag, bool::to_string)
    }

    pub(super) fn duration(&mut self, name: &'static str, default: Duration) -> Duration {
        self.parse_with(
            name,
            default,
            "a time such as 500ms, 90s, 30m, 24h or 7d (a bare number is seconds)",
            |text| parse_duration(text).filter(|time| !time.is_zero()),
            |time| format!("{time:?}"),
        )
    }

    pub(super) fn milliseconds(&mut self, name: &'static str, default: Duration) -> Duration {
        self.parse_with(
            name,
            default,
            "a whole number of milliseconds from 1",
            |text| {
                text.parse()
                    .ok()
                    .filter(|ms| *ms > 0)
                    .map(Duration::from_millis)
            },
            |time| time.as_millis().to_string(),
        )
    }

    pub(super) fn list(&mut self, name: &'static str, default: &str) -> Vec<String> {
        let text = self.text(name, default);
        split(&text).map(str::to_owned).collect()
    }

    /// A secret of at least `MIN_SECRET` characters that is not a placeholder. With `debug` it may
    /// be absent or weak.
    pub(super) fn secret(&mut self, name: &'static str, debug: bool) -> SecretString {
        let given = self.given(name);
        match given {
            None if !debug => self.problem(
                name,
                "is not set; make one with `openssl rand -hex 32` (only DEBUG=true runs without)",
            ),
            Some(text) if !debug && is_placeholder(text) => self.problem(
                name,
                "is a well-known default; make one with `openssl rand -hex 32`",
            ),
            Some(text) if !debug && text.len() < MIN_SECRET => self.problem(
                name,
                format!(
                    "takes at least {MIN_SECRET} characters; make one with `openssl rand -hex 32`"
                ),
            ),
            _ => {}
        }
        let shown = if given.is_some() {
            REDACTED
        } else {
            "a public default, for debugging only"
        };
        self.note(name, shown);
        SecretString::from(given.unwrap_or(DEBUG_SECRET))
    }

    /// Former secrets, separated by commas. Whatever they were, they were in use.
    pub(super) fn secrets(&mut self, name: &'static str) -> Vec<SecretString> {
        let given = self.given(name);
        self.note(name, given.map_or("", |_| REDACTED));
        split(given.unwrap_or_default())
            .map(SecretString::from)
            .collect()
    }
}

/// Shown in place of a secret.
pub(super) const REDACTED: &str = "[redacted]";
const MIN_SECRET: usize = 32;
const DEBUG_SECRET: &str = "debug-only-secret-that-everybody-knows";

pub(super) fn is_placeholder(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let words = [
        "your-",
        "your_",
        "change-me",
        "changeme",
        "change_me",
        "change-this",
        "placeholder",
        "example",
        "insecure",
    ];
    text == DEBUG_SECRET
        || words.iter().any(|word| text.contains(word))
        || text
            .chars()
            .next()
            .is_some_and(|first| text.chars().all(|c| c == first))
}

fn parse_flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// The parts of a comma-separated list; a list in brackets and quotes is what the old system took.
pub(super) fn split(text: &str) -> impl Iterator<Item = &str> {
    text.trim_matches(['[', ']'])
        .split(',')
        .map(|part| part.trim().trim_matches(['"', '\'']))
        .filter(|part| !part.is_empty())
}

/// A network, or an address that stands for itself alone.
pub(super) fn as_network(text: &str) -> Option<IpNet> {
    text.parse()
        .ok()
        .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.strip_prefix(digits)?;
    let number: u64 = digits.trim().parse().ok()?;
    let seconds = |factor: u64| number.checked_mul(factor).map(Duration::from_secs);
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "" | "s" => seconds(1),
        "m" => seconds(60),
        "h" => seconds(3600),
        "d" => seconds(86_400),
        _ => None,
    }
}
