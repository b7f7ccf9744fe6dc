//! The two daemons as they are shipped, in a world of network namespaces.
//!
//! ```text
//! this machine ──── node ──── internet
//!  (the plane)       │
//!                    └─────── client
//! ```
//!
//! The client has no route but to the node, and "the internet" none but to the node: what passes
//! between the two went through the tunnel and the node's address translation. A world may have more
//! nodes, each with wires of its own. Everything has names
//! of its own and goes when its value is dropped.

mod agent;
mod neighbour;
mod plane;
mod postgres;
mod probe;
mod process;
mod stage;
mod wg;
mod wire;
mod world;

pub use agent::{Agent, AgentStatus};
pub use neighbour::Neighbour;
pub use plane::{Plane, PlaneSettings};
pub use postgres::{Postgres, try_connect};
pub use probe::{Answer, Prober, Services};
pub use process::{Process, binary, run, try_run};
pub use stage::Stage;
pub use wg::{Backend, Ping, PingReport, WgClient, WgPeer, dump, key_of, unix_now};
pub use wire::Wire;
pub use world::{Cut, Site, World};

/// Fails with what to do when the tests were started by somebody who may not make namespaces.
pub fn require_root() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "these tests make network namespaces: run them as root"
    );
}
