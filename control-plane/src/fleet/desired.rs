//! What a node session needs from the rooms above the fleet, as two narrow traits.
//!
//! The session speaks the protocol and knows nothing of tunnels or bytes: `tunnels` says what a
//! node's peers shall be and takes the acknowledgements, `usage` takes the counters. Both hand
//! themselves in when the application is put together, so that the arrows point one way.

use async_trait::async_trait;
use diesel::QueryResult;
use diesel_async::AsyncPgConnection;
use serde::{Deserialize, Serialize};
use shared::ids::{ConnectionId, Revision, ServerId};
use shared::protocol::{
    Addresses, Change, FailureReason, Peer, PeerResult, RoundTrips, StateHash,
    counters::CountersFrame,
};

use crate::error::ApiError;

/// A node's whole desired state.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub revision: Revision,
    pub peers: Vec<Peer>,
}

/// A piece of a node's history.
#[derive(Debug, Clone)]
pub struct Changes {
    /// Where the node stands after these changes.
    pub to: Revision,
    pub changes: Vec<Change>,
    /// There is more past `to`.
    pub more: bool,
}

/// What a node said about one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    pub connection: ConnectionId,
    pub answer: NodeAnswer,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeAnswer {
    Active(Addresses),
    Removed,
    Failed(FailureReason),
}

/// The number of a session of a node. Only the newest may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fence(pub i64);

/// A node's desired peers, kept by revision.
#[async_trait]
pub trait DesiredState: Send + Sync + std::fmt::Debug {
    /// The desired revision now.
    async fn revision(&self, server: ServerId) -> Result<Revision, ApiError>;

    /// The fingerprint of the peers that the node shall have had at `revision`.
    async fn state_hash(&self, server: ServerId, at: Revision) -> Result<StateHash, ApiError>;

    async fn snapshot(&self, server: ServerId) -> Result<Snapshot, ApiError>;

    /// What is past `after`, oldest first, at most `limit` changes.
    async fn changes(
        &self,
        server: ServerId,
        after: Revision,
        limit: usize,
    ) -> Result<Changes, ApiError>;

    /// What was sent up to `up_to` and never acknowledged, to be sent once more.
    async fn unacknowledged(
        &self,
        server: ServerId,
        up_to: Revision,
    ) -> Result<Vec<Change>, ApiError>;

    /// Stores the node's answers in one statement, unless a newer session took over; says which
    /// connections they were about. The node has applied everything up to `up_to`.
    async fn acknowledge(
        &self,
        server: ServerId,
        fence: Fence,
        up_to: Revision,
        results: &[PeerResult],
    ) -> Result<Vec<Acknowledged>, ApiError>;

    /// How many clients the server has. In a transaction that holds the node's row it stays so.
    async fn occupancy(
        &self,
        conn: &mut AsyncPgConnection,
        server: ServerId,
    ) -> QueryResult<Occupancy>;

    /// Ends the server's live connections, some at a time, because it leaves the fleet; says how
    /// many, zero once none is left. The caller signals the node.
    async fn end_some(&self, server: ServerId) -> Result<usize, ApiError>;

    /// Makes everything on the server final, in the transaction that removes it: its node will not be
    /// heard again.
    async fn abandon(&self, conn: &mut AsyncPgConnection, server: ServerId) -> QueryResult<()>;
}

/// The clients of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Occupancy {
    pub live: u64,
    /// Ended, and the node has not said yet that their peers are gone.
    pub leaving: u64,
}

/// Takes the counters of a node's peers. Must not block and must bound what it keeps.
pub trait CounterSink: Send + Sync + std::fmt::Debug {
    fn record(&self, server: ServerId, frame: CountersFrame);

    /// Takes round trips that somebody in this process looks at.
    fn round_trips(&self, server: ServerId, trips: &RoundTrips);
}
