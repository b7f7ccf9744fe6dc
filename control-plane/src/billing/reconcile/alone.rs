//! One comparison at a time, over all replicas.

use diesel::QueryResult;
use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::bb8::PooledConnection;
use secrecy::ExposeSecret;

use super::store;
use crate::app::AppState;
use crate::db;
use crate::error::ApiError;

/// The right to compare. A connection outside of the pool holds it for as long as it is open, so that it ends with
/// whoever has it.
#[must_use]
pub struct Alone {
    _connection: PooledConnection<'static, AsyncPgConnection>,
}

impl Alone {
    /// None while somebody else compares.
    pub async fn take(state: &AppState) -> Result<Option<Self>, ApiError> {
        let pool = db::connect(state.config().database.url.expose_secret(), 1);
        let mut connection = pool.get_owned().await?;
        let is_ours: QueryResult<bool> = store::lock(&mut connection).await;
        Ok(is_ours?.then_some(Self {
            _connection: connection,
        }))
    }
}

impl std::fmt::Debug for Alone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Alone")
    }
}
