//! Both daemons against `wireguard.ko`.

mod faults;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::json;
use shared::wireguard::{PrivateKey, PublicKey};
use tests::api::Tunnel;
use tests::lab::{Backend, Stage, World, unix_now};
use tests::wait::scaled;

const PEERS: usize = 200;
const HANDSHAKES: usize = 100;
const PING: Duration = Duration::from_millis(200);

/// Says which kernel answered, and insists that it was one.
async fn stage() -> Stage {
    assert_eq!(
        Backend::detect(),
        Backend::Kernel,
        "this kernel has no WireGuard"
    );
    let version = std::fs::read_to_string("/sys/module/wireguard/version");
    println!(
        "wireguard.ko {}",
        version.as_deref().unwrap_or("built in").trim()
    );
    Stage::with(Backend::Kernel).await
}

async fn connect_many(stage: &Stage, keys: &[PublicKey]) -> Vec<Tunnel> {
    let connects = futures_util::stream::iter(keys).map(|key| async move {
        let body = json!({ "client_public_key": key });
        stage.user.connected(&body).await
    });
    connects.buffer_unordered(8).collect().await
}

fn new_keys(count: usize) -> Vec<PublicKey> {
    let key = || PrivateKey::generate().public_key();
    std::iter::repeat_with(key).take(count).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_peers_are_exactly_what_the_interface_has() {
    let stage = stage().await;
    let client = stage.client().await;
    let keys = new_keys(PEERS - 1);
    let began = Instant::now();
    let tunnels = connect_many(&stage, &keys).await;
    println!("{} connects in {:?}", tunnels.len(), began.elapsed());
    let own = stage.tunnel(&client).await;
    assert!(client.pings(&World::INTERNET.to_string(), Duration::from_secs(5)));

    let peers = stage.peers();
    let held: BTreeSet<_> = peers.iter().map(|peer| peer.public_key).collect();
    assert_eq!(peers.len(), PEERS);
    assert!(keys.iter().all(|key| held.contains(key)));
    let addresses: BTreeSet<_> = peers.iter().flat_map(|peer| &peer.allowed_ips).collect();
    assert_eq!(
        addresses.len(),
        2 * PEERS,
        "an IPv4 and an IPv6 address each, none twice"
    );
    let promised = tunnels.iter().chain([&own]);
    for address in promised.map(|tunnel| format!("{}/32", tunnel.assigned_ip)) {
        assert!(addresses.contains(&address), "{address}");
    }
    let (sent, received) = stage.wait_counters_agree(PEERS).await;
    assert!(sent > 0 && received > 0);

    let began = Instant::now();
    let all = tunnels
        .iter()
        .chain([&own])
        .map(|tunnel| tunnel.connection_id);
    futures_util::stream::iter(all)
        .for_each_concurrent(8, async |connection| {
            stage.user.disconnected(connection).await;
        })
        .await;
    println!("{PEERS} disconnects in {:?}", began.elapsed());
    assert!(
        stage.peers().is_empty(),
        "after disconnects the interface has no peer"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_agent_and_plane_loses_no_ping() {
    let mut stage = stage().await;
    let client = stage.client().await;
    connect_many(&stage, &new_keys(PEERS - 1)).await;
    stage.tunnel(&client).await;
    let target = World::INTERNET.to_string();
    assert!(client.pings(&target, Duration::from_secs(5)));
    let before = stage.peers().len();

    let ping = client.keep_pinging(&target, PING);
    ping.wait_answers(5).await;
    stage.agent.kill();
    ping.wait_answers(5).await;
    stage.agent.run();
    stage.agent.wait_connected().await;
    ping.wait_answers(5).await;
    let report = ping.stop().await;
    println!("agent killed and restarted: {report:?}");
    assert!(report.is_whole(), "{report:?}");
    let status = stage.agent.status().expect("the agent answers");
    assert_eq!(status.operations(), 0, "{status:?}");

    let ping = client.keep_pinging(&target, PING);
    ping.wait_answers(5).await;
    stage.plane.kill();
    ping.wait_answers(5).await;
    stage.plane = stage.plane.restart().await;
    stage.agent.wait_connected().await;
    ping.wait_answers(5).await;
    let report = ping.stop().await;
    println!("plane killed and restarted: {report:?}");
    assert!(report.is_whole(), "{report:?}");
    let status = stage.agent.status().expect("the agent answers");
    assert_eq!(status.operations(), 0, "{status:?}");
    assert_eq!(stage.peers().len(), before);
    stage.wait_counters_agree(before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_the_moment_connect_returns_succeeds_at_the_first_try() {
    let stage = stage().await;
    let client = stage.client().await;
    let target = World::INTERNET.to_string();
    // WireGuard sends its first initiation with the first packet and the next only after five
    // seconds, so an answer before that says that the first was taken.
    let patience = scaled(Duration::from_secs(2)).min(Duration::from_secs(4));
    let mut first_try = 0;
    for round in 0..HANDSHAKES {
        let tunnel = stage.user.connected(&json!({})).await;
        let began = unix_now();
        client.configure(&tunnel.wg_config);
        let answered = client.pings(&target, patience);
        let shook = client.last_handshake() >= began;
        if answered && shook {
            first_try += 1;
        } else {
            println!("round {round}: answered {answered}, handshake {shook}");
        }
        stage.user.disconnected(tunnel.connection_id).await;
    }
    println!("{first_try} of {HANDSHAKES} handshakes succeeded at the first try");
    assert_eq!(first_try, HANDSHAKES);
    assert!(stage.peers().is_empty());
}
