//! A host becomes a node: it trades a single-use token for an identity that it renews from then on.

use std::net::IpAddr;

use chrono::Utc;
use ipnet::{Ipv4Net, Ipv6Net};
use shared::protocol::Hello;
use shared::protocol::enrolment::{EnrolRequest, EnrolResponse};

use super::Fleet;
use super::bus::{Channel, Notice};
use super::identity::{Enrolment, IdentityError, NodeIdentity};
use super::session::Ending;
use super::store::{self, Redemption};
use crate::error::{ApiError, Code};

/// Fits the schema's column.
const MAX_VERSION_LENGTH: usize = 50;
const MAX_BACKEND_LENGTH: usize = 20;
const MAX_ENDPOINT_LENGTH: usize = 262;

impl Fleet {
    /// What the token is good for. It may still have been used.
    pub(super) fn admit(&self, token: &str) -> Result<Enrolment, ApiError> {
        let enrolment = self.identity.read_enrolment(token, Utc::now());
        enrolment.map_err(refused)
    }

    /// Spends an enrolment token.
    pub(super) async fn enrol(
        &self,
        enrolment: &Enrolment,
        request: &EnrolRequest,
    ) -> Result<EnrolResponse, ApiError> {
        check_enrolment(request)?;
        let other_host = || ApiError::invalid("hostname", "Is not the host that the token is for");
        if let Some(hostname) = &enrolment.hostname
            && !hostname.eq_ignore_ascii_case(&request.hostname)
        {
            return Err(other_host());
        }
        let address = resolve(&request.endpoint)
            .await
            .ok_or_else(|| ApiError::invalid("endpoint", "The host has no address"))?;
        let enrolled = match store::redeem(&self.db, enrolment.id, request, address).await? {
            Redemption::Enrolled(enrolled) => enrolled,
            Redemption::OtherHost => return Err(other_host()),
            Redemption::Unknown => return Err(Code::EnrolmentTokenInvalid.into()),
            Redemption::Used => return Err(Code::EnrolmentTokenUsed.into()),
            Redemption::Expired => return Err(Code::EnrolmentTokenExpired.into()),
        };
        let (server, fence, epoch) = (enrolled.server, enrolled.fence, enrolled.epoch);
        self.sessions.end_before(server, fence, Ending::Replaced);
        self.bus
            .publish(Channel::Everyone, Notice::TakenOver { server, fence });
        self.announce_change();
        self.refresh().await?;
        tracing::info!(%server, hostname = request.hostname, epoch, "fleet.enrolled");
        let token = self
            .identity
            .node_token(NodeIdentity { server, epoch }, Utc::now())?;
        Ok(EnrolResponse {
            server_id: server,
            token,
        })
    }
}

/// A token that does not enrol, in words that help the operator.
fn refused(error: IdentityError) -> ApiError {
    let code = match error {
        IdentityError::Expired => Code::EnrolmentTokenExpired,
        IdentityError::Undecided | IdentityError::Signing(_) => return error.into(),
        _ => Code::EnrolmentTokenInvalid,
    };
    ApiError::new(code).with_source(error)
}

/// One thing that is wrong with what a node says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flaw {
    pub(super) field: &'static str,
    pub(super) message: &'static str,
}

/// What a node says about its interface, at enrolment and in every Hello.
#[derive(Debug, Clone, Copy)]
struct Interface<'a> {
    agent_version: &'a str,
    endpoint: &'a str,
    subnet: Ipv4Net,
    subnet_v6: Option<Ipv6Net>,
    capacity: u32,
}

fn check_enrolment(request: &EnrolRequest) -> Result<(), ApiError> {
    let interface = Interface {
        agent_version: &request.agent_version,
        endpoint: &request.endpoint,
        subnet: request.subnet,
        subnet_v6: request.subnet_v6,
        capacity: request.capacity,
    };
    let hostname = (!is_hostname(&request.hostname)).then_some(Flaw {
        field: "hostname",
        message: "Must be a host name such as fra1.example.net",
    });
    let flaws: Vec<Flaw> = hostname.into_iter().chain(flaws(interface)).collect();
    if flaws.is_empty() {
        return Ok(());
    }
    let error = ApiError::new(Code::InvalidInput);
    Err(flaws.iter().fold(error, |error, flaw| {
        error.with_detail(flaw.field, flaw.message)
    }))
}

/// The first thing that is wrong with a Hello.
pub(super) fn check_hello(hello: &Hello) -> Option<Flaw> {
    let backend = (!is_text(&hello.backend, MAX_BACKEND_LENGTH)).then_some(Flaw {
        field: "backend",
        message: "is too long or no text",
    });
    backend.or_else(|| {
        let interface = Interface {
            agent_version: &hello.agent_version,
            endpoint: &hello.endpoint,
            subnet: hello.subnet,
            subnet_v6: hello.subnet_v6,
            capacity: hello.capacity,
        };
        flaws(interface).next()
    })
}

