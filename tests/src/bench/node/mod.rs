//! What `bench-node` is made of: a plane that speaks the protocol and nothing else, the agent as a
//! process, a bare netlink socket, and an interface whose counters move.

mod agent;
mod moving;
mod plane;
mod raw;

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::ensure;
use chrono::{TimeDelta, Utc};
use shared::ids::{ConnectionId, PeerId};
use shared::protocol::{Limits, Peer};
use shared::wireguard::{PresharedKey, PrivateKey};

pub use agent::NodeProcess;
pub use moving::Moving;
pub use plane::{Heard, Plane, Session, snapshot};
pub use raw::RawSocket;

/// Where clients' addresses come from.
pub const SUBNET: &str = "10.8.0.0/16";
pub const SUBNET_V6: &str = "fd08::/112";

/// The peer of this number, with keys of its own.
#[must_use]
pub fn peer(number: u64) -> Peer {
    Peer {
        peer: PeerId(number),
        connection: ConnectionId::generate(),
        public_key: PrivateKey::generate().public_key(),
        preshared_key: Some(PresharedKey::generate()),
        addresses: None,
        not_after: Some(Utc::now() + TimeDelta::days(1)),
        limits: Limits::default(),
    }
}

/// The peers as `wg setconf` takes them, each with two addresses.
#[must_use]
pub fn configuration(peers: &[Peer], port: u16) -> String {
    let key = PrivateKey::generate();
    let mut text = format!(
        "[Interface]\nPrivateKey = {}\nListenPort = {port}\n",
        *key.expose_base64()
    );
    for (peer, host) in peers.iter().zip(2_u32..) {
        let v4 = Ipv4Addr::from(0x0a08_0000 + host);
        let v6 = Ipv6Addr::from((0xfd08_u128 << 112) + u128::from(host));
        let _ = writeln!(text, "\n[Peer]\nPublicKey = {}", peer.public_key);
        if let Some(key) = &peer.preshared_key {
            let _ = writeln!(text, "PresharedKey = {}", *key.expose_base64());
        }
        let _ = writeln!(text, "AllowedIPs = {v4}/32, {v6}/128");
    }
    text
}

/// Runs a command line of words and answers what it printed.
pub fn output(line: &str) -> anyhow::Result<String> {
    let mut words = line.split_ascii_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    let output = command.args(words).stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "{line}: {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// Runs a command line of words and answers how long that took. Its output is passed over.
pub fn timed(line: &str) -> anyhow::Result<Duration> {
    let mut words = line.split_ascii_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    command
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let began = Instant::now();
    let status = command.status()?;
    let took = began.elapsed();
    ensure!(status.success(), "{line}: {status}");
    Ok(took)
}
