//! A real `wireguard-go`, each test in a network namespace of its own. Its sockets are the
//! machine's, so every test has an interface name of its own too.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shared::wireguard::{PresharedKey, PrivateKey, PublicKey};
use wireguard_control::Backend as OracleBackend;

use super::*;
use crate::host::netns::{in_private_netns, run};
use crate::wireguard::PeerSpec;

fn device(name: &str) -> UserspaceDevice {
    UserspaceDevice::open(name.parse().unwrap(), "wireguard-go".into()).unwrap()
}

/// A name that no other run of the tests uses at the same time.
fn unique(prefix: char) -> String {
    format!("{prefix}{}", std::process::id())
}

fn setup() -> InterfaceSetup {
    InterfaceSetup {
        private_key: PrivateKey::generate(),
        listen_port: 0,
        addresses: vec![
            "10.8.0.1/24".parse().unwrap(),
            "fd00:8::1/64".parse().unwrap(),
        ],
        mtu: 1380,
    }
}

fn spec(last: u8) -> PeerSpec {
    PeerSpec {
        public_key: PrivateKey::generate().public_key(),
        preshared_key: Some(PresharedKey::generate()),
        allowed_ips: vec![
            format!("10.8.0.{last}/32").parse().unwrap(),
            format!("fd00:8::{last:x}/128").parse().unwrap(),
        ],
    }
}

/// What another implementation of the protocol's client side reads: keys with their networks.
fn oracle(name: &str) -> Vec<(PublicKey, Vec<String>)> {
    let name = name.parse().unwrap();
    let device = wireguard_control::Device::get(&name, OracleBackend::Userspace).unwrap();
    let mut peers: Vec<_> = device
        .peers
        .iter()
        .map(|peer| {
            let networks = peer.config.allowed_ips.iter();
            let networks = networks.map(|ip| format!("{}/{}", ip.address, ip.cidr));
            let key = peer.config.public_key.to_base64().parse().unwrap();
            (key, networks.collect())
        })
        .collect();
    peers.sort();
    peers
}

fn as_the_oracle_says(peers: &[PeerStatus]) -> Vec<(PublicKey, Vec<String>)> {
    let mut peers: Vec<_> = peers
        .iter()
        .map(|peer| {
            let networks = peer.allowed_ips.iter().map(ToString::to_string).collect();
            (peer.public_key, networks)
        })
        .collect();
    peers.sort();
    peers
}

fn pid_of(name: &str) -> Pid {
    run(&format!("pgrep -x -f wireguard-go.{name}"))
        .trim()
        .parse()
        .map(Pid::from_raw)
        .unwrap()
}

#[test]
fn makes_programs_adopts_and_removes_an_interface() {
    in_private_netns(async || {
        let name = unique('u');
        let first_agent = device(&name);
        let setup = setup();
        let made = first_agent.ensure(&setup).await.unwrap();
        assert_eq!(made.public_key, Some(setup.private_key.public_key()));
        let addresses = run(&format!("ip -br addr show dev {name}"));
        assert!(addresses.contains("10.8.0.1/24") && addresses.contains("fd00:8::1/64"));
        assert!(run(&format!("ip link show dev {name}")).contains("mtu 1380"));

        let (stays, goes) = (spec(2), spec(3));
        let both = [PeerOp::Add(stays.clone()), PeerOp::Add(goes.clone())];
        first_agent.apply(&both).await.unwrap();
        let mut changed = stays.clone();
        changed.preshared_key = None;
        changed.allowed_ips.truncate(1);
        let absent = PeerOp::Update(spec(4));
        let changes = [
            PeerOp::Update(changed.clone()),
            PeerOp::Remove(goes.public_key),
            absent,
        ];
        first_agent.apply(&changes).await.unwrap();
        let peers = first_agent.peers().await.unwrap();
        assert_eq!(peers.len(), 1, "{peers:?}");
        assert_eq!(peers[0].public_key, changed.public_key);
        assert_eq!(peers[0].preshared_key, None);
        assert_eq!(peers[0].allowed_ips, changed.allowed_ips);
        assert_eq!(oracle(&name), as_the_oracle_says(&peers));

        let pid = pid_of(&name);
        drop(first_agent);
        let second_agent = device(&name);
        assert!(is_running(&name.parse().unwrap()).await);
        assert_eq!(second_agent.ensure(&setup).await.unwrap(), made);
        assert_eq!(second_agent.peers().await.unwrap(), peers);
        assert_eq!(pid_of(&name), pid);

        second_agent.teardown().await.unwrap();
        assert!(!is_running(&name.parse().unwrap()).await);
        assert!(!run("ip -br link").contains(&name));
        second_agent.teardown().await.unwrap();
    });
}

