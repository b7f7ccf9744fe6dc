//! The table against real nftables, each test in a network namespace of its own.

use rstest::rstest;

use super::*;
use crate::host::netns::{in_private_netns, run};

fn interface() -> InterfaceName {
    "wg-test".parse().unwrap()
}

fn dual_stack() -> FirewallSetup {
    FirewallSetup {
        addresses: vec![
            "10.8.0.1/24".parse().unwrap(),
            "fd00:8::1/64".parse().unwrap(),
        ],
        resolvers: vec!["192.168.7.53".parse().unwrap()],
        allow: destinations(&["203.0.113.0/25", "203.0.113.128/25", "2001:db8:1::/48"]),
        ..FirewallSetup::default()
    }
}

/// Everything that an operator can say.
fn particular() -> FirewallSetup {
    FirewallSetup {
        allow: destinations(&["172.16.5.0/24", "172.16.6.7 tcp/443"]),
        deny: destinations(&[
            "9.9.9.9",
            "tcp/6667",
            "udp/6881-6889",
            "8.8.8.0/24 tcp/443",
            "2620:fe::/48",
            "2001:4860::/32 udp/443",
        ]),
        ipv6: Ipv6Mode::Routed,
        redirect_dns: true,
        ..dual_stack()
    }
}

fn destinations(texts: &[&str]) -> Vec<Destination> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn v4_only() -> FirewallSetup {
    FirewallSetup {
        addresses: vec!["10.8.0.1/16".parse().unwrap()],
        ..FirewallSetup::default()
    }
}

/// The table as `nft` prints it.
fn listing() -> String {
    run("nft list table inet prime_vpn_wg-test")
}

#[rstest]
#[case::dual_stack(dual_stack(), include_str!("tests/dual_stack.nft"))]
#[case::particular(particular(), include_str!("tests/particular.nft"))]
#[case::v4_only(v4_only(), include_str!("tests/v4_only.nft"))]
fn the_kernel_holds_exactly_these_rules(
    #[case] setup: FirewallSetup,
    #[case] expected: &'static str,
) {
    in_private_netns(async move || {
        let firewall = Firewall::new(interface());
        firewall.apply(&setup).await.unwrap();
        let once = listing();
        firewall.apply(&setup).await.unwrap();
        assert_eq!(listing(), once);
        assert_eq!(once, expected);
    });
}

#[test]
fn a_change_replaces_all_rules() {
    in_private_netns(async || {
        let firewall = Firewall::new(interface());
        firewall.apply(&dual_stack()).await.unwrap();
        firewall.apply(&v4_only()).await.unwrap();
        assert_eq!(listing(), include_str!("tests/v4_only.nft"));
    });
}

#[test]
fn removal_leaves_nothing_of_ours_and_everything_else() {
    in_private_netns(async || {
        run("nft add table inet prime_vpn_wg-test2");
        let before = run("nft list ruleset");
        let firewall = Firewall::new(interface());
        firewall.remove().await.unwrap();
        assert!(!firewall.present().await.unwrap());
        firewall.apply(&dual_stack()).await.unwrap();
        assert!(firewall.present().await.unwrap());
        firewall.remove().await.unwrap();
        firewall.remove().await.unwrap();
        assert!(!firewall.present().await.unwrap());
        assert_eq!(run("nft list ruleset"), before);
    });
}

#[test]
fn a_refused_change_leaves_the_table_as_it_was() {
    in_private_netns(async || {
        let firewall = Firewall::new(interface());
        firewall.apply(&v4_only()).await.unwrap();
        let mut broken = ruleset::replacement(&interface(), &dual_stack());
        let unknown = nftables::schema::Chain {
            family: nftables::types::NfFamily::INet,
            table: "no_such_table".into(),
            name: "chain".into(),
            ..Default::default()
        };
        let command = nftables::schema::NfCmd::Add(NfListObject::Chain(unknown));
        broken.objects.to_mut().push(NfObject::CmdObject(command));
        let refusal = run_transaction(&broken).await.unwrap_err().to_string();
        assert!(refusal.contains("No such file or directory"), "{refusal}");
        assert_eq!(listing(), include_str!("tests/v4_only.nft"));
    });
}
