//! A server leaves the fleet: its clients first, then its node, then its row. What was stays in the
//! history of its connections.

use std::time::Duration;

use diesel_async::AsyncConnection;
use serde_json::Value;
use shared::ids::ServerId;
use tokio::time::{Instant, sleep};

use super::{By, Change, Managed};
use crate::audit::{self, Action, Subject};
use crate::error::{ApiError, Code};
use crate::fleet::Fleet;
use crate::fleet::desired::Fence;
use crate::fleet::store;
use crate::fleet::view::ServerStatus;

/// How long to wait for the node's last word on its clients.
const LAST_WORD: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl Fleet {
    /// Removes the server. One with live connections only when forced: then they end before.
    pub(in crate::fleet) async fn remove(
        &self,
        server: ServerId,
        forced: bool,
        by: By<'_>,
    ) -> Result<(), ApiError> {
        if forced {
            self.empty(server, by).await?;
        }
        let event = by.event(Action::DeleteServer).on(Subject::Server(server));
        {
            let mut conn = self.db.get().await?;
            conn.transaction(async |conn| {
                let managed = store::lock_server(conn, server).await?;
                let managed = managed.ok_or(Code::ServerNotFound)?;
                if !forced && self.desired.occupancy(conn, server).await?.live > 0 {
                    return Err(ApiError::from(Code::ServerInUse));
                }
                self.desired.abandon(conn, server).await?;
                store::delete_server(conn, server).await?;
                let before = store::described(&managed);
                audit::record(conn, &event.change(before, Value::Null)).await?;
                Ok(())
            })
            .await?;
        }
        tracing::info!(%server, "fleet.server_removed");
        self.end_sessions(server, Fence(i64::MAX));
        self.catalogue_changed().await;
        Ok(())
    }

    /// Ends what is live there, after nothing more can come, and gives the node a moment to say how
    /// many bytes it was.
    async fn empty(&self, server: ServerId, by: By<'_>) -> Result<(), ApiError> {
        let off = Change::Status(ServerStatus::Offline);
        self.change(server, off, by).await?;
        while self.desired.end_some(server).await? > 0 {}
        self.signal(server, None);
        let managed: Managed = self.managed(server).await?;
        let end = Instant::now() + LAST_WORD;
        while managed.is_online(chrono::Utc::now())
            && self.occupancy(server).await?.leaving > 0
            && Instant::now() < end
        {
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }
}
