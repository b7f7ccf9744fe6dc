//! The kernel's WireGuard, each test in a network namespace of its own. Needs root and a kernel
//! that has the module: `scripts/test kernel` runs it where there is one, or in `scripts/vm`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test's way to fail"
)]

#[path = "../src/host/netns.rs"]
mod netns;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use node_agent::wireguard::{
    Backend, Device, DeviceError, InterfaceSetup, PeerOp, PeerSpec, PeerStatus, open,
};
use shared::wireguard::{PresharedKey, PrivateKey, PublicKey};
use tempfile::TempDir;

use netns::{in_private_netns, run};

async fn device(name: &str) -> Arc<dyn Device> {
    let name = name.parse().unwrap();
    open(Backend::Kernel, name, PathBuf::new()).await.unwrap()
}

fn setup() -> InterfaceSetup {
    InterfaceSetup {
        private_key: PrivateKey::generate(),
        listen_port: 51820,
        addresses: vec![
            "10.8.0.1/16".parse().unwrap(),
            "fd00:8::1/64".parse().unwrap(),
        ],
        mtu: 1380,
    }
}

/// A dual-stack peer with `count` addresses of each family, from the given number on.
fn spec(key: PublicKey, first: u32, count: u32) -> PeerSpec {
    let v4 = |i: u32| IpNet::new((0x0a08_0000 + i).to_be_bytes().into(), 32).unwrap();
    let v6 = |i: u32| {
        let address = (0xfd00_0008_u128 << 96) + u128::from(i);
        IpNet::new(std::net::Ipv6Addr::from(address).into(), 128).unwrap()
    };
    let range = first..first + count;
    PeerSpec {
        public_key: key,
        preshared_key: Some(PresharedKey::generate()),
        allowed_ips: range.clone().map(v4).chain(range.map(v6)).collect(),
    }
}

fn numbered_key(number: u32) -> PublicKey {
    let mut key = [1; 32];
    key[..4].copy_from_slice(&number.to_be_bytes());
    PublicKey::from_bytes(key)
}

/// Keys and networks as `wg` lists them, in order.
fn as_wg_says(name: &str) -> Vec<(String, Vec<IpNet>)> {
    let listing = run(&format!("wg show {name} allowed-ips"));
    let mut peers: Vec<_> = listing
        .lines()
        .map(|line| {
            let mut words = line.split_ascii_whitespace();
            let key = words.next().unwrap().to_owned();
            let mut networks: Vec<_> = words.filter_map(|it| it.parse().ok()).collect();
            networks.sort_unstable();
            (key, networks)
        })
        .collect();
    peers.sort();
    peers
}

fn named(peers: &[PeerStatus]) -> Vec<(String, Vec<IpNet>)> {
    let named = peers
        .iter()
        .map(|peer| (peer.public_key.to_base64(), peer.allowed_ips.clone()));
    let mut named: Vec<_> = named.collect();
    named.sort();
    named
}

fn adding(specs: &[PeerSpec]) -> Vec<PeerOp> {
    specs.iter().cloned().map(PeerOp::Add).collect()
}

