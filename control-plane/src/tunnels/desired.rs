//! What a node's peers shall be, for its session, and what becomes of the node's answers.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use diesel::QueryResult;
use diesel::result::{DatabaseErrorKind, Error};
use diesel_async::AsyncPgConnection;
use shared::ids::{Generation, PeerId, Revision, ServerId};
use shared::protocol::{Change, FailureReason, Outcome, PeerResult, StateHash};

use super::model::EndReason;
use super::store::{self, Acked};
use crate::db::{Conn, Pool};
use crate::error::{ApiError, Code};
use crate::fleet::desired::{
    Acknowledged, Changes, DesiredState, Fence, NodeAnswer, Occupancy, Snapshot,
};
use crate::secrets::KeyRing;
use crate::usage::Live;

/// Connections ended by one statement.
const BATCH: i32 = 500;

/// The log of desired peers that the connections are.
#[derive(Debug, Clone)]
pub struct NodeLog {
    db: Pool,
    live: Arc<Live>,
    keys: Arc<KeyRing>,
}

impl NodeLog {
    #[must_use]
    pub const fn new(db: Pool, live: Arc<Live>, keys: Arc<KeyRing>) -> Self {
        Self { db, live, keys }
    }

    /// Stores the answers one by one, after one of them broke the statement for all: an address
    /// that another live connection has. That connection ends; the node is told to forget it.
    async fn acknowledge_each(
        &self,
        conn: &mut Conn<'_>,
        server: ServerId,
        fence: Fence,
        up_to: Revision,
        results: &[PeerResult],
    ) -> Result<Vec<Acked>, ApiError> {
        let mut acked = Vec::new();
        for result in results {
            let one = std::slice::from_ref(result);
            let consumed = self.consumed(server, one);
            match store::acknowledge(conn, server, fence, up_to, one, consumed).await {
                Ok(rows) => acked.extend(rows),
                Err(error) if is_unique_violation(&error) => {
                    tracing::error!(%server, peer = %result.peer, "tunnels.address_conflict");
                    store::end_peer(conn, server, result.peer, EndReason::AddressConflict).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(acked)
    }
}

#[async_trait]
impl DesiredState for NodeLog {
    async fn revision(&self, server: ServerId) -> Result<Revision, ApiError> {
        let revision = store::revision(&mut *self.db.get().await?, server).await?;
        Ok(revision.ok_or(Code::ServerNotFound)?)
    }

    async fn state_hash(&self, server: ServerId, at: Revision) -> Result<StateHash, ApiError> {
        Ok(store::fingerprint(&mut *self.db.get().await?, server, at).await?)
    }

    async fn snapshot(&self, server: ServerId) -> Result<Snapshot, ApiError> {
        let snapshot = store::snapshot(&mut *self.db.get().await?, &self.keys, server).await?;
        Ok(snapshot.ok_or(Code::ServerNotFound)?)
    }

    async fn changes(
        &self,
        server: ServerId,
        after: Revision,
        limit: usize,
    ) -> Result<Changes, ApiError> {
        let mut conn = self.db.get().await?;
        let changes = store::changes(&mut conn, &self.keys, server, after, limit).await?;
        Ok(changes.ok_or(Code::ServerNotFound)?)
    }

    async fn unacknowledged(
        &self,
        server: ServerId,
        up_to: Revision,
    ) -> Result<Vec<Change>, ApiError> {
        let mut conn = self.db.get().await?;
        Ok(store::unacknowledged(&mut conn, &self.keys, server, up_to).await?)
    }

    async fn acknowledge(
        &self,
        server: ServerId,
        fence: Fence,
        up_to: Revision,
        results: &[PeerResult],
    ) -> Result<Vec<Acknowledged>, ApiError> {
        if results.is_empty() {
            return Ok(Vec::new());
        }
        self.live
            .flush_before(&self.db, server, &final_generations(results))
            .await?;
        let mut conn = self.db.get().await?;
        let consumed = self.consumed(server, results);
        let stored = store::acknowledge(&mut conn, server, fence, up_to, results, consumed);
        let acked = match stored.await {
            Ok(acked) => acked,
            Err(error) if is_unique_violation(&error) => {
                self.acknowledge_each(&mut conn, server, fence, up_to, results)
                    .await?
            }
            Err(error) => return Err(error.into()),
        };
        drop(conn);
        Ok(self.tell(server, results, &acked))
    }

    async fn occupancy(
        &self,
        conn: &mut AsyncPgConnection,
        server: ServerId,
    ) -> QueryResult<Occupancy> {
        let (live, leaving) = store::occupancy(conn, server).await?;
        let count = |number: i64| u64::try_from(number).unwrap_or_default();
        Ok(Occupancy {
            live: count(live),
            leaving: count(leaving),
        })
    }

    async fn end_some(&self, server: ServerId) -> Result<usize, ApiError> {
        let ended = {
            let mut conn = self.db.get().await?;
            store::end_on(&mut conn, server, EndReason::ServerGone, BATCH).await?
        };
        for connection in &ended {
            self.live.changed(connection.user());
            metrics::counter!("tunnels_ended_total", "reason" => connection.end_reason.clone())
                .increment(1);
        }
        Ok(ended.len())
    }

    async fn abandon(&self, conn: &mut AsyncPgConnection, server: ServerId) -> QueryResult<()> {
        for user in store::abandon(conn, server).await? {
            self.live.changed(user);
        }
        Ok(())
    }
}

impl NodeLog {
    /// What the node said of these peers' quotas, brought up to their final counters.
    fn consumed(&self, server: ServerId, results: &[PeerResult]) -> Vec<Option<u64>> {
        let of = |result: &PeerResult| {
            let last = match &result.outcome {
                Outcome::Removed { counters } => counters.as_ref(),
                _ => None,
            };
            self.live.consumed(server, result.peer, last)
        };
        results.iter().map(of).collect()
    }

    fn tell(&self, server: ServerId, results: &[PeerResult], acked: &[Acked]) -> Vec<Acknowledged> {
        let outcomes: HashMap<_, _> = results
            .iter()
            .map(|result| (result.peer, &result.outcome))
            .collect();
        let mut told = Vec::with_capacity(acked.len());
        for row in acked {
            self.live.changed(row.user());
            if row.is_quota_due() {
                self.live.quota_due(row.user());
            }
            let answer = match outcomes.get(&row.peer()) {
                Some(Outcome::Active { addresses }) => {
                    self.live.reshared(server, row.peer());
                    NodeAnswer::Active(*addresses)
                }
                Some(Outcome::Removed { .. }) => {
                    self.live.forget(server, row.peer());
                    NodeAnswer::Removed
                }
                Some(Outcome::Failed { reason }) => NodeAnswer::Failed(*reason),
                Some(Outcome::Unknown) | None => NodeAnswer::Failed(FailureReason::Unknown),
            };
            told.push(Acknowledged {
                connection: row.connection(),
                answer,
            });
        }
        told
    }
}

/// The peers that are gone, each with the generation of its final counters.
fn final_generations(results: &[PeerResult]) -> Vec<(PeerId, Generation)> {
    results
        .iter()
        .filter_map(|result| match result.outcome {
            Outcome::Removed { counters } => Some((result.peer, counters?.generation)),
            _ => None,
        })
        .collect()
}

fn is_unique_violation(error: &Error) -> bool {
    matches!(
        error,
        Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _)
    )
}
