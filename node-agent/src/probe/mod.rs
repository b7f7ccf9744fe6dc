//! Measures the round trip to watched clients: one ICMP echo a second through the tunnel.
//!
//! What must hold: nobody but the named clients is sent anything, and only through our interface; an
//! answer counts once, from the client that was asked, with the number and the token of its echo;
//! everything is bounded, whatever clients send.
//!
//! The sockets are the kernel's ICMP datagram sockets: it fills in identifier and checksum and hands
//! over answers to this socket alone. They need no capability, only `net.ipv4.ping_group_range`
//! (`systemd/sysctl.d`), and can do nothing but ping.

mod echo;
mod rounds;
mod socket;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use shared::ids::PeerId;
use shared::protocol::Addresses;
use tokio::sync::mpsc;

use self::socket::Sockets;
use crate::wireguard::InterfaceName;

pub use self::socket::permitted;

/// Between two rounds at least, a little less than the second in which reports come.
const PACE: Duration = Duration::from_millis(800);

/// A client to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    pub peer: PeerId,
    pub address: IpAddr,
}

impl Target {
    /// IPv4, or IPv6 where there is none.
    #[must_use]
    pub fn new(peer: PeerId, addresses: Addresses) -> Self {
        let v4 = IpAddr::V4(addresses.v4);
        let v6 = addresses.v6.filter(|_| addresses.v4.is_unspecified());
        Self {
            peer,
            address: v6.map_or(v4, IpAddr::V6),
        }
    }
}

/// A peer and its round trip in microseconds.
pub type RoundTrip = (PeerId, u32);

/// Asks in rounds and collects what is answered. Its task ends with it.
#[derive(Debug)]
pub struct Prober {
    rounds: mpsc::Sender<Vec<Target>>,
    answers: Arc<Mutex<Vec<RoundTrip>>>,
    last: Option<Instant>,
    is_idle: bool,
}

impl Prober {
    /// `own` are the node's addresses inside the tunnel. Nothing is opened before the first round.
    #[must_use]
    pub fn start(interface: InterfaceName, own: &[IpNet]) -> Self {
        // A round that finds another one waiting is left out.
        let (rounds, queue) = mpsc::channel(1);
        let answers = Arc::default();
        let sockets = Sockets::new(interface, own);
        tokio::spawn(sockets.run(queue, Arc::clone(&answers)));
        Self {
            rounds,
            answers,
            last: None,
            is_idle: true,
        }
    }

    /// Answers what came in since the last call, and begins a round if the last one is long enough
    /// ago. Without targets it closes its sockets.
    pub fn round(&mut self, targets: Vec<Target>, now: Instant) -> Vec<RoundTrip> {
        let waited = self
            .last
            .is_none_or(|last| now.saturating_duration_since(last) >= PACE);
        if targets.is_empty() {
            if !self.is_idle && self.rounds.try_send(targets).is_ok() {
                self.is_idle = true;
            }
        } else if waited && self.rounds.try_send(targets).is_ok() {
            self.last = Some(now);
            self.is_idle = false;
        }
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *answers)
    }
}
