//! What is logged, and how.

use std::fmt;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;

use super::reader::Reader;

#[derive(Debug, Clone)]
pub struct LoggingConfig {
    pub format: LogFormat,
    /// In the syntax of `tracing_subscriber::EnvFilter`.
    pub filter: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

impl LoggingConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            format: reader.parse("LOG_FORMAT", LogFormat::Text, "text or json"),
            filter: reader.parse_with(
                "RUST_LOG",
                "info".to_owned(),
                "a level or a list such as info,control_plane=debug",
                |text| EnvFilter::try_new(text).is_ok().then(|| text.to_owned()),
                String::clone,
            ),
        }
    }
}

impl FromStr for LogFormat {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(()),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}
