//! A fleet of simulated nodes that costs next to nothing beside the plane that it loads.
//!
//! [`crate::SimNode`] holds what a test may ask about; a node here holds one table of counters
//! ([`traffic`]) and one socket ([`node`]). All nodes share one thread. They are enrolled over the real
//! protocol, and their sessions are the real protocol; the connections that they carry from the
//! beginning are written by SQL ([`population`]).

pub mod audit;
pub mod node;
pub mod population;
pub mod traffic;
pub mod viewers;

use std::time::Duration;

use tokio::time::Instant;

/// Every peer is told of once in this time.
pub const SECOND: Duration = Duration::from_secs(1);

/// When the nodes report: each once a second, evenly spread over it.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    pub since: Instant,
    pub nodes: u32,
    /// Seconds that are not measured.
    pub warm_up: u32,
    /// Seconds that are.
    pub measured: u32,
}

impl Schedule {
    /// When this node's frame of this second is due.
    #[must_use]
    pub fn due(&self, node: u32, second: u32) -> Instant {
        self.since + SECOND * second + SECOND * node / self.nodes
    }

    #[must_use]
    pub const fn seconds(&self) -> u32 {
        self.warm_up + self.measured
    }

    /// Between these the plane is measured.
    #[must_use]
    pub fn window(&self) -> (Instant, Instant) {
        let begin = self.since + SECOND * self.warm_up;
        (begin, begin + SECOND * self.measured)
    }
}
