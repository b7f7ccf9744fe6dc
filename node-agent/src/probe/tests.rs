//! Real sockets, each test in a network namespace of its own.

use std::net::Ipv6Addr;

use super::*;
use crate::host::netns::{in_private_netns, run};

fn target(peer: u64, address: &str) -> Target {
    Target {
        peer: PeerId(peer),
        address: address.parse().expect("an address"),
    }
}

fn prober(interface: &str) -> Prober {
    let own = ["127.0.0.1/8", "::1/128"].map(|net| net.parse().expect("a network"));
    Prober::start(interface.parse().expect("a name"), &own)
}

/// Rounds until every one of `targets` has answered, or the deadline passes.
async fn answers(prober: &mut Prober, targets: &[Target], count: usize) -> Vec<RoundTrip> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut answers = Vec::new();
    while answers.len() < count && Instant::now() < deadline {
        answers.extend(prober.round(targets.to_vec(), Instant::now()));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    answers
}

fn permit() {
    std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647\n").expect("root");
}

#[test]
fn clients_of_both_versions_answer_and_nobody_does_not() {
    in_private_netns(async || {
        permit();
        let mut prober = prober("lo");
        // All of 127/8 answers on the loopback interface; 10.8.0.3 is behind no interface.
        let targets = [
            target(1, "127.0.0.9"),
            target(2, "::1"),
            target(3, "10.8.0.3"),
        ];
        let mut answers = answers(&mut prober, &targets, 2).await;
        answers.sort_unstable();
        let peers: Vec<_> = answers.iter().map(|(peer, _)| peer.0).collect();
        assert_eq!(peers, [1, 2]);
        assert!(answers.iter().all(|(_, micros)| *micros < 1_000_000));
    });
}

/// A wire to `10.8.0.2` in a namespace of its own.
fn wire(space: &str) {
    run(&format!(
        "ip link add probe type veth peer name far netns {space}"
    ));
    run("ip addr add 10.8.0.1/24 dev probe");
    run("ip link set probe up");
    run(&format!("ip -n {space} addr add 10.8.0.2/24 dev far"));
    run(&format!("ip -n {space} link set far up"));
}

#[test]
fn an_interface_made_anew_is_found_again() {
    in_private_netns(async || {
        permit();
        let space = format!("probe{}", std::process::id());
        run(&format!("ip netns add {space}"));
        wire(&space);
        let own = ["10.8.0.1/24".parse().expect("a network")];
        let mut prober = Prober::start("probe".parse().expect("a name"), &own);
        let targets = [target(1, "10.8.0.2")];
        assert!(!answers(&mut prober, &targets, 1).await.is_empty());
        run("ip link del probe");
        wire(&space);
        // One may have been on its way before.
        assert!(answers(&mut prober, &targets, 3).await.len() >= 3);
        run(&format!("ip netns del {space}"));
    });
}

#[test]
fn many_clients_answer_in_one_round() {
    in_private_netns(async || {
        permit();
        let mut prober = prober("lo");
        let targets: Vec<_> = (0..1000_u64)
            .map(|n| target(n, &format!("127.1.{}.{}", n / 200, 1 + n % 200)))
            .collect();
        let mut answers = answers(&mut prober, &targets, targets.len()).await;
        answers.sort_unstable();
        answers.dedup_by_key(|(peer, _)| *peer);
        assert_eq!(answers.len(), targets.len());
    });
}

#[test]
fn a_host_that_does_not_permit_it_goes_without() {
    in_private_netns(async || {
        let refused = permitted().expect_err("a new namespace permits nobody");
        assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
        let mut prober = prober("lo");
        let targets = vec![target(1, "127.0.0.9")];
        assert_eq!(prober.round(targets.clone(), Instant::now()), []);
        permit();
        permitted().expect("permitted now");
        assert!(!answers(&mut prober, &targets, 1).await.is_empty());
    });
}

#[tokio::test]
async fn ipv6_is_asked_where_there_is_no_ipv4() {
    let v6 = Some(Ipv6Addr::LOCALHOST);
    let both = Addresses {
        v4: [10, 8, 0, 2].into(),
        v6,
    };
    let only = Addresses {
        v4: [0, 0, 0, 0].into(),
        v6,
    };
    assert!(Target::new(PeerId(1), both).address.is_ipv4());
    assert!(Target::new(PeerId(1), only).address.is_ipv6());
}
