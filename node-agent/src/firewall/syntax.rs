//! Short words for the parts of nftables' language that our rules use.

use std::net::IpAddr;

use ipnet::IpNet;
use nftables::expr::{
    BinaryOperation, CT, Expression, Meta, MetaKey, NamedExpression, Payload, PayloadField, Prefix,
    RT, RTKey, Range, SetItem, TcpOption,
};
use nftables::stmt::{
    Accept, Drop, JumpTarget, Mangle, Match, NAT, NATFamily, Operator, Statement,
};

use super::{Destination, Ports};

/// Matches and ends, in the order in which they are evaluated.
pub(super) type Rule = Vec<Statement<'static>>;

pub(super) fn accept() -> Statement<'static> {
    Statement::Accept(Some(Accept {}))
}

pub(super) fn drop() -> Statement<'static> {
    Statement::Drop(Some(Drop {}))
}

pub(super) fn masquerade() -> Statement<'static> {
    Statement::Masquerade(None)
}

/// Continues in `chain`; the base chain's policy holds for what that one lets through.
pub(super) fn goto(chain: &'static str) -> Statement<'static> {
    Statement::Goto(JumpTarget {
        target: chain.into(),
    })
}

fn compare(
    op: Operator,
    left: NamedExpression<'static>,
    right: Expression<'static>,
) -> Statement<'static> {
    Statement::Match(Match {
        left: Expression::Named(left),
        right,
        op,
    })
}

fn meta(key: MetaKey) -> NamedExpression<'static> {
    NamedExpression::Meta(Meta { key })
}

fn field(protocol: &'static str, field: &'static str) -> NamedExpression<'static> {
    NamedExpression::Payload(Payload::PayloadField(PayloadField {
        protocol: protocol.into(),
        field: field.into(),
    }))
}

fn word(text: &str) -> Expression<'static> {
    Expression::String(text.to_owned().into())
}

fn set(items: impl IntoIterator<Item = Expression<'static>>) -> Expression<'static> {
    let items = items.into_iter().map(SetItem::Element).collect();
    Expression::Named(NamedExpression::Set(items))
}

/// The packet came in through this interface.
pub(super) fn from_interface(name: &str) -> Statement<'static> {
    compare(Operator::EQ, meta(MetaKey::Iifname), word(name))
}

/// The packet came in through none of these interfaces.
pub(super) fn not_from_interfaces(names: &[&str]) -> Statement<'static> {
    let names = set(names.iter().map(|name| word(name)));
    compare(Operator::NEQ, meta(MetaKey::Iifname), names)
}

/// The packet goes out through this interface.
pub(super) fn to_interface(name: &str) -> Statement<'static> {
    compare(Operator::EQ, meta(MetaKey::Oifname), word(name))
}

/// The packet goes out through another interface than this.
pub(super) fn not_to_interface(name: &str) -> Statement<'static> {
    compare(Operator::NEQ, meta(MetaKey::Oifname), word(name))
}

/// The packet's connection is in one of these states.
pub(super) fn connection_state(states: &[&str]) -> Statement<'static> {
    let key = NamedExpression::CT(CT {
        key: "state".into(),
        family: None,
        dir: None,
    });
    let states = states.iter().map(|state| word(state)).collect();
    compare(Operator::IN, key, Expression::List(states))
}

