//! What the public listener bears: connections, and the patience with whoever is slow.

use std::time::Duration;

use ipnet::IpNet;

use super::reader::Reader;

#[derive(Debug, Clone)]
pub struct ListenerConfig {
    /// Connections that are open at once, of all clients.
    pub max_connections: usize,
    /// Of one IPv4 address or one IPv6 /64.
    pub connections_per_address: usize,
    /// How long a client may take for a handshake or the head of a request.
    pub head_timeout: Duration,
    /// How long for the body of one.
    pub body_timeout: Duration,
    /// How long an answer may stand still because its receiver takes nothing.
    pub send_timeout: Duration,
    /// Whether each connection begins with a PROXY header of a trusted proxy.
    pub proxy_protocol: bool,
}

impl ListenerConfig {
    pub(super) fn read(reader: &mut Reader<'_>, proxies: &[IpNet]) -> Self {
        let proxy_protocol = reader.flag("PROXY_PROTOCOL", false);
        if proxy_protocol && proxies.is_empty() {
            reader.problem(
                "TRUSTED_PROXIES",
                "is needed with PROXY_PROTOCOL: the proxies that write its header",
            );
        }
        Self {
            max_connections: connections(reader, "MAX_CONNECTIONS", 25_000),
            connections_per_address: connections(reader, "CONNECTIONS_PER_ADDRESS", 200),
            head_timeout: reader.duration("REQUEST_HEAD_TIMEOUT", Duration::from_secs(10)),
            body_timeout: reader.duration("REQUEST_BODY_TIMEOUT", Duration::from_secs(10)),
            send_timeout: reader.duration("SEND_TIMEOUT", Duration::from_secs(30)),
            proxy_protocol,
        }
    }
}

fn connections(reader: &mut Reader<'_>, name: &'static str, default: u32) -> usize {
    usize::try_from(reader.count(name, default)).unwrap_or(usize::MAX)
}
