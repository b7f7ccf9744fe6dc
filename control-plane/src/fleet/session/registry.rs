//! The sessions of this process, by server: to wake one, to end one, to write all heartbeats.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use shared::ids::{PeerId, Revision, ServerId};
use shared::protocol::{Load, Settings, StateHash};
use shared::wireguard::PublicKey;
use tokio::sync::Notify;

use crate::fleet::desired::Fence;
use crate::fleet::identity::NodeIdentity;
use crate::fleet::lock;

/// Why a session shall end, said from outside of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::fleet) enum Ending {
    /// A newer session of the node took over, here or elsewhere.
    Replaced,
    /// The node's tokens are worth nothing any more.
    Revoked,
}

/// What the heartbeat writes about a session.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::fleet) struct Vitals {
    pub(in crate::fleet) last_heard: Instant,
    pub(in crate::fleet) load: f64,
    pub(in crate::fleet) ping: u32,
    pub(in crate::fleet) peers: u32,
    pub(in crate::fleet) pool_used: u32,
    pub(in crate::fleet) draining: bool,
    pub(in crate::fleet) sent: Revision,
    pub(in crate::fleet) applied: Revision,
    pub(in crate::fleet) state_hash: StateHash,
    /// The node's last report.
    pub(in crate::fleet) report: Option<Load>,
    /// What the node was told of the operator's wishes; none when it knows no such message.
    pub(in crate::fleet) settings: Option<Settings>,
}

/// A session as the rest of the process sees it.
#[derive(Debug)]
pub(in crate::fleet) struct Handle {
    pub(in crate::fleet) server: ServerId,
    pub(in crate::fleet) fence: Fence,
    pub(in crate::fleet) epoch: i32,
    /// The key of the node's interface. Another key is another session.
    pub(in crate::fleet) public_key: PublicKey,
    notify: Notify,
    mailbox: Mutex<Mailbox>,
    vitals: Mutex<Vitals>,
}

/// What came from outside since the session last looked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Calls {
    /// Since when there may be something to read.
    pub(super) woken: Option<Instant>,
    /// The operator may want something else of the node.
    pub(super) redirected: bool,
    /// Whose round trips to measure, when that changed.
    pub(super) looked_at: Option<Vec<PeerId>>,
    pub(super) ending: Option<Ending>,
}

#[derive(Debug, Default)]
struct Mailbox {
    woken: Option<Instant>,
    redirected: bool,
    ending: Option<Ending>,
    looked_at: Looked,
}

/// Whose round trips somebody looks at.
#[derive(Debug, Default)]
struct Looked {
    peers: Vec<PeerId>,
    is_new: bool,
}

impl Handle {
    pub(in crate::fleet) fn new(
        node: NodeIdentity,
        fence: Fence,
        public_key: PublicKey,
        vitals: Vitals,
    ) -> Self {
        Self {
            server: node.server,
            fence,
            epoch: node.epoch,
            public_key,
            notify: Notify::new(),
            mailbox: Mutex::default(),
            vitals: Mutex::new(vitals),
        }
    }

    /// There may be something past what the session sent. Any number of calls is one wake.
    pub(in crate::fleet) fn wake(&self) {
        lock(&self.mailbox).woken.get_or_insert_with(Instant::now);
        self.notify.notify_one();
    }

    /// The operator may want something else of the node than the session said.
    pub(in crate::fleet) fn redirect(&self) {
        lock(&self.mailbox).redirected = true;
        self.notify.notify_one();
    }

    pub(in crate::fleet) fn end(&self, ending: Ending) {
        lock(&self.mailbox).ending.get_or_insert(ending);
        self.notify.notify_one();
    }

    /// Waits for a call, and takes what came since the last one.
    pub(super) async fn called(&self) -> Calls {
        self.notify.notified().await;
        let mut mailbox = lock(&self.mailbox);
        let is_new = std::mem::take(&mut mailbox.looked_at.is_new);
        Calls {
            woken: mailbox.woken.take(),
            redirected: std::mem::take(&mut mailbox.redirected),
            looked_at: is_new.then(|| mailbox.looked_at.peers.clone()),
            ending: mailbox.ending,
        }
    }

    /// The node shall measure the round trips of these peers and of no others.
    pub(in crate::fleet) fn look_at(&self, peers: Vec<PeerId>) {
        let mut mailbox = lock(&self.mailbox);
        if mailbox.looked_at.peers != peers {
            let is_new = true;
            mailbox.looked_at = Looked { peers, is_new };
            drop(mailbox);
            self.notify.notify_one();
        }
    }

    pub(in crate::fleet) fn vitals(&self) -> Vitals {
        lock(&self.vitals).clone()
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Vitals)) {
        change(&mut lock(&self.vitals));
    }
}

