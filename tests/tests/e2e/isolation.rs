//! Invariant 9 from inside a client's namespace, by real sockets.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tests::lab::{Answer, Neighbour, Prober, Services, Stage, World, run, try_run};
use tests::wait_until;

const SOON: Duration = Duration::from_secs(15);
const WEB: u16 = 443;
const DNS: u16 = 53;
const SSH: u16 = 22;
const MAIL: u16 = 25;

/// Public addresses of the internet's namespace.
const PUBLIC: [&str; 2] = ["9.9.9.9", "2620:fe::fe"];
/// What the internet's namespace has as well, and nobody reaches through a tunnel.
const CLOSED: [&str; 15] = [
    "10.1.2.3",
    "172.16.9.9",
    "192.168.50.1",
    "100.127.9.9",
    "169.254.7.7",
    "169.254.169.254",
    "168.63.129.16",
    "192.0.0.192",
    "198.18.0.1",
    "fd00:ec2::254",
    "fd99::1",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "2001:db8:99::1",
    "3fff::1",
];
/// The node's public addresses; clients have their own way to the third.
const NODE: [&str; 2] = ["198.51.100.1", "2001:db8:1::1"];
/// The node's addresses inside the tunnel.
const RESOLVER: [&str; 2] = ["10.77.0.1", "fd77::1"];

fn ip(line: &str) {
    let words: Vec<_> = line.split_ascii_whitespace().collect();
    run("ip", &words);
}

fn at(address: &str, port: u16) -> SocketAddr {
    let address: IpAddr = address.parse().expect("an address");
    SocketAddr::new(address, port)
}

fn all(addresses: &[&str], port: u16) -> Vec<SocketAddr> {
    addresses.iter().map(|address| at(address, port)).collect()
}

/// Gives the internet its addresses, and the node the way to them.
fn furnish(world: &World) {
    let (node, internet) = (world.node(), world.internet());
    for address in PUBLIC.iter().chain(&CLOSED) {
        ip(&format!("-n {internet} address add {address} dev lo"));
    }
    ip(&format!(
        "-n {node} -6 route add default via {}",
        World::INTERNET_V6
    ));
}

/// Asks each on TCP and on UDP; those whose answers are not `expected` by both.
async fn differing(
    prober: &Prober,
    targets: &[SocketAddr],
    expected: Answer,
) -> BTreeMap<SocketAddr, (Answer, Answer)> {
    let answers = join_all(targets.iter().map(async |target| {
        let answers = tokio::join!(prober.tcp(*target), prober.udp(*target));
        (*target, answers)
    }));
    let answers = answers.await.into_iter();
    answers
        .filter(|(_, answers)| *answers != (expected, expected))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_forbidden_target_is_silent_over_ipv4_and_ipv6() {
    let mut stage = Stage::set().await;
    let world = &stage.world;
    let (node, internet) = (world.node(), world.internet());
    furnish(world);
    let client = stage.client().await;
    stage.tunnel(&client).await;
    let neighbour = Neighbour::new(world);
    let other = neighbour.client(stage.folder.path(), stage.backend).await;
    let tunnel = stage.user.connected(&json!({})).await;
    other.configure(&tunnel.wg_config);
    let other_addresses = [
        tunnel.assigned_ip.to_string(),
        tunnel.assigned_ipv6.expect("dual stack").to_string(),
    ];
    let other_addresses = other_addresses.each_ref().map(String::as_str);
    // Both have shaken hands, so that the way to the other is open but for the rules.
    for one in [&client, &other] {
        assert!(one.pings(&World::INTERNET.to_string(), SOON));
    }

    let mut services = Services::default();
    services.listen(&internet, &PUBLIC, &[WEB, DNS, MAIL]);
    services.listen(&internet, &CLOSED, &[WEB, DNS]);
    services.listen(&node, &NODE, &[SSH, DNS]);
    services.listen(&node, &RESOLVER, &[SSH, DNS]);
    services.listen(other.namespace(), &other_addresses, &[WEB, DNS]);

    let open = [all(&PUBLIC, WEB), all(&PUBLIC, DNS), all(&RESOLVER, DNS)].concat();
    let closed = [
        all(&CLOSED, WEB),
        all(&CLOSED, DNS),
        all(&NODE, SSH),
        all(&NODE, DNS),
        all(&RESOLVER, SSH),
        all(&other_addresses, WEB),
        all(&other_addresses, DNS),
    ]
    .concat();
    let mail = all(&PUBLIC, MAIL);
    let prober = Prober::new(client.namespace());

    let wrong = differing(&prober, &open, Answer::Yes).await;
    assert!(wrong.is_empty(), "these shall answer: {wrong:?}");
    let wrong = differing(&prober, &closed, Answer::Silence).await;
    assert!(wrong.is_empty(), "these shall be silent: {wrong:?}");
    for target in &mail {
        assert_eq!(prober.tcp(*target).await, Answer::Silence, "{target}");
    }
    assert!(
        !client.pings("fe80::1", Duration::from_secs(1)),
        "a link-local address"
    );

    // Without the table each of them answers: what kept them silent was nothing else.
    stage.agent.kill();
    let table = format!("prime_vpn_{}", stage.agent.interface());
    ip(&format!("netns exec {node} nft delete table inet {table}"));
    for (subnet, gateway) in [("10.77.0.0/16", NODE[0]), ("fd77::/112", NODE[1])] {
        ip(&format!("-n {internet} route add {subnet} via {gateway}"));
    }
    let reachable = [closed, mail].concat();
    let wrong = differing(&prober, &reachable, Answer::Yes).await;
    assert!(wrong.is_empty(), "these are not there at all: {wrong:?}");

    // The agent that comes back closes them again, and is the same agent.
    stage.agent.run();
    stage.agent.wait_connected().await;
    let wrong = differing(&prober, &reachable, Answer::Silence).await;
    let wrong: Vec<_> = wrong
        .into_iter()
        .filter(|(target, (tcp, _))| target.port() != MAIL || *tcp != Answer::Silence)
        .collect();
    assert!(wrong.is_empty(), "these shall be silent again: {wrong:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flushed_ruleset_is_back_before_anybody_profits() {
    let stage = Stage::set().await;
    let client = stage.client().await;
    stage.tunnel(&client).await;
    assert!(client.pings(&World::INTERNET.to_string(), SOON));
    let node = stage.world.node();
    let listing = || {
        let words = ["netns", "exec", &node, "nft", "list", "ruleset"];
        String::from_utf8_lossy(&try_run("ip", &words).stdout).into_owned()
    };
    let before = listing();
    for round in 1..=3 {
        ip(&format!("netns exec {node} nft flush ruleset"));
        wait_until("the table is back", SOON, async || {
            let status = stage.agent.status();
            status.is_some_and(|it| it.firewall_repairs() >= round)
        })
        .await;
        assert_eq!(listing(), before);
    }
    assert!(client.pings(&World::INTERNET.to_string(), SOON));
}