#[test]
fn makes_programs_adopts_and_removes_an_interface() {
    println!("module {}", run("cat /sys/module/wireguard/version").trim());
    in_private_netns(async || {
        let first_agent = device("wg0").await;
        assert!(matches!(
            first_agent.peers().await,
            Err(DeviceError::Missing)
        ));
        first_agent.teardown().await.unwrap();
        let setup = setup();
        let made = first_agent.ensure(&setup).await.unwrap();
        assert_eq!(made.public_key, Some(setup.private_key.public_key()));
        let addresses = run("ip -br addr show dev wg0");
        assert!(addresses.contains("10.8.0.1/16") && addresses.contains("fd00:8::1/64"));
        let link = run("ip link show dev wg0");
        assert!(link.contains("mtu 1380") && link.contains(",UP"));

        let (stays, goes) = (spec(numbered_key(1), 2, 1), spec(numbered_key(2), 3, 1));
        first_agent
            .apply(&adding(&[stays.clone(), goes.clone()]))
            .await
            .unwrap();
        let mut changed = stays.clone();
        changed.preshared_key = None;
        changed.allowed_ips.truncate(1);
        let changes = [
            PeerOp::Update(changed.clone()),
            PeerOp::Remove(goes.public_key),
            PeerOp::Update(spec(numbered_key(3), 4, 1)),
            PeerOp::Remove(numbered_key(4)),
        ];
        first_agent.apply(&changes).await.unwrap();
        let peers = first_agent.peers().await.unwrap();
        assert_eq!(peers.len(), 1, "{peers:?}");
        assert_eq!(peers[0].public_key, changed.public_key);
        assert_eq!(peers[0].preshared_key, None);
        assert_eq!(named(&peers), as_wg_says("wg0"));

        let second_agent = device("wg0").await;
        assert_eq!(second_agent.ensure(&setup).await.unwrap(), made);
        assert_eq!(second_agent.peers().await.unwrap(), peers);

        let mut other = setup.clone();
        other.addresses.pop();
        other.listen_port = 51821;
        second_agent.ensure(&other).await.unwrap();
        assert_eq!(run("wg show wg0 listen-port").trim(), "51821");
        assert!(!run("ip addr show dev wg0").contains("fd00:8::1"));

        second_agent.teardown().await.unwrap();
        assert!(!run("ip -br link").contains("wg0"));
    });
}

#[test]
fn peers_on_the_boundary_of_messages_come_back_whole() {
    in_private_netns(async || {
        let device = device("wg0").await;
        device.ensure(&setup()).await.unwrap();
        let mut next = 2;
        let specs: Vec<_> = (0..200)
            .map(|number| {
                let count = if number == 100 { 3000 } else { number % 23 };
                next += count;
                spec(numbered_key(number), next - count, count)
            })
            .collect();
        device.apply(&adding(&specs)).await.unwrap();
        let peers = device.peers().await.unwrap();
        assert_eq!(peers.len(), 200);
        assert_eq!(named(&peers), as_wg_says("wg0"));
        for spec in &specs {
            let found = peers.iter().find(|it| it.public_key == spec.public_key);
            let found = found.unwrap();
            assert_eq!(found.preshared_key, spec.preshared_key);
            assert_eq!(found.allowed_ips.len(), spec.allowed_ips.len());
        }
        device.teardown().await.unwrap();
    });
}

#[test]
fn counters_survive_fragments_and_a_second_setup_keeps_the_session() {
    in_private_netns(async || {
        let device = device("wg0").await;
        let setup = setup();
        device.ensure(&setup).await.unwrap();
        let client = PrivateKey::generate();
        let mut mine = spec(client.public_key(), 2, 3000);
        mine.preshared_key = None;
        let neighbours = (0..50).map(|number| spec(numbered_key(number), 5000 + number, 1));
        let mut specs: Vec<_> = neighbours.collect();
        specs.insert(25, mine);
        device.apply(&adding(&specs)).await.unwrap();

        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("key");
        std::fs::write(&key, client.expose_base64().as_bytes()).unwrap();
        let space = format!("kernel{}", std::process::id());
        run(&format!("ip netns add {space}"));
        run("ip link add client type wireguard");
        let server = setup.private_key.public_key();
        run(&format!(
            "wg set client private-key {} peer {server} endpoint 127.0.0.1:51820 allowed-ips 10.8.0.0/16",
            key.display()
        ));
        run(&format!("ip link set client netns {space}"));
        run(&format!("ip -n {space} addr add 10.8.0.2/16 dev client"));
        run(&format!("ip -n {space} link set client up"));
        run(&format!(
            "ip netns exec {space} ping -c 3 -i 0.2 -W 5 10.8.0.1"
        ));

        let find = |peers: Vec<PeerStatus>| {
            let mut peers = peers.into_iter();
            peers
                .find(|it| it.public_key == client.public_key())
                .unwrap()
        };
        let peers = device.peers().await.unwrap();
        assert_eq!(peers.len(), 51);
        let before = find(peers);
        assert_eq!(before.allowed_ips.len(), 6000);
        assert!(
            before.rx_bytes > 300 && before.tx_bytes > 300,
            "{}",
            before.rx_bytes
        );
        assert!(before.last_handshake.is_some());
        let wg = run("wg show wg0 transfer");
        let expected = format!(
            "{}\t{}\t{}",
            before.public_key, before.rx_bytes, before.tx_bytes
        );
        assert!(wg.contains(&expected), "{wg}");

        device.ensure(&setup).await.unwrap();
        run(&format!("ip netns exec {space} ping -c 1 -W 5 10.8.0.1"));
        let after = find(device.peers().await.unwrap());
        assert_eq!(after.last_handshake, before.last_handshake);
        assert!(after.rx_bytes > before.rx_bytes);

        run(&format!("ip netns del {space}"));
        device.teardown().await.unwrap();
    });
}

