//! The service itself: its name, its debug switch and its master secret.

use std::time::Duration;

use super::MasterKeys;
use super::reader::Reader;

#[derive(Debug, Clone)]
pub struct AppConfig {
    pub name: String,
    /// Allows missing and weak secrets. Changes nothing else.
    pub debug: bool,
    /// Keys that have no variable of their own are derived from these.
    pub keys: MasterKeys,
    /// How long `serve` waits for Postgres and Redis to come up.
    pub start_timeout: Duration,
    /// Whether `serve` runs pending migrations instead of refusing to start.
    pub auto_migrate: bool,
}

impl AppConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let debug = reader.flag("DEBUG", false);
        Self {
            name: reader.text("APP_NAME", "Prime VPN"),
            debug,
            keys: MasterKeys::read(reader, debug),
            start_timeout: reader.duration("START_TIMEOUT", Duration::from_secs(60)),
            auto_migrate: reader.flag("AUTO_MIGRATE", false),
        }
    }
}
