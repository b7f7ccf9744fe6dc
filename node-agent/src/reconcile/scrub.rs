//! Makes the interface forget where idle clients are (design, invariant 8).
//!
//! WireGuard forgets a client's endpoint only with the peer. So a peer that was idle for long is taken
//! out and put back with its key, preshared key and addresses. Its session is over by then: WireGuard
//! itself uses none for longer than 180 s, so the client's next packet begins with a handshake anyway.
//!
//! What must hold: no byte is lost or counted twice (invariant 6), whenever the agent crashes. The
//! steps are in an order that gives this: what the generation has counted goes into the ledger; the
//! peer's addresses are taken from it, from when on no more is counted; the interface is read again,
//! and who has woken up gets its addresses back; the new generation goes into the ledger; the peer is
//! replaced. A start after a crash in between finds a peer without its addresses. Before the new
//! generation was written it is booked and gets them back; afterwards it is replaced unbooked.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use shared::wireguard::PublicKey;
use tracing::{debug, warn};

use super::node::{Node, NodeError};
use super::state::Staged;
use crate::wireguard::{PeerOp, PeerSpec, PeerStatus, Traffic};

/// How long a peer must be idle: as long as WireGuard uses a session at most.
pub const SCRUB_AFTER: Duration = Duration::from_secs(180);

/// Peers that are replaced in one cycle, so that no connect waits for long.
const MAX_A_CYCLE: usize = 256;

/// What changes when a client does anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Trace {
    rx_bytes: u64,
    tx_bytes: u64,
    last_handshake: Option<u64>,
}

impl Trace {
    fn of(status: &PeerStatus) -> Self {
        Self {
            rx_bytes: status.rx_bytes,
            tx_bytes: status.tx_bytes,
            last_handshake: status.last_handshake,
        }
    }

    /// A peer that was never heard of since it was added has no endpoint.
    fn is_blank(self) -> bool {
        self.rx_bytes == 0 && self.tx_bytes == 0 && self.last_handshake.is_none()
    }
}

/// Since when each peer is idle.
#[derive(Debug)]
pub(super) struct Scrubber {
    idle: Duration,
    seen: HashMap<PublicKey, (Trace, Instant)>,
}

impl Scrubber {
    pub(super) fn new(idle: Duration) -> Self {
        Self {
            idle,
            seen: HashMap::new(),
        }
    }

    /// Takes a dump in, and answers who was idle for long and may have an endpoint: the longest idle
    /// first. Who was scrubbed is not named again until it is active.
    fn due(&mut self, dump: &[PeerStatus], now: Instant) -> Vec<PublicKey> {
        let mut seen = HashMap::with_capacity(dump.len());
        let mut due = Vec::new();
        for status in dump {
            let (key, trace) = (status.public_key, Trace::of(status));
            let before = self.seen.get(&key).filter(|(before, _)| *before == trace);
            let since = before.map_or(now, |(_, since)| *since);
            if !trace.is_blank() && now.saturating_duration_since(since) >= self.idle {
                due.push((since, key));
            }
            seen.insert(key, (trace, since));
        }
        self.seen = seen;
        due.sort_unstable();
        due.into_iter().map(|(_, key)| key).collect()
    }
}

/// Peers that were asked to be scrubbed, by whether they are still as they were.
#[derive(Debug, Default)]
struct Checked {
    asleep: Vec<PeerSpec>,
    awake: Vec<PeerSpec>,
}

fn check(specs: Vec<PeerSpec>, before: &[PeerStatus], after: &[PeerStatus]) -> Checked {
    let traces = |dump: &[PeerStatus]| -> HashMap<PublicKey, Trace> {
        dump.iter()
            .map(|status| (status.public_key, Trace::of(status)))
            .collect()
    };
    let (before, after) = (traces(before), traces(after));
    let still = |spec: &PeerSpec| before.get(&spec.public_key) == after.get(&spec.public_key);
    let (asleep, awake) = specs.into_iter().partition(still);
    Checked { asleep, awake }
}

fn without_addresses(spec: &PeerSpec) -> PeerOp {
    PeerOp::Update(PeerSpec {
        allowed_ips: Vec::new(),
        ..spec.clone()
    })
}

impl Node {
    /// Clears the endpoints of peers that are idle for `idle` from now on.
    #[must_use]
    pub fn scrubbing(mut self, idle: Duration) -> Self {
        self.scrubber = Some(Scrubber::new(idle));
        self
    }

