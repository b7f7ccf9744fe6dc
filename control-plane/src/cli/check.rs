//! `check`: everything an operator would otherwise find out one failed start at a time.

use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;

use secrecy::ExposeSecret;

use super::print;
use crate::app::{AppState, StartError, check_tls, reach_postgres, reach_redis};
use crate::config::{Config, HttpConfig, Origin};
use crate::db;
use crate::guard::check_countries;

/// One thing looked at: what is wrong with it and how to mend that, if anything is.
struct Finding {
    name: &'static str,
    trouble: Option<(String, &'static str)>,
}

impl Finding {
    fn new<T>(
        name: &'static str,
        result: Result<T, impl Into<anyhow::Error>>,
        mend: &'static str,
    ) -> Self {
        let trouble = result
            .err()
            .map(|error| (format!("{:#}", error.into()), mend));
        Self { name, trouble }
    }
}

pub(super) async fn run(config: Config) -> anyhow::Result<ExitCode> {
    show(&config)?;
    // Keys that parse and still cannot be used show here.
    AppState::new(config.clone())?;
    let mut all_well = true;
    for finding in examine(&config).await {
        match finding.trouble {
            None => print(&format!("ok    {}", finding.name))?,
            Some((trouble, mend)) => {
                all_well = false;
                print(&format!(
                    "FAIL  {}: {trouble}\n      → {mend}",
                    finding.name
                ))?;
            }
        }
    }
    Ok(if all_well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn show(config: &Config) -> anyhow::Result<()> {
    for setting in config.settings() {
        let origin = match setting.origin {
            Origin::Given => "",
            Origin::Default => "  (default)",
        };
        print(&format!("{}={}{origin}", setting.name, setting.value))?;
    }
    print("")
}

async fn examine(config: &Config) -> Vec<Finding> {
    let postgres = reach_postgres(config).await;
    let is_up = postgres.is_ok();
    let mut findings = vec![Finding::new(
        "Postgres",
        postgres,
        "start Postgres, or correct DATABASE_URL",
    )];
    if is_up {
        findings.push(migrations(config).await);
    }
    findings.push(Finding::new(
        "Redis",
        reach_redis(config).await,
        "start Redis, or correct REDIS_URL or REDIS_HOST and REDIS_PORT",
    ));
    findings.extend(listeners(&config.http));
    findings.extend(files(config));
    findings
}

async fn migrations(config: &Config) -> Finding {
    let pending = match db::pending(config.database.url.expose_secret()).await {
        Ok(false) => Ok(()),
        Ok(true) => Err(StartError::PendingMigrations.into()),
        Err(error) => Err(anyhow::Error::from(error)),
    };
    Finding::new("migrations", pending, "run `control-plane migrate`")
}

fn listeners(config: &HttpConfig) -> Vec<Finding> {
    vec![
        Finding::new(
            "API port",
            TcpListener::bind(SocketAddr::new(config.host, config.port)),
            "stop what listens there (perhaps this service runs), or change HOST and PORT",
        ),
        Finding::new(
            "metrics port",
            TcpListener::bind(SocketAddr::new(config.metrics_host, config.metrics_port)),
            "stop what listens there, or change METRICS_HOST and METRICS_PORT",
        ),
    ]
}

fn files(config: &Config) -> Vec<Finding> {
    let tls = config.http.tls.as_ref().map(|files| {
        Finding::new(
            "TLS",
            check_tls(files),
            "give TLS_CERT_FILE and TLS_KEY_FILE readable PEM files that belong together",
        )
    });
    let countries = config.guard.country.as_ref().map(|country| {
        Finding::new(
            "countries",
            check_countries(country),
            "give COUNTRY_DB_FILE a readable MMDB file with countries, such as GeoLite2-Country.mmdb",
        )
    });
    tls.into_iter().chain(countries).collect()
}
