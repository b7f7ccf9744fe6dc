//! The agent's side of the session with the plane: dial, say where the node stands, pass on what the
//! plane wants and what the node answers, report, and dial again.
//!
//! What must hold: nothing that the plane sends can stop the agent, and nothing here touches the
//! interface. While there is no session the node goes on by itself.

mod backoff;
mod enrol;
mod plane;
mod session;
mod snapshot;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use ipnet::{Ipv4Net, Ipv6Net};
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};
use shared::ids::{Revision, ServerId, SessionId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

pub use backoff::{Backoff, Retry};
pub use enrol::{EnrolError, causes, client, enrol};
pub use plane::{PlaneUrl, PlaneUrlError, TlsError, tls};

use crate::host::LoadSampler;
use crate::ledger::Identity;
use crate::probe::{Prober, RoundTrip, Target};
use crate::reconcile::NodeHandle;

/// What a link is made from.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    pub plane: PlaneUrl,
    pub tls: Arc<ClientConfig>,
    /// Where clients reach WireGuard, `host:port`.
    pub endpoint: String,
    pub subnet: Ipv4Net,
    pub subnet_v6: Option<Ipv6Net>,
    pub boot_id: Uuid,
    /// A plane that says nothing for so long is gone.
    pub silence: Duration,
    pub backoff: Backoff,
}

/// The session as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStatus {
    pub server_id: ServerId,
    #[serde(rename = "session")]
    pub state: LinkState,
    /// The newest revision that the plane has told of.
    pub desired_revision: Option<Revision>,
    pub token_expires_at: DateTime<Utc>,
    /// Why the last session ended or did not begin.
    pub last_error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum LinkState {
    Connecting,
    Connected {
        id: SessionId,
        since: DateTime<Utc>,
    },
    /// Until the next attempt.
    Waiting,
}

/// Keeps a session with the plane.
#[derive(Debug)]
pub struct Link {
    config: LinkConfig,
    identity: Identity,
    node: NodeHandle,
    sampler: LoadSampler,
    prober: Option<Prober>,
    status: watch::Sender<LinkStatus>,
}

impl Link {
    #[must_use]
    pub fn new(
        config: LinkConfig,
        identity: Identity,
        node: NodeHandle,
        sampler: LoadSampler,
    ) -> (Self, watch::Receiver<LinkStatus>) {
        let (status, watched) = watch::channel(LinkStatus {
            server_id: identity.server_id,
            state: LinkState::Waiting,
            desired_revision: None,
            token_expires_at: identity.token.expires_at,
            last_error: None,
        });
        let link = Self {
            config,
            identity,
            node,
            sampler,
            prober: None,
            status,
        };
        (link, watched)
    }

    /// Measures round trips of the clients that the plane watches.
    #[must_use]
    pub fn probing(mut self, prober: Prober) -> Self {
        self.prober = Some(prober);
        self
    }

    /// Until `stop`, or until the node's task has ended.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = self.config.backoff.clone();
        loop {
            self.status
                .send_modify(|it| it.state = LinkState::Connecting);
            let begin = Instant::now();
            let end = session::run(&mut self, &stop).await;
            // Nobody is watched until the next session says so.
            self.round(Vec::new());
            if matches!(end, session::End::Stopped) {
                return;
            }
            if begin.elapsed() > backoff.cap() {
                backoff.reset();
            }
            let wait = backoff.next(end.retry(), &mut rand::rng());
            warn!(event = "session_ended", reason = %end, retry_in = ?wait);
            self.status.send_modify(|it| {
                it.state = LinkState::Waiting;
                it.last_error = Some(end.to_string());
            });
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    fn round(&mut self, targets: Vec<Target>) -> Vec<RoundTrip> {
        let prober = self.prober.as_mut();
        prober.map_or_else(Vec::new, |prober| prober.round(targets, Instant::now()))
    }

    fn connected(&self, session: SessionId, revision: Revision) {
        info!(event = "session_began", %session, revision = revision.0);
        let since = Utc::now();
        self.status.send_modify(|it| {
            it.state = LinkState::Connected { id: session, since };
            it.last_error = None;
        });
        self.desires(revision);
    }

    fn desires(&self, revision: Revision) {
        self.status.send_modify(|it| {
            it.desired_revision = it.desired_revision.max(Some(revision));
        });
    }
}