#[derive(Debug, Default)]
pub(in crate::fleet) struct Sessions {
    by_server: Mutex<HashMap<ServerId, Arc<Handle>>>,
}

impl Sessions {
    /// Enters a session and ends the one that it replaces. False when a newer one is there already.
    pub(super) fn enter(&self, handle: &Arc<Handle>) -> bool {
        let mut sessions = lock(&self.by_server);
        match sessions.get(&handle.server) {
            Some(other) if other.fence > handle.fence => return false,
            Some(other) => other.end(Ending::Replaced),
            None => {}
        }
        sessions.insert(handle.server, Arc::clone(handle));
        true
    }

    /// Takes a session out. False when another took its place.
    pub(super) fn leave(&self, handle: &Handle) -> bool {
        let mut sessions = lock(&self.by_server);
        let is_there = sessions
            .get(&handle.server)
            .is_some_and(|there| there.fence == handle.fence);
        if is_there {
            sessions.remove(&handle.server);
        }
        is_there
    }

    /// Wakes the session of `server`. False when it is not here.
    pub(in crate::fleet) fn wake(&self, server: ServerId) -> bool {
        self.get(server).inspect(|session| session.wake()).is_some()
    }

    /// Has the session of `server`, where it is here, read the operator's wishes again.
    pub(in crate::fleet) fn redirect(&self, server: ServerId) {
        if let Some(session) = self.get(server) {
            session.redirect();
        }
    }

    pub(in crate::fleet) fn get(&self, server: ServerId) -> Option<Arc<Handle>> {
        lock(&self.by_server).get(&server).cloned()
    }

    pub(in crate::fleet) fn has(&self, server: ServerId) -> bool {
        lock(&self.by_server).contains_key(&server)
    }

    /// Ends the session of `server` if it is older than `fence`.
    pub(in crate::fleet) fn end_before(&self, server: ServerId, fence: Fence, why: Ending) {
        if let Some(session) = self.get(server).filter(|session| session.fence < fence) {
            session.end(why);
        }
    }

    pub(in crate::fleet) fn all(&self) -> Vec<Arc<Handle>> {
        lock(&self.by_server).values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn handle(fence: i64) -> Arc<Handle> {
        let vitals = Vitals {
            last_heard: Instant::now(),
            load: 0.0,
            ping: 0,
            peers: 0,
            pool_used: 0,
            draining: false,
            sent: Revision(0),
            applied: Revision(0),
            state_hash: StateHash::default(),
            report: None,
            settings: None,
        };
        let node = NodeIdentity {
            server: ServerId(Uuid::from_u128(1)),
            epoch: 0,
        };
        let key = PublicKey::from_bytes([1; 32]);
        Arc::new(Handle::new(node, Fence(fence), key, vitals))
    }

    #[tokio::test]
    async fn the_newer_session_wins_whatever_the_order() {
        let sessions = Sessions::default();
        let (old, new) = (handle(1), handle(2));
        assert!(sessions.enter(&old));
        assert!(sessions.enter(&new));
        assert_eq!(old.called().await.ending, Some(Ending::Replaced));
        assert!(!sessions.enter(&old));
        assert!(!sessions.leave(&old));
        assert!(sessions.leave(&new));
        assert!(sessions.all().is_empty());
    }

    #[tokio::test]
    async fn wakes_coalesce_and_keep_the_first_moment() {
        let session = handle(1);
        session.wake();
        let first = lock(&session.mailbox).woken;
        session.wake();
        assert_eq!(session.called().await.woken, first);
        assert_eq!(lock(&session.mailbox).woken, None);
    }

    #[tokio::test]
    async fn what_is_looked_at_calls_when_it_changed() {
        let session = handle(1);
        session.look_at(Vec::new());
        session.look_at(vec![PeerId(4)]);
        assert_eq!(session.called().await.looked_at, Some(vec![PeerId(4)]));
        session.look_at(vec![PeerId(4)]);
        session.wake();
        assert_eq!(session.called().await.looked_at, None);
    }

    #[tokio::test]
    async fn a_redirection_is_taken_once() {
        let session = handle(1);
        session.redirect();
        session.redirect();
        assert!(session.called().await.redirected);
        session.wake();
        assert!(!session.called().await.redirected);
    }

    #[test]
    fn only_older_sessions_are_ended() {
        let sessions = Sessions::default();
        let session = handle(5);
        sessions.enter(&session);
        sessions.end_before(session.server, Fence(5), Ending::Revoked);
        assert_eq!(lock(&session.mailbox).ending, None);
        sessions.end_before(session.server, Fence(6), Ending::Revoked);
        assert_eq!(lock(&session.mailbox).ending, Some(Ending::Revoked));
    }
}
