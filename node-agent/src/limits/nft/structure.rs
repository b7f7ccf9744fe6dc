//! The part of the table that has no state: maps, chains and rules.
//!
//! The chains come after the isolation table's: what that drops was never the client's to pay for, and
//! who reaches a client from outside cannot use its quota up. Traffic with the node itself, as with its
//! resolver, counts like any other.

use std::collections::BTreeMap;

use crate::limits::Kind;
use crate::wireguard::InterfaceName;

/// Behind the isolation table's chains, which have priority 0.
const PRIORITY: i32 = 10;

/// An address family, as the maps and rules name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    const ALL: [Self; 2] = [Self::V4, Self::V6];
}

pub(super) fn table_name(interface: &InterfaceName) -> String {
    format!("prime_vpn_{interface}_limits")
}

pub(super) fn map_name(kind: Kind, family: Family) -> String {
    let name = match kind {
        Kind::Download => "download",
        Kind::Upload => "upload",
        Kind::Quota => "quota",
    };
    match family {
        Family::V4 => format!("{name}4"),
        Family::V6 => format!("{name}6"),
    }
}

/// Every map of the table.
pub(super) fn maps() -> impl Iterator<Item = (Kind, Family)> {
    Kind::ALL
        .into_iter()
        .flat_map(|kind| Family::ALL.map(|family| (kind, family)))
}

/// The type of objects that a kind of limit is made of, in nftables' language.
fn object(kind: Kind) -> &'static str {
    match kind {
        Kind::Download | Kind::Upload => "limit",
        Kind::Quota => "quota",
    }
}

/// The rules of every chain. A rate comes before the quota, so that what it drops is not counted.
fn rules(wg: &str) -> [(&'static str, Vec<String>); 5] {
    let each = |kinds: [Kind; 2], side: &str| -> Vec<String> {
        let mut rules = Vec::new();
        for kind in kinds {
            for (family, header) in [(Family::V4, "ip"), (Family::V6, "ip6")] {
                let (object, map) = (object(kind), map_name(kind, family));
                rules.push(format!("{object} name {header} {side} map @{map} drop"));
            }
        }
        rules
    };
    let from = format!("iifname \"{wg}\" jump from_client");
    let to = format!("oifname \"{wg}\" jump to_client");
    [
        ("from_client", each([Kind::Upload, Kind::Quota], "saddr")),
        ("to_client", each([Kind::Download, Kind::Quota], "daddr")),
        ("forward", vec![from.clone(), to.clone()]),
        ("input", vec![from]),
        ("output", vec![to]),
    ]
}

/// One transaction after which every map, chain and rule is there and no rule is there that is not
/// ours. Objects and elements stay.
pub(super) fn script(interface: &InterfaceName) -> String {
    let table = format!("inet {}", table_name(interface));
    let mut lines = vec![format!("add table {table}")];
    for (kind, family) in maps() {
        let key = match family {
            Family::V4 => "ipv4_addr",
            Family::V6 => "ipv6_addr",
        };
        let (map, object) = (map_name(kind, family), object(kind));
        lines.push(format!(
            "add map {table} {map} {{ type {key} : {object}; }}"
        ));
    }
    let rules = rules(interface.as_str());
    for (chain, _) in &rules {
        let hook = match *chain {
            "forward" | "input" | "output" => {
                format!("{{ type filter hook {chain} priority {PRIORITY}; policy accept; }}")
            }
            _ => String::new(),
        };
        lines.push(format!("add chain {table} {chain} {hook}"));
        lines.push(format!("flush chain {table} {chain}"));
    }
    for (chain, rules) in rules {
        for rule in rules {
            lines.push(format!("add rule {table} {chain} {rule}"));
        }
    }
    lines.join("\n")
}

/// A transaction after which there is no table, whether there was one or not.
pub(super) fn removal(interface: &InterfaceName) -> String {
    let table = format!("inet {}", table_name(interface));
    format!("add table {table}\ndelete table {table}")
}

/// Whether the chains have as many rules as they are made with.
pub(super) fn has_every_rule(found: &BTreeMap<String, usize>) -> bool {
    let made = rules("");
    found.len() == made.len()
        && made
            .iter()
            .all(|(chain, rules)| found.get(*chain) == Some(&rules.len()))
}
