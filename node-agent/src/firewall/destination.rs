//! What an operator opens or closes to clients: networks, ports, or ports of a network.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// Where packets of clients go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    /// None for every address.
    pub network: Option<IpNet>,
    /// None for every packet.
    pub ports: Option<Ports>,
}

/// Ports of one protocol, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    pub protocol: Transport,
    pub first: u16,
    pub last: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Udp,
}

/// It is neither of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "it takes networks and ports such as 198.51.100.0/24, tcp/25, udp/6881-6889 or `203.0.113.7 tcp/443`"
)]
pub struct MalformedDestination;

impl Transport {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.network, self.ports) {
            (Some(network), Some(ports)) => write!(f, "{network} {ports}"),
            (Some(network), None) => write!(f, "{network}"),
            (None, Some(ports)) => write!(f, "{ports}"),
            (None, None) => f.write_str("everything"),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.protocol.word(), self.first)?;
        if self.last > self.first {
            write!(f, "-{}", self.last)?;
        }
        Ok(())
    }
}

impl FromStr for Destination {
    type Err = MalformedDestination;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let words: Vec<_> = text.split_ascii_whitespace().collect();
        match words.as_slice() {
            [one] => match network(one) {
                Some(network) => Ok(network.into()),
                None => Ok(Self {
                    network: None,
                    ports: Some(one.parse()?),
                }),
            },
            [one, other] => Ok(Self {
                network: Some(network(one).ok_or(MalformedDestination)?),
                ports: Some(other.parse()?),
            }),
            _ => Err(MalformedDestination),
        }
    }
}

/// An address is a network of one.
fn network(text: &str) -> Option<IpNet> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(address)
}

impl From<IpNet> for Destination {
    fn from(network: IpNet) -> Self {
        Self {
            network: Some(network),
            ports: None,
        }
    }
}

impl FromStr for Ports {
    type Err = MalformedDestination;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (protocol, ports) = text.split_once('/').ok_or(MalformedDestination)?;
        let protocol = match protocol {
            "tcp" => Transport::Tcp,
            "udp" => Transport::Udp,
            _ => return Err(MalformedDestination),
        };
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let port = |text: &str| text.parse().map_err(|_| MalformedDestination);
        let (first, last) = (port(first)?, port(last)?);
        if first == 0 || last < first {
            return Err(MalformedDestination);
        }
        Ok(Self {
            protocol,
            first,
            last,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case("198.51.100.0/24", "198.51.100.0/24")]
    #[case("203.0.113.7", "203.0.113.7/32")]
    #[case("2001:db8::1", "2001:db8::1/128")]
    #[case("tcp/25", "tcp/25")]
    #[case("udp/6881-6889", "udp/6881-6889")]
    #[case(" 203.0.113.7   tcp/443 ", "203.0.113.7/32 tcp/443")]
    #[case("2001:db8::/32 udp/53-53", "2001:db8::/32 udp/53")]
    fn destinations_are_read(#[case] text: &str, #[case] read: &str) {
        let destination: Destination = text.parse().expect("valid");
        assert_eq!(destination.to_string(), read);
    }

    #[rstest]
    #[case("")]
    #[case("x")]
    #[case("198.51.100.0/33")]
    #[case("tcp")]
    #[case("tcp/")]
    #[case("tcp/0")]
    #[case("tcp/65536")]
    #[case("tcp/9-1")]
    #[case("icmp/1")]
    #[case("tcp/25 203.0.113.7")]
    #[case("203.0.113.7 203.0.113.8")]
    #[case("203.0.113.7 tcp/1 udp/1")]
    fn what_is_none_is_refused(#[case] text: &str) {
        assert_eq!(text.parse::<Destination>(), Err(MalformedDestination));
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(
            network in proptest::option::of((any::<IpAddr>(), 0_u8..=32)),
            ports in proptest::option::of((any::<bool>(), 1_u16.., any::<u16>())),
        ) {
            prop_assume!(network.is_some() || ports.is_some());
            let destination = Destination {
                network: network.map(|(address, length)| IpNet::new(address, length).expect("fits")),
                ports: ports.map(|(tcp, first, more)| Ports {
                    protocol: if tcp { Transport::Tcp } else { Transport::Udp },
                    first,
                    last: first.saturating_add(more),
                }),
            };
            prop_assert_eq!(destination.to_string().parse(), Ok(destination));
        }
    }
}
