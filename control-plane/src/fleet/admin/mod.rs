//! Servers and nodes as their operator sees and changes them.
//!
//! A change locks the node's row, is recorded in its own commit, and is told to every replica and to
//! the node's session after it. What changes nothing is not recorded.

mod change;
mod creation;
mod model;
mod removal;
mod rotation;
mod tokens;

pub(super) use change::Change;
pub(super) use model::{Host, Managed, ManagedNode};
pub(super) use tokens::{Made, Wish};

use chrono::Utc;
use shared::ids::ServerId;
use shared::protocol::StateHash;

use super::Fleet;
use super::bus::{Channel, Notice};
use super::desired::{Fence, Occupancy};
use super::session::Ending;
use super::store;
use crate::audit::{Action, Actor, Event};
use crate::error::{ApiError, Code};
use crate::http::RequestId;

/// Whose change it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct By<'a> {
    pub(super) actor: &'a Actor,
    pub(super) request: Option<&'a RequestId>,
}

impl By<'_> {
    fn event(self, action: Action) -> Event {
        let event = Event::new(action, self.actor.clone());
        match self.request {
            Some(request) => event.in_request(request),
            None => event,
        }
    }
}

impl Fleet {
    /// One server with its node, as it is now.
    pub(super) async fn managed(&self, server: ServerId) -> Result<Managed, ApiError> {
        let managed = store::managed(&mut *self.db.get().await?, server).await?;
        Ok(self.with_vitals(managed.ok_or(Code::ServerNotFound)?))
    }

    /// One page of servers by hostname, and how many there are.
    pub(super) async fn managed_page(
        &self,
        filter: &store::ServerFilter,
        page: (i64, i64),
    ) -> Result<(Vec<Managed>, u64), ApiError> {
        let (servers, total) =
            store::managed_page(&mut *self.db.get().await?, filter, page).await?;
        let servers = servers.into_iter().map(|server| self.with_vitals(server));
        Ok((servers.collect(), total))
    }

    /// The server of this name.
    pub(super) async fn server_named(&self, hostname: &str) -> Result<ServerId, ApiError> {
        let found = store::server_named(&mut *self.db.get().await?, hostname).await?;
        Ok(found.ok_or(Code::ServerNotFound)?)
    }

    /// The fingerprint that the node has to have where it stands.
    pub(super) async fn expected_hash(&self, managed: &Managed) -> Result<StateHash, ApiError> {
        let at = managed.node.as_ref().map(|node| node.applied_revision);
        self.desired
            .state_hash(managed.id, at.unwrap_or_default())
            .await
    }

    pub(super) async fn occupancy(&self, server: ServerId) -> Result<Occupancy, ApiError> {
        let mut conn = self.db.get().await?;
        Ok(self.desired.occupancy(&mut conn, server).await?)
    }

    /// What a session in this process knows better than its last heartbeat.
    fn with_vitals(&self, managed: Managed) -> Managed {
        match self.sessions.get(managed.id) {
            Some(session) => managed.updated(&session.vitals(), Utc::now()),
            None => managed,
        }
    }

    /// After a commit: the catalogue is read anew, here before this returns.
    async fn catalogue_changed(&self) {
        if let Err(error) = self.refresh().await {
            tracing::warn!(%error, "fleet.view.refresh_failed");
        }
        self.announce_change();
    }

    /// After a commit: the node is told what is wanted of it, wherever its session is.
    fn redirect(&self, server: ServerId) {
        self.sessions.redirect(server);
        self.bus
            .publish(Channel::Everyone, Notice::Redirected { server });
    }

    /// After a commit: sessions with tokens of before are over, wherever they are.
    fn end_sessions(&self, server: ServerId, fence: Fence) {
        self.sessions.end_before(server, fence, Ending::Revoked);
        self.bus
            .publish(Channel::Everyone, Notice::Revoked { server, fence });
    }
}