#[test]
fn a_dead_process_is_missing_and_started_again() {
    in_private_netns(async || {
        let name = unique('d');
        let device = device(&name);
        assert!(matches!(device.peers().await, Err(DeviceError::Missing)));
        let setup = setup();
        let before = device.ensure(&setup).await.unwrap();
        device.apply(&[PeerOp::Add(spec(2))]).await.unwrap();

        kill(pid_of(&name), Signal::SIGKILL).unwrap();
        device.wait_for(false).await.unwrap();
        assert!(matches!(device.peers().await, Err(DeviceError::Missing)));
        let operations = [PeerOp::Add(spec(2))];
        let refused = device.apply(&operations).await;
        assert!(matches!(refused, Err(DeviceError::Missing)));

        let after = device.ensure(&setup).await.unwrap();
        assert_ne!(after.index, before.index);
        assert!(device.peers().await.unwrap().is_empty());
        device.teardown().await.unwrap();
    });
}

#[test]
fn brings_a_changed_setup_about() {
    in_private_netns(async || {
        let name = unique('c');
        let device = device(&name);
        device.ensure(&setup()).await.unwrap();
        let mut other = setup();
        other.addresses = vec!["10.9.0.1/16".parse().unwrap()];
        other.mtu = 1400;
        let status = device.ensure(&other).await.unwrap();
        assert_eq!(status.public_key, Some(other.private_key.public_key()));
        let addresses = run(&format!("ip -4 -br addr show dev {name}"));
        assert!(addresses.contains("10.9.0.1/16") && !addresses.contains("10.8"));
        assert!(!run(&format!("ip -6 addr show dev {name}")).contains("fd00:8::1"));
        assert!(run(&format!("ip link show dev {name}")).contains("mtu 1400"));
        device.teardown().await.unwrap();
    });
}

#[test]
fn another_private_key_leaves_the_peers() {
    in_private_netns(async || {
        let name = unique('k');
        let device = device(&name);
        let before = setup();
        let made = device.ensure(&before).await.unwrap();
        let operations: Vec<_> = (2..200).map(|n| PeerOp::Add(spec(n))).collect();
        device.apply(&operations).await.unwrap();
        let sorted = async || {
            let mut peers = device.peers().await.unwrap();
            peers.sort_by_key(|peer| peer.public_key);
            peers
        };
        let peers = sorted().await;
        let after = InterfaceSetup {
            private_key: PrivateKey::generate(),
            ..before
        };
        let changed = device.ensure(&after).await.unwrap();
        assert_eq!(changed.index, made.index);
        assert_eq!(changed.public_key, Some(after.private_key.public_key()));
        assert!(sorted().await == peers);
        device.teardown().await.unwrap();
    });
}

#[test]
fn ten_thousand_peers_go_in_and_come_back() {
    in_private_netns(async || {
        let name = unique('m');
        let device = device(&name);
        device.ensure(&setup()).await.unwrap();
        let operations: Vec<_> = (0..10_000_u32)
            .map(|i| {
                let mut key = [1; 32];
                key[..4].copy_from_slice(&i.to_be_bytes());
                let address = (0x0a08_0000 + i).to_be_bytes();
                PeerOp::Add(PeerSpec {
                    public_key: PublicKey::from_bytes(key),
                    preshared_key: Some(PresharedKey::generate()),
                    allowed_ips: vec![ipnet::IpNet::new(address.into(), 32).unwrap()],
                })
            })
            .collect();
        device.apply(&operations).await.unwrap();
        assert_eq!(device.peers().await.unwrap().len(), 10_000);
        device.teardown().await.unwrap();
    });
}

#[tokio::test]
async fn a_program_that_is_not_there_is_unavailable() {
    let name = unique('x').parse().unwrap();
    let program = Path::new("/nowhere/wireguard-go");
    assert!(matches!(
        available(program).await,
        Err(DeviceError::Unavailable(..))
    ));
    let device = UserspaceDevice::open(name, program.to_owned()).unwrap();
    let refused = device.ensure(&setup()).await;
    assert!(matches!(refused, Err(DeviceError::Unavailable(..))));
}
