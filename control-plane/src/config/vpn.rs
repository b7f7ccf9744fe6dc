//! Tunnels: what clients are told and how long things may take.

use std::net::IpAddr;
use std::time::Duration;

use super::reader::{Reader, split};

#[derive(Debug, Clone)]
pub struct VpnConfig {
    /// The resolvers that a client's configuration names.
    pub dns: Vec<IpAddr>,
    /// How long a connect waits for one node before it tries the next.
    pub connect_ack_timeout: Duration,
    /// A connection without a handshake for this long ends.
    pub connection_idle_timeout: Duration,
    /// What is offered in place of a connection ends after this time unless it is used.
    pub offer_lifetime: Duration,
    /// The clients of a node that is silent for this long are offered another server.
    pub offer_after_silence: Duration,
}

impl VpnConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            dns: reader.parse_with(
                "VPN_DNS",
                vec![IpAddr::from([1, 1, 1, 1]), IpAddr::from([1, 0, 0, 1])],
                "IP addresses separated by commas",
                |text| {
                    let all: Vec<_> = split(text).map(str::parse).collect::<Result<_, _>>().ok()?;
                    (!all.is_empty()).then_some(all)
                },
                |all| {
                    all.iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                        .join(",")
                },
            ),
            connect_ack_timeout: reader
                .milliseconds("CONNECT_ACK_TIMEOUT_MS", Duration::from_secs(2)),
            connection_idle_timeout: reader
                .duration("CONNECTION_IDLE_TIMEOUT", Duration::from_secs(30 * 60)),
            offer_lifetime: reader.duration("OFFER_LIFETIME", Duration::from_secs(5 * 60)),
            offer_after_silence: reader.duration("OFFER_AFTER_SILENCE", Duration::from_secs(15)),
        }
    }
}