    /// One cycle. A device that fails is repaired at once, or at the next comparison.
    pub(super) async fn scrub(&mut self) -> Result<(), NodeError> {
        match self.try_scrub().await {
            Err(NodeError::Device(error)) => {
                warn!(event = "scrub_failed", %error);
                self.try_reconcile().await
            }
            other => other,
        }
    }

    async fn try_scrub(&mut self) -> Result<(), NodeError> {
        if self.scrubber.is_none() {
            return Ok(());
        }
        let before = self.dump_and_book().await?;
        let specs = self.select(&before);
        if specs.is_empty() {
            return Ok(());
        }
        let keys = specs.iter().map(|spec| &spec.public_key);
        let writes = self.state.begin_to_end(keys);
        self.commit(writes).await?;
        let emptied: Vec<_> = specs.iter().map(without_addresses).collect();
        self.program(&emptied).await?;
        let after = self.dump_and_book().await?;
        let Checked { asleep, awake } = check(specs, &before, &after);
        debug!(
            event = "scrubbed",
            peers = asleep.len(),
            awake = awake.len()
        );
        let restored: Vec<_> = awake.into_iter().map(PeerOp::Update).collect();
        self.program(&restored).await?;
        let keys = asleep.iter().map(|spec| &spec.public_key);
        let staged = Staged {
            writes: self.state.begin_generation(keys),
            operations: asleep
                .into_iter()
                .flat_map(|spec| [PeerOp::Remove(spec.public_key), PeerOp::Add(spec)])
                .collect(),
            results: Vec::new(),
        };
        self.carry_out(staged).await.map(drop)
    }

    async fn dump_and_book(&mut self) -> Result<Vec<PeerStatus>, NodeError> {
        let began = self.state.begin_dump();
        let dump = self.device.peers().await?;
        self.observe(dump.iter().map(Traffic::from), began).await?;
        Ok(dump)
    }

    /// Who is to be scrubbed now. Where so many generations ended that some are not reported yet,
    /// bytes come first and the rest waits.
    fn select(&mut self, dump: &[PeerStatus]) -> Vec<PeerSpec> {
        let Some(scrubber) = &mut self.scrubber else {
            return Vec::new();
        };
        let due = scrubber.due(dump, Instant::now());
        let own = due.iter().filter_map(|key| self.state.scrubbable(key));
        own.take(MAX_A_CYCLE).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(seed: u8, bytes: u64) -> PeerStatus {
        PeerStatus {
            public_key: PublicKey::from_bytes([seed; 32]),
            preshared_key: None,
            allowed_ips: Vec::new(),
            rx_bytes: bytes,
            tx_bytes: 0,
            last_handshake: None,
        }
    }

    fn key(seed: u8) -> PublicKey {
        PublicKey::from_bytes([seed; 32])
    }

    #[test]
    fn who_is_idle_for_long_is_due_and_a_blank_peer_never() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut scrubber = Scrubber::new(SCRUB_AFTER);
        let dump = [status(1, 5), status(2, 5), status(3, 0)];
        assert_eq!(scrubber.due(&dump, at(0)), []);
        assert_eq!(scrubber.due(&dump, at(179)), []);
        let active = [status(1, 5), status(2, 6), status(3, 0)];
        assert_eq!(scrubber.due(&active, at(180)), [key(1)]);
        // Its handshake alone is activity too.
        let mut greeted = active.clone();
        greeted[0].last_handshake = Some(1);
        assert_eq!(scrubber.due(&greeted, at(300)), []);
        assert_eq!(scrubber.due(&greeted, at(480)), [key(2), key(1)]);
        // Scrubbed, it is blank until it is heard of again.
        let mut scrubbed = greeted.clone();
        scrubbed[1] = status(2, 0);
        assert_eq!(scrubber.due(&scrubbed, at(481)), [key(1)]);
        assert_eq!(scrubber.due(&scrubbed, at(9000)), [key(1)]);
        assert_eq!(scrubber.due(&[], at(9001)), []);
        assert!(scrubber.seen.is_empty());
    }

    #[test]
    fn who_woke_up_meanwhile_is_told_apart() {
        let spec = |seed| PeerSpec {
            public_key: key(seed),
            preshared_key: None,
            allowed_ips: Vec::new(),
        };
        let before = [status(1, 5), status(2, 5), status(3, 5)];
        let after = [status(1, 5), status(2, 6)];
        let checked = check(vec![spec(1), spec(2), spec(3)], &before, &after);
        assert_eq!(checked.asleep, [spec(1)]);
        assert_eq!(checked.awake, [spec(2), spec(3)]);
    }
}
