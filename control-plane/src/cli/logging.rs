//! Logs go to standard error, as the configuration says.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, LoggingConfig};

/// The HTTP server complains of every malformed request, so that anybody could fill the log; who wants to
/// read it names `actix_http` in `RUST_LOG`.
const QUIET: &str = "actix_http=off";

pub(super) fn init(config: &LoggingConfig) -> anyhow::Result<()> {
    let filter = format!("{QUIET},{}", config.filter);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(filter)?)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let result = match config.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    result.map_err(|error| anyhow::anyhow!(error))
}
