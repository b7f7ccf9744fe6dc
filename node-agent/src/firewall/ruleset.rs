//! The table as a value.

use ipnet::IpNet;
use nftables::batch::Batch;
use nftables::schema::{self, Chain, NfListObject, Nftables, Table};
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};

use super::syntax::{
    Rule, accept, clamp_segments, connection_state, dns, drop, each_destination, each_source,
    each_target, elsewhere, from_interface, goto, masquerade, not_from_interfaces,
    not_to_interface, ping, tcp_port, to_address, to_interface,
};
use super::{FirewallSetup, Ipv6Mode};
use crate::wireguard::InterfaceName;

/// IPv4 that is not the public internet: IANA's special-purpose registry, multicast, broadcast; and
/// the address, public by its number, at which Azure's hosts serve their guests.
const CLOSED_V4: [&str; 16] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "168.63.129.16/32",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
];

/// IPv6 that is not the public internet: all but global unicast (`2000::/3`), and the parts of
/// that which are special or which carry an IPv4 address.
const CLOSED_V6: [&str; 7] = [
    "::/3",
    "4000::/2",
    "8000::/1",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
];

/// nftables' standard priorities for destination NAT, for filtering and for source NAT.
const PRIORITY_DESTINATION_NAT: i32 = -100;
const PRIORITY_FILTER: i32 = 0;
const PRIORITY_SOURCE_NAT: i32 = 100;

const FROM_CLIENTS: &str = "from_clients";
const TO_CLIENTS: &str = "to_clients";
const TO_HOST: &str = "to_host";

pub(super) fn table_name(interface: &InterfaceName) -> String {
    format!("prime_vpn_{interface}")
}

/// A transaction after which there is no table.
pub(super) fn removal(interface: &InterfaceName) -> Nftables<'static> {
    Transaction::new(interface).finish()
}

/// A transaction after which the table is exactly what `setup` says.
pub(super) fn replacement(interface: &InterfaceName, setup: &FirewallSetup) -> Nftables<'static> {
    let wg = interface.as_str();
    let mut transaction = Transaction::new(interface);
    transaction.add_table();
    transaction.chain(FROM_CLIENTS, from_clients(wg, setup));
    transaction.chain(TO_CLIENTS, to_clients());
    transaction.chain(TO_HOST, to_host(setup));
    transaction.hook(NfHook::Forward, forward(wg));
    transaction.hook(NfHook::Input, input(wg, setup));
    if setup.redirect_dns {
        transaction.hook(NfHook::Prerouting, prerouting(wg, setup));
    }
    transaction.hook(NfHook::Postrouting, postrouting(wg, setup));
    transaction.finish()
}

fn forward(wg: &str) -> Vec<Rule> {
    let clamp = |direction| [vec![direction], clamp_segments().to_vec()].concat();
    vec![
        clamp(from_interface(wg)),
        clamp(to_interface(wg)),
        vec![from_interface(wg), goto(FROM_CLIENTS)],
        vec![to_interface(wg), goto(TO_CLIENTS)],
    ]
}

fn from_clients(wg: &str, setup: &FirewallSetup) -> Vec<Rule> {
    let resolvers: Vec<IpNet> = setup.resolvers.iter().copied().map(IpNet::from).collect();
    let ask = [dns().as_slice(), &[accept()]].concat();
    let mut rules = vec![
        vec![to_interface(wg), drop()],
        // What tracking cannot place is not translated, and would leave with a client's address.
        vec![connection_state(&["invalid"]), drop()],
        vec![tcp_port(25), drop()],
    ];
    rules.extend(each_target(&setup.deny, &drop()));
    rules.extend(each_destination(&subnets(setup), &[drop()]));
    rules.extend(each_destination(&resolvers, &ask));
    rules.extend(each_target(&setup.allow, &accept()));
    rules.extend(each_destination(&closed(), &[drop()]));
    rules
}

fn to_clients() -> Vec<Rule> {
    vec![
        vec![connection_state(&["established", "related"]), accept()],
        vec![drop()],
    ]
}

fn input(wg: &str, setup: &FirewallSetup) -> Vec<Rule> {
    let mut rules = vec![vec![from_interface(wg), goto(TO_HOST)]];
    // The host would answer for its tunnel addresses on every interface.
    let stranger = not_from_interfaces(&[wg, "lo"]);
    for mut rule in each_destination(&own(setup), &[drop()]) {
        rule.insert(0, stranger.clone());
        rules.push(rule);
    }
    rules
}

