//! The configuration: environment and `.env`, parsed once into typed sections.
//!
//! Each section is a file, reads its own variables and knows its defaults. A wrong value never
//! reaches the service: everything wrong is collected and named at once. Nothing below this module
//! looks at the environment, so tests hand in a map.

mod accounts;
mod alerts;
mod analytics;
mod app;
mod billing;
mod country;
mod database;
mod guard;
mod help;
mod http;
mod keys;
mod listener;
mod logging;
mod mail;
mod nodes;
mod reader;
mod redis;
mod seed;
mod stripe;
mod tokens;
mod vpn;

use std::collections::BTreeMap;

pub use accounts::AccountsConfig;
pub use alerts::AlertsConfig;
pub use analytics::AnalyticsConfig;
pub use app::AppConfig;
pub use billing::BillingConfig;
pub use country::{CountryCode, CountryConfig, CountryRule};
pub use database::DatabaseConfig;
pub use guard::{AccountLimits, GroupLimits, GuardConfig, Limit, Threshold};
pub use help::{VARIABLES, help};
pub use http::{HttpConfig, TlsFiles};
pub use keys::MasterKeys;
pub use listener::ListenerConfig;
pub use logging::{LogFormat, LoggingConfig};
pub use mail::{MailConfig, MailTransport, SmtpConfig, SmtpSecurity};
pub use nodes::NodesConfig;
pub use reader::{ConfigError, Origin, Problem, Setting};
pub use redis::RedisConfig;
pub use seed::Seed;
pub use stripe::StripeConfig;
pub use tokens::TokensConfig;
pub use vpn::VpnConfig;

use reader::Reader;

/// Names and values, wherever they come from.
pub type Variables = BTreeMap<String, String>;

#[derive(Debug, Clone)]
pub struct Config {
    pub app: AppConfig,
    pub database: DatabaseConfig,
    pub redis: RedisConfig,
    pub http: HttpConfig,
    pub listener: ListenerConfig,
    pub guard: GuardConfig,
    pub alerts: AlertsConfig,
    pub tokens: TokensConfig,
    pub accounts: AccountsConfig,
    pub mail: MailConfig,
    pub stripe: StripeConfig,
    pub vpn: VpnConfig,
    pub billing: BillingConfig,
    pub nodes: NodesConfig,
    pub analytics: AnalyticsConfig,
    pub logging: LoggingConfig,
    settings: Vec<Setting>,
}

impl Config {
    /// Reads every section, or says everything that is wrong.
    pub fn read(variables: &Variables) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(variables);
        let app = AppConfig::read(&mut reader);
        let nodes = NodesConfig::read(&mut reader, &app.keys);
        let database = DatabaseConfig::read(&mut reader);
        let redis = RedisConfig::read(&mut reader);
        let http = HttpConfig::read(&mut reader);
        let mut config = Self {
            listener: ListenerConfig::read(&mut reader, &http.trusted_proxies),
            guard: GuardConfig::read(&mut reader),
            alerts: AlertsConfig::read(&mut reader),
            tokens: TokensConfig::read(&mut reader, app.debug),
            accounts: AccountsConfig::read(&mut reader),
            mail: MailConfig::read(&mut reader),
            stripe: StripeConfig::read(&mut reader, app.debug, &http),
            vpn: VpnConfig::read(&mut reader),
            billing: BillingConfig::read(&mut reader),
            analytics: AnalyticsConfig::read(&mut reader),
            logging: LoggingConfig::read(&mut reader),
            app,
            database,
            http,
            nodes,
            redis,
            settings: Vec::new(),
        };
        config.settings = reader.finish()?;
        Ok(config)
    }

    /// Reads the process environment over the `.env` file of the working directory, if there is one.
    pub fn from_environment() -> Result<Self, ConfigError> {
        let mut variables = Variables::new();
        match dotenvy::dotenv_iter() {
            Ok(entries) => {
                for entry in entries {
                    let (name, value) = entry.map_err(ConfigError::env_file)?;
                    variables.insert(name, value);
                }
            }
            Err(error) if error.not_found() => {}
            Err(error) => return Err(ConfigError::env_file(error)),
        }
        variables.extend(std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        }));
        Self::read(&variables)
    }

    /// What is in effect, in the order of reading; secrets are redacted.
    #[must_use]
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }
}

#[cfg(test)]
mod tests;