/// A stock client in a namespace of its own, whose packets reach the device on this side.
struct Client {
    space: String,
    preshared_key: String,
    _directory: TempDir,
}

impl Client {
    fn new(role: &str, key: &PrivateKey, preshared_key: &PresharedKey) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let key = file("key", &key.expose_base64());
        let client = Self {
            space: format!("{role}{}", std::process::id()),
            preshared_key: file("psk", &preshared_key.expose_base64()),
            _directory: directory,
        };
        let space = &client.space;
        run(&format!("ip netns add {space}"));
        // Its packets to the server leave from the namespace in which it was made.
        run("ip link add client type wireguard");
        run(&format!("wg set client private-key {key}"));
        run(&format!("ip link set client netns {space}"));
        run(&format!("ip -n {space} addr add 10.8.0.2/16 dev client"));
        run(&format!("ip -n {space} link set client up"));
        client
    }

    /// Knows this server and no other, without a session.
    fn point(&self, server: PublicKey) {
        let (space, psk) = (&self.space, &self.preshared_key);
        let set = format!("ip netns exec {space} wg set client peer");
        for known in run(&format!("ip netns exec {space} wg show client peers")).lines() {
            run(&format!("{set} {known} remove"));
        }
        run(&format!(
            "{set} {server} preshared-key {psk} endpoint 127.0.0.1:51820 allowed-ips 10.8.0.0/16"
        ));
    }

    fn ping(&self) {
        let space = &self.space;
        run(&format!(
            "ip netns exec {space} ping -c 2 -i 0.2 -W 5 10.8.0.1"
        ));
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        run(&format!("ip netns del {}", self.space));
    }
}

#[test]
fn another_private_key_leaves_peers_and_counters_and_the_next_handshake_works() {
    in_private_netns(async || {
        let device = device("wg0").await;
        let before = setup();
        device.ensure(&before).await.unwrap();
        let key = PrivateKey::generate();
        let mine = spec(key.public_key(), 2, 1);
        let neighbours = (0..300).map(|number| spec(numbered_key(number), 5000 + number, 1));
        let specs: Vec<_> = neighbours.chain([mine.clone()]).collect();
        device.apply(&adding(&specs)).await.unwrap();
        let client = Client::new("rotate", &key, mine.preshared_key.as_ref().unwrap());
        client.point(before.private_key.public_key());
        client.ping();

        let status = device.ensure(&before).await.unwrap();
        let counted = device.peers().await.unwrap();
        let after = InterfaceSetup {
            private_key: PrivateKey::generate(),
            ..before
        };
        let changed = device.ensure(&after).await.unwrap();
        assert_eq!(changed.index, status.index);
        assert_eq!(changed.public_key, Some(after.private_key.public_key()));
        // Keys, preshared keys, addresses, counters, handshakes.
        assert_eq!(device.peers().await.unwrap(), counted);

        client.point(after.private_key.public_key());
        client.ping();
        let find = |peers: &[PeerStatus]| {
            let mut peers = peers.iter();
            peers.find(|it| it.public_key == mine.public_key).cloned()
        };
        let (old, new) = (
            find(&counted).unwrap(),
            find(&device.peers().await.unwrap()).unwrap(),
        );
        assert!(new.rx_bytes > old.rx_bytes && new.tx_bytes > old.tx_bytes);
        assert_eq!(new.preshared_key, old.preshared_key);
        device.teardown().await.unwrap();
    });
}