fn flaws(interface: Interface<'_>) -> impl Iterator<Item = Flaw> {
    let pool = 2_u64.saturating_pow(32 - u32::from(interface.subnet.prefix_len()));
    let checks = [
        (
            is_text(interface.agent_version, MAX_VERSION_LENGTH),
            "agent_version",
            "Is too long or no text",
        ),
        (
            is_endpoint(interface.endpoint),
            "endpoint",
            "Must be host:port, an IPv6 address in brackets",
        ),
        (
            is_client_subnet(interface.subnet),
            "subnet",
            "Must be a private IPv4 network between /8 and /30",
        ),
        (
            interface.subnet_v6.is_none_or(is_client_subnet_v6),
            "subnet_v6",
            "Must be a unique local IPv6 network (fc00::/7) between /8 and /126",
        ),
        (
            interface.capacity > 0 && u64::from(interface.capacity) <= pool,
            "capacity",
            "Must be at least 1 and fit into the subnet",
        ),
    ];
    checks
        .into_iter()
        .filter(|(holds, ..)| !holds)
        .map(|(_, field, message)| Flaw { field, message })
}

/// What a column takes.
fn is_text(text: &str, max_length: usize) -> bool {
    text.len() <= max_length && !text.contains('\0')
}

/// RFC 1123: labels of letters, digits and inner hyphens.
pub(super) fn is_hostname(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

fn is_endpoint(endpoint: &str) -> bool {
    endpoint.len() <= MAX_ENDPOINT_LENGTH
        && endpoint.rsplit_once(':').is_some_and(|(host, port)| {
            let host_is_good = match host.strip_prefix('[') {
                Some(rest) => rest
                    .strip_suffix(']')
                    .is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok()),
                None => is_hostname(host),
            };
            host_is_good && port.parse::<u16>().is_ok_and(|port| port > 0)
        })
}

fn is_client_subnet(subnet: Ipv4Net) -> bool {
    /// RFC 1918, and RFC 6598 for providers' shared space.
    const PRIVATE: [&str; 4] = [
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
    ];
    (8..=30).contains(&subnet.prefix_len())
        && PRIVATE
            .iter()
            .filter_map(|range| range.parse::<Ipv4Net>().ok())
            .any(|range| range.contains(&subnet))
}

fn is_client_subnet_v6(subnet: Ipv6Net) -> bool {
    (8..=126).contains(&subnet.prefix_len()) && subnet.network().is_unique_local()
}

/// The address behind `host:port`. No query when the host is an address.
pub(super) async fn resolve(endpoint: &str) -> Option<IpAddr> {
    let mut addresses = tokio::net::lookup_host(endpoint).await.ok()?;
    addresses.next().map(|address| address.ip())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use shared::wireguard::PublicKey;

    use super::*;

    fn request() -> EnrolRequest {
        EnrolRequest {
            hostname: "fra1.example.net".to_owned(),
            agent_version: "0.1.0".to_owned(),
            public_key: PublicKey::from_bytes([7; 32]),
            endpoint: "192.0.2.1:51820".to_owned(),
            subnet: "10.8.0.0/16".parse().expect("a subnet"),
            subnet_v6: Some("fd00:8::/64".parse().expect("a subnet")),
            capacity: 65_533,
        }
    }

    #[test]
    fn takes_a_sane_request() {
        assert!(check_enrolment(&request()).is_ok());
    }

    type Spoil = fn(&mut EnrolRequest);

    const FLAWED: &[(&str, Spoil)] = &[
        ("hostname", |it| it.hostname = String::new()),
        ("hostname", |it| it.hostname = "under_score".to_owned()),
        ("hostname", |it| it.hostname = "-a.example".to_owned()),
        ("hostname", |it| it.hostname = "a..b".to_owned()),
        ("hostname", |it| it.hostname = "a".repeat(64)),
        ("agent_version", |it| it.agent_version = "1".repeat(51)),
        ("endpoint", |it| it.endpoint = "192.0.2.1".to_owned()),
        ("endpoint", |it| it.endpoint = "192.0.2.1:0".to_owned()),
        ("endpoint", |it| it.endpoint = "192.0.2.1:65536".to_owned()),
        ("endpoint", |it| {
            it.endpoint = "2001:db8::1:51820".to_owned()
        }),
        ("endpoint", |it| it.endpoint = "[nonsense]:51820".to_owned()),
        ("subnet", |it| {
            it.subnet = "8.8.0.0/16".parse().expect("a subnet")
        }),
        ("subnet", |it| {
            it.subnet = "10.8.0.0/31".parse().expect("a subnet");
            it.capacity = 1;
        }),
        ("subnet_v6", |it| {
            it.subnet_v6 = "2001:db8::/64".parse().ok()
        }),
        ("subnet_v6", |it| it.subnet_v6 = "fd00::/127".parse().ok()),
        ("capacity", |it| it.capacity = 0),
        ("capacity", |it| it.capacity = 65_537),
    ];

    #[test]
    fn names_the_field_that_is_wrong() {
        for (field, spoil) in FLAWED {
            let mut request = request();
            spoil(&mut request);
            let error = check_enrolment(&request).expect_err(field);
            let details = error.envelope("test").error.details;
            let fields: Vec<_> = details.iter().map(|detail| detail.field.as_str()).collect();
            assert_eq!(fields, [*field], "{request:?}");
        }
    }

    #[rstest]
    #[case("fra1.example.net:51820")]
    #[case("[2001:db8::1]:51820")]
    #[case("localhost:1")]
    fn takes_endpoints(#[case] endpoint: &str) {
        assert!(is_endpoint(endpoint));
    }
}
