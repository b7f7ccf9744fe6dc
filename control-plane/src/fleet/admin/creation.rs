//! A server before its host.

use diesel_async::AsyncConnection;
use serde_json::Value;
use shared::ids::ServerId;

use super::By;
use crate::audit::{self, Action, Subject};
use crate::error::ApiError;
use crate::fleet::Fleet;
use crate::fleet::store::{self, NewServer};

impl Fleet {
    /// Puts a server into the catalogue. It takes clients once a host has enrolled under its name.
    pub(in crate::fleet) async fn create(
        &self,
        new: &NewServer,
        by: By<'_>,
    ) -> Result<ServerId, ApiError> {
        let server = ServerId::generate();
        let event = by.event(Action::CreateServer).on(Subject::Server(server));
        let mut conn = self.db.get().await?;
        conn.transaction(async |conn| {
            store::insert_server(conn, server, new).await?;
            audit::record(conn, &event.change(Value::Null, new.described())).await?;
            Ok::<_, ApiError>(())
        })
        .await?;
        Ok(server)
    }
}