/// What clearing an endpoint asks of the kernel.
#[test]
fn a_peer_that_is_put_back_has_no_endpoint_and_is_greeted_at_the_first_try() {
    in_private_netns(async || {
        let device = device("wg0").await;
        let setup = setup();
        device.ensure(&setup).await.unwrap();
        let key = PrivateKey::generate();
        let mine = spec(key.public_key(), 2, 1);
        device
            .apply(&adding(std::slice::from_ref(&mine)))
            .await
            .unwrap();
        let client = Client::new("scrub", &key, mine.preshared_key.as_ref().unwrap());
        let server = setup.private_key.public_key();
        client.point(server);
        client.ping();
        assert!(run("wg show wg0 endpoints").contains("127.0.0.1"));

        let emptied = PeerSpec {
            allowed_ips: Vec::new(),
            ..mine.clone()
        };
        device.apply(&[PeerOp::Update(emptied)]).await.unwrap();
        assert_eq!(device.peers().await.unwrap()[0].allowed_ips, []);
        let replace = [PeerOp::Remove(mine.public_key), PeerOp::Add(mine.clone())];
        device.apply(&replace).await.unwrap();
        assert!(run("wg show wg0 endpoints").contains("(none)"));
        let blank = device.peers().await.unwrap();
        assert_eq!(blank.len(), 1);
        assert_eq!((blank[0].rx_bytes, blank[0].last_handshake), (0, None));
        assert_eq!(blank[0].preshared_key, mine.preshared_key);

        // The client's session is too old to be used by then; here it is ended by hand.
        client.point(server);
        let start = Instant::now();
        client.ping();
        // A second try would come after five seconds.
        assert!(start.elapsed() < Duration::from_secs(4));
        assert!(device.peers().await.unwrap()[0].rx_bytes > 0);
        device.teardown().await.unwrap();
    });
}

#[test]
fn ten_thousand_peers() {
    in_private_netns(async || {
        let device = device("wg0").await;
        device.ensure(&setup()).await.unwrap();
        let specs = (0..10_000).map(|number| spec(numbered_key(number), 2 + number, 1));
        let specs: Vec<_> = specs.collect();
        let timed = |what: &str, since: Instant| println!("{what}: {:?}", since.elapsed());

        let start = Instant::now();
        device.apply(&adding(&specs)).await.unwrap();
        timed("10,000 added", start);
        let start = Instant::now();
        let peers = device.peers().await.unwrap();
        timed("10,000 dumped", start);
        assert_eq!(peers.len(), 10_000);
        assert_eq!(named(&peers), as_wg_says("wg0"));
        let start = Instant::now();
        device
            .apply(&[PeerOp::Remove(numbered_key(5000))])
            .await
            .unwrap();
        timed("one removed", start);
        let start = Instant::now();
        device.apply(&adding(&specs[5000..5001])).await.unwrap();
        timed("one added", start);
        assert_eq!(device.peers().await.unwrap().len(), 10_000);
        let start = Instant::now();
        device.teardown().await.unwrap();
        timed("10,000 torn down", start);
        assert!(start.elapsed() < Duration::from_secs(15));
    });
}

#[test]
fn another_kind_of_interface_is_left_alone() {
    in_private_netns(async || {
        run("ip link add wg0 type dummy");
        let device = device("wg0").await;
        let refused = device.ensure(&setup()).await;
        assert!(
            matches!(refused, Err(DeviceError::Unavailable(..))),
            "{refused:?}"
        );
        assert!(device.teardown().await.is_err());
        assert!(run("ip -br link").contains("wg0"));
    });
}