fn to_host(setup: &FirewallSetup) -> Vec<Rule> {
    let own = own(setup);
    let ask = [dns().as_slice(), &[accept()]].concat();
    let mut rules = vec![vec![
        connection_state(&["established", "related"]),
        accept(),
    ]];
    rules.extend(each_destination(&own, &ask));
    for address in own {
        let protocol = match address {
            IpNet::V4(_) => "icmp",
            IpNet::V6(_) => "icmpv6",
        };
        rules.extend(each_destination(&[address], &[ping(protocol), accept()]));
    }
    rules.push(vec![drop()]);
    rules
}

/// Before routing, so that the question is for the host and meets the rules for it.
fn prerouting(wg: &str, setup: &FirewallSetup) -> Vec<Rule> {
    let redirected = setup.addresses.iter().map(|own| {
        let address = own.addr();
        let ask = [from_interface(wg), elsewhere(address)];
        [ask.as_slice(), &dns(), &[to_address(address)]].concat()
    });
    redirected.collect()
}

fn postrouting(wg: &str, setup: &FirewallSetup) -> Vec<Rule> {
    let mut translated = subnets(setup);
    if setup.ipv6 == Ipv6Mode::Routed {
        translated.retain(|subnet| matches!(subnet, IpNet::V4(_)));
    }
    each_source(&translated, &[not_to_interface(wg), masquerade()])
}

fn closed() -> Vec<IpNet> {
    let texts = CLOSED_V4.iter().chain(&CLOSED_V6);
    texts.filter_map(|text| text.parse().ok()).collect()
}

/// Where clients have their addresses.
fn subnets(setup: &FirewallSetup) -> Vec<IpNet> {
    setup.addresses.iter().map(IpNet::trunc).collect()
}

/// The node's own addresses, as networks of one.
fn own(setup: &FirewallSetup) -> Vec<IpNet> {
    let addresses = setup.addresses.iter();
    addresses.map(|it| IpNet::from(it.addr())).collect()
}

/// Begins with the table gone, whether it was there or not.
struct Transaction {
    table: String,
    batch: Batch<'static>,
}

impl Transaction {
    fn new(interface: &InterfaceName) -> Self {
        let mut transaction = Self {
            table: table_name(interface),
            batch: Batch::new(),
        };
        // Only a table that exists can be deleted, and adding one that exists changes nothing.
        transaction.add_table();
        let table = transaction.table_object();
        transaction.batch.delete(table);
        transaction
    }

    fn table_object(&self) -> NfListObject<'static> {
        NfListObject::Table(Table {
            family: NfFamily::INet,
            name: self.table.clone().into(),
            handle: None,
        })
    }

    fn add_table(&mut self) {
        let table = self.table_object();
        self.batch.add(table);
    }

    fn chain_object(&self, name: &'static str) -> Chain<'static> {
        Chain {
            family: NfFamily::INet,
            table: self.table.clone().into(),
            name: name.into(),
            ..Chain::default()
        }
    }

    /// A chain that others go to.
    fn chain(&mut self, name: &'static str, rules: Vec<Rule>) {
        let chain = self.chain_object(name);
        self.batch.add(NfListObject::Chain(chain));
        self.rules(name, rules);
    }

    /// A chain that the kernel calls at `hook`.
    fn hook(&mut self, hook: NfHook, rules: Vec<Rule>) {
        let (name, kind, priority) = match hook {
            NfHook::Prerouting => ("prerouting", NfChainType::NAT, PRIORITY_DESTINATION_NAT),
            NfHook::Postrouting => ("postrouting", NfChainType::NAT, PRIORITY_SOURCE_NAT),
            NfHook::Input => ("input", NfChainType::Filter, PRIORITY_FILTER),
            _ => ("forward", NfChainType::Filter, PRIORITY_FILTER),
        };
        let chain = Chain {
            _type: Some(kind),
            hook: Some(hook),
            prio: Some(priority),
            policy: Some(NfChainPolicy::Accept),
            ..self.chain_object(name)
        };
        self.batch.add(NfListObject::Chain(chain));
        self.rules(name, rules);
    }

    fn rules(&mut self, chain: &'static str, rules: Vec<Rule>) {
        for rule in rules {
            self.batch.add(NfListObject::Rule(schema::Rule {
                family: NfFamily::INet,
                table: self.table.clone().into(),
                chain: chain.into(),
                expr: rule.into(),
                ..schema::Rule::default()
            }));
        }
    }

    fn finish(self) -> Nftables<'static> {
        self.batch.to_nftables()
    }
}
