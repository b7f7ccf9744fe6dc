//! Postgres.

use secrecy::SecretString;

use super::reader::{REDACTED, Reader};

const TAKES: &str = "takes postgresql://user:password@host:5432/database, optionally with \
                     ?sslmode=disable, prefer or require";

#[derive(Debug, Clone)]
pub struct DatabaseConfig {
    /// As tokio-postgres takes it.
    pub url: SecretString,
    pub pool_size: u32,
}

impl DatabaseConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let name = "DATABASE_URL";
        let url = reader.given(name).map(normalise).unwrap_or_default();
        if url.is_empty() {
            reader.problem(name, format!("is not set; it {TAKES}"));
        } else if !is_usable(&url) {
            reader.problem(name, TAKES);
        }
        reader.note(name, REDACTED);
        Self {
            url: SecretString::from(url),
            pool_size: reader.count("DATABASE_POOL_SIZE", 20),
        }
    }
}

/// Drops the Python driver from the scheme and gives asyncpg's `ssl` its usual name.
fn normalise(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let scheme = scheme.split('+').next().unwrap_or(scheme);
    let rest = match rest.split_once('?') {
        Some((place, query)) => {
            let query: Vec<_> = query
                .split('&')
                .map(|pair| match pair.strip_prefix("ssl=") {
                    Some(mode) => format!("sslmode={mode}"),
                    None => pair.to_owned(),
                })
                .collect();
            format!("{place}?{}", query.join("&"))
        }
        None => rest.to_owned(),
    };
    format!("{scheme}://{rest}")
}

fn is_usable(url: &str) -> bool {
    let known = url.starts_with("postgresql://") || url.starts_with("postgres://");
    known
        && url
            .parse::<tokio_postgres::Config>()
            .is_ok_and(|config| !config.get_hosts().is_empty() && config.get_dbname().is_some())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("postgresql+asyncpg://u:p@h/d", "postgresql://u:p@h/d")]
    #[case("postgresql+psycopg://u:p@h:5433/d", "postgresql://u:p@h:5433/d")]
    #[case("postgres://u@h/d?sslmode=require", "postgres://u@h/d?sslmode=require")]
    #[case(
        "postgresql+asyncpg://u@h/d?ssl=require",
        "postgresql://u@h/d?sslmode=require"
    )]
    #[case("postgresql://u:a+b@h/d", "postgresql://u:a+b@h/d")]
    fn a_python_url_is_understood(#[case] given: &str, #[case] used: &str) {
        assert_eq!(normalise(given), used);
        assert!(is_usable(used));
    }

    #[rstest]
    #[case("mysql://u@h/d")]
    #[case("postgresql://u@h")]
    #[case("h/d")]
    #[case("postgresql://u@h/d?sslmode=perhaps")]
    fn anything_else_is_not(#[case] url: &str) {
        assert!(!is_usable(&normalise(url)));
    }
}