/// An address field against networks of one family. None where there are none of that family.
fn address(family: Family, side: &'static str, networks: &[IpNet]) -> Option<Statement<'static>> {
    let networks: Vec<_> = IpNet::aggregate(&networks.to_vec())
        .into_iter()
        .filter(|network| family.has(network))
        .map(|network| {
            Expression::Named(NamedExpression::Prefix(Prefix {
                addr: Box::new(word(&network.network().to_string())),
                len: network.prefix_len().into(),
            }))
        })
        .collect();
    if networks.is_empty() {
        return None;
    }
    let field = field(family.header(), side);
    Some(compare(Operator::EQ, field, set(networks)))
}

/// The rule `rule` for each family that `networks` has, where the packet goes to one of them.
pub(super) fn each_destination(networks: &[IpNet], rule: &[Statement<'static>]) -> Vec<Rule> {
    each_family("daddr", networks, rule)
}

/// Ends with `end` where the packet goes to one of `targets`: one rule a family for networks, one for
/// each target with ports.
pub(super) fn each_target(targets: &[Destination], end: &Statement<'static>) -> Vec<Rule> {
    let whole: Vec<_> = targets
        .iter()
        .filter(|target| target.ports.is_none())
        .filter_map(|target| target.network)
        .collect();
    let mut rules = each_destination(&whole, std::slice::from_ref(end));
    for target in targets {
        let Some(ports) = target.ports else { continue };
        let rule = [to_ports(ports), end.clone()];
        match target.network {
            Some(network) => rules.extend(each_destination(&[network], &rule)),
            None => rules.push(rule.into()),
        }
    }
    rules
}

fn to_ports(ports: Ports) -> Statement<'static> {
    let number = |port: u16| Expression::Number(port.into());
    let (first, last) = (number(ports.first), number(ports.last));
    let wanted = if ports.first == ports.last {
        first
    } else {
        let range = [first, last];
        Expression::Range(Box::new(Range { range }))
    };
    let field = field(ports.protocol.word(), "dport");
    compare(Operator::EQ, field, wanted)
}

/// The packet goes to another address of the same family.
pub(super) fn elsewhere(own: IpAddr) -> Statement<'static> {
    let family = Family::of(own);
    compare(
        Operator::NEQ,
        field(family.header(), "daddr"),
        word(&own.to_string()),
    )
}

/// The packet goes to `address` instead.
pub(super) fn to_address(address: IpAddr) -> Statement<'static> {
    Statement::DNAT(Some(NAT {
        addr: Some(word(&address.to_string())),
        family: Some(match Family::of(address) {
            Family::V4 => NATFamily::IP,
            Family::V6 => NATFamily::IP6,
        }),
        port: None,
        flags: None,
    }))
}

/// The rule `rule` for each family that `networks` has, where the packet comes from one of them.
pub(super) fn each_source(networks: &[IpNet], rule: &[Statement<'static>]) -> Vec<Rule> {
    each_family("saddr", networks, rule)
}

fn each_family(side: &'static str, networks: &[IpNet], rule: &[Statement<'static>]) -> Vec<Rule> {
    [Family::V4, Family::V6]
        .into_iter()
        .filter_map(|family| address(family, side, networks))
        .map(|matching| {
            let mut whole = vec![matching];
            whole.extend_from_slice(rule);
            whole
        })
        .collect()
}

#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
}

impl Family {
    const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    const fn header(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }

    const fn has(self, network: &IpNet) -> bool {
        matches!(
            (self, network),
            (Self::V4, IpNet::V4(_)) | (Self::V6, IpNet::V6(_))
        )
    }
}

/// TCP to `port`.
pub(super) fn tcp_port(port: u32) -> Statement<'static> {
    compare(
        Operator::EQ,
        field("tcp", "dport"),
        Expression::Number(port),
    )
}

/// TCP or UDP to port 53.
pub(super) fn dns() -> [Statement<'static>; 2] {
    [
        compare(
            Operator::EQ,
            meta(MetaKey::L4proto),
            set([word("tcp"), word("udp")]),
        ),
        compare(Operator::EQ, field("th", "dport"), Expression::Number(53)),
    ]
}

/// A ping's request, in the family whose ICMP `protocol` names.
pub(super) fn ping(protocol: &'static str) -> Statement<'static> {
    compare(Operator::EQ, field(protocol, "type"), word("echo-request"))
}

/// Lowers the segment size that a TCP handshake announces to what the route can carry.
pub(super) fn clamp_segments() -> [Statement<'static>; 2] {
    let flags = Expression::BinaryOperation(Box::new(BinaryOperation::AND(
        Expression::Named(field("tcp", "flags")),
        Expression::List(vec![word("syn"), word("rst")]),
    )));
    [
        Statement::Match(Match {
            left: flags,
            right: word("syn"),
            op: Operator::EQ,
        }),
        Statement::Mangle(Mangle {
            key: Expression::Named(NamedExpression::TcpOption(TcpOption {
                name: "maxseg".into(),
                field: Some("size".into()),
            })),
            value: Expression::Named(NamedExpression::RT(RT {
                key: RTKey::MTU,
                family: None,
            })),
        }),
    ]
}
