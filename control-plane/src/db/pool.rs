//! Connections to Postgres: pooled, with TLS where the URL asks for it.

use std::sync::Arc;
use std::time::Duration;

use diesel::{ConnectionError, ConnectionResult};
use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::{
    AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod, bb8,
};
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

pub type Pool = bb8::Pool<AsyncPgConnection>;
/// A connection taken from the pool.
pub type Conn<'a> = bb8::PooledConnection<'a, AsyncPgConnection>;
/// Why the pool gave no connection.
pub type PoolError = bb8::RunError;

/// How long a request waits for a free connection before it answers that the service is busy.
const CHECKOUT_TIMEOUT: Duration = Duration::from_secs(5);

/// A pool of at most `size` connections. Opens none yet: Postgres may still be starting.
#[must_use]
pub fn connect(url: &str, size: u32) -> Pool {
    let mut config = ManagerConfig::default();
    // A connection that died shows at its first use; a ping a checkout would double the round trips.
    config.recycling_method = RecyclingMethod::Fast;
    config.custom_setup = Box::new(|url| {
        let url = url.to_owned();
        Box::pin(async move { establish(&url).await })
    });
    bb8::Pool::builder()
        .max_size(size)
        .connection_timeout(CHECKOUT_TIMEOUT)
        .build_unchecked(AsyncDieselConnectionManager::new_with_config(url, config))
}

/// Whether Postgres can be reached. Tells the reason, which the pool keeps to itself.
pub async fn reach(url: &str) -> ConnectionResult<()> {
    establish(url).await.map(drop)
}

/// One connection outside the pool.
pub(super) async fn establish(url: &str) -> ConnectionResult<AsyncPgConnection> {
    let config: tokio_postgres::Config = url.parse().map_err(|error: tokio_postgres::Error| {
        ConnectionError::InvalidConnectionUrl(error.to_string())
    })?;
    let bad = |error: tokio_postgres::Error| ConnectionError::BadConnection(chain(&error));
    if config.get_ssl_mode() == SslMode::Require {
        let (client, connection) = config.connect(tls()).await.map_err(bad)?;
        AsyncPgConnection::try_from_client_and_connection(client, connection).await
    } else {
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.map_err(bad)?;
        AsyncPgConnection::try_from_client_and_connection(client, connection).await
    }
}

fn tls() -> MakeRustlsConnect {
    let roots = rustls::RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(Arc::new(roots))
        .with_no_client_auth();
    MakeRustlsConnect::new(config)
}

/// tokio-postgres keeps the reason ("Connection refused") in the source.
fn chain(error: &tokio_postgres::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
