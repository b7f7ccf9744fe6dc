//! Who a request comes from: an address that its sender cannot choose, and the subject that limits and
//! bans are kept for.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use actix_web::http::header::{FORWARDED, HeaderMap, HeaderName};
use ipnet::{IpNet, Ipv6Net};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// What one customer of a provider is given at least: whoever has one IPv6 address has all of these.
const SITE: u8 = 64;

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) address: IpAddr,
    /// The peer says that it forwards for somebody, and nobody told us to believe it: whatever holds
    /// for the peer's own address does not hold for those behind it.
    pub(crate) speaks_for_others: bool,
}

impl Client {
    /// The peer, or, where the peer is a proxy of ours, the nearest hop that is none.
    pub(crate) fn of(peer: IpAddr, headers: &HeaderMap, proxies: &[IpNet]) -> Self {
        let peer = peer.to_canonical();
        let is_ours = |address: &IpAddr| proxies.iter().any(|net| net.contains(address));
        if !is_ours(&peer) {
            return Self {
                address: peer,
                speaks_for_others: headers.contains_key(FORWARDED_FOR)
                    || headers.contains_key(FORWARDED),
            };
        }
        let mut nearest = peer;
        for hop in hops(headers) {
            // A proxy of ours would not write what is no address: the rest is its sender's.
            let Some(hop) = hop else { break };
            nearest = hop;
            if !is_ours(&hop) {
                break;
            }
        }
        Self {
            address: nearest,
            speaks_for_others: false,
        }
    }
}

/// The forwarded hops, the nearest first. Each proxy appends, so that what a client sent itself is last.
fn hops(headers: &HeaderMap) -> impl Iterator<Item = Option<IpAddr>> {
    let mut lines: Vec<_> = headers.get_all(FORWARDED_FOR).collect();
    lines.reverse();
    lines.into_iter().flat_map(|line| {
        let text = line.to_str().unwrap_or_default();
        text.rsplit(',').map(|hop| address(hop.trim()))
    })
}

/// An address, perhaps with a port or in brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let address = bare.unwrap_or(text).parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|it| it.ip());
    address.or_else(with_port).map(|it| it.to_canonical())
}

/// What limits and bans are kept for: an IPv4 address, or the /64 of an IPv6 address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Subject(IpNet);

impl Subject {
    pub(crate) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(IpNet::from(IpAddr::V4(address))),
            IpAddr::V6(address) => {
                let site = Ipv6Net::new_assert(address, SITE).trunc();
                Self(IpNet::V6(site))
            }
        }
    }

    pub(crate) const fn network(self) -> IpNet {
        self.0
    }
}

/// The address, or the network with its prefix.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpNet::V4(network) => network.addr().fmt(f),
            IpNet::V6(network) => network.fmt(f),
        }
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Addresses are in no log.
        f.write_str("Subject(_)")
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;
    use rstest::rstest;

    use super::*;

    const STRANGER: &str = "203.0.113.9";
    const PROXY: &str = "10.0.0.1";

    fn client(peer: &str, forwarded: &[&'static str]) -> Client {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(FORWARDED_FOR, HeaderValue::from_static(line));
        }
        let proxies = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        Client::of(peer.parse().unwrap(), &headers, &proxies)
    }

    #[rstest]
    #[case::no_proxy(STRANGER, &[], STRANGER)]
    #[case::forged(STRANGER, &["198.51.100.1"], STRANGER)]
    #[case::mapped("::ffff:203.0.113.9", &[], STRANGER)]
    #[case::behind_a_proxy(PROXY, &["203.0.113.9"], STRANGER)]
    #[case::forged_before(PROXY, &["198.51.100.1, 203.0.113.9"], STRANGER)]
    #[case::forged_line(PROXY, &["198.51.100.1", "203.0.113.9"], STRANGER)]
    #[case::two_proxies(PROXY, &["203.0.113.9, 10.9.9.9"], STRANGER)]
    #[case::forged_proxy(PROXY, &["10.7.7.7, 203.0.113.9, 10.9.9.9"], STRANGER)]
    #[case::port(PROXY, &["203.0.113.9:1234"], STRANGER)]
    #[case::mapped_hop(PROXY, &["::ffff:203.0.113.9"], STRANGER)]
    #[case::brackets(PROXY, &["[2001:db8::1]"], "2001:db8::1")]
    #[case::brackets_port(PROXY, &["[2001:db8::1]:443"], "2001:db8::1")]
    #[case::mapped_proxy("::ffff:10.0.0.1", &["203.0.113.9"], STRANGER)]
    #[case::nonsense(PROXY, &["203.0.113.9, unknown"], PROXY)]
    #[case::nonsense_between(PROXY, &["203.0.113.9, _x, 10.9.9.9"], "10.9.9.9")]
    #[case::nobody(PROXY, &[], PROXY)]
    #[case::empty(PROXY, &[""], PROXY)]
    fn the_address_is_the_nearest_hop_that_is_not_ours(
        #[case] peer: &str,
        #[case] forwarded: &[&'static str],
        #[case] expected: &str,
    ) {
        assert_eq!(client(peer, forwarded).address.to_string(), expected);
    }

    #[test]
    fn a_peer_that_forwards_unasked_speaks_for_others() {
        assert!(client(STRANGER, &["198.51.100.1"]).speaks_for_others);
        assert!(!client(STRANGER, &[]).speaks_for_others);
        assert!(!client(PROXY, &["198.51.100.1"]).speaks_for_others);
    }

    #[rstest]
    #[case("203.0.113.9", "203.0.113.9", true)]
    #[case("203.0.113.9", "203.0.113.10", false)]
    #[case("203.0.113.9", "::ffff:203.0.113.9", true)]
    #[case("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", true)]
    #[case("2001:db8::1", "2001:db8:0:1::1", false)]
    fn a_subject_is_an_address_or_a_site(
        #[case] one: IpAddr,
        #[case] other: IpAddr,
        #[case] same: bool,
    ) {
        assert_eq!(Subject::of(one) == Subject::of(other), same);
    }
}
