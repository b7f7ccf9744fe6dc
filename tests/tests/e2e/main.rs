//! Both daemons as processes in network namespaces, with a stock WireGuard client.
#![expect(
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "helpers of tests fail by panicking"
)]

mod isolation;
mod limits;
mod purchase;
mod rotation;
mod round_trips;
mod sandbox;
mod traces;

mod faults;

use std::time::Duration;

use serde_json::json;
use tests::lab::{Stage, World, key_of};
use tests::wait_until;

const SOON: Duration = Duration::from_secs(15);
const PING: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread")]
async fn a_person_connects_pings_is_counted_and_disconnects() {
    let stage = Stage::set().await;
    let client = stage.client().await;
    let tunnel = stage.tunnel(&client).await;
    let internet = World::INTERNET.to_string();
    assert!(
        client.pings(&internet, Duration::from_secs(5)),
        "IPv4 through the tunnel"
    );
    assert!(
        client.pings(World::INTERNET_V6, Duration::from_secs(5)),
        "IPv6 through the tunnel"
    );

    let (sent, received) = stage.wait_counters_agree(1).await;
    assert!(sent > 0 && received > 0);
    assert_eq!(
        client.counters(),
        (sent, received),
        "both ends of the tunnel counted alike"
    );
    let peer = stage
        .peer(key_of(&tunnel.wg_config))
        .expect("the node has the peer");
    let mut allowed = vec![format!("{}/32", tunnel.assigned_ip)];
    allowed.extend(tunnel.assigned_ipv6.map(|address| format!("{address}/128")));
    assert_eq!(peer.allowed_ips, allowed);

    let ended = stage.user.disconnected(tunnel.connection_id).await;
    assert!(
        stage.peers().is_empty(),
        "the answer comes after the peer has gone"
    );
    assert!(
        ended.bytes_sent >= sent && ended.bytes_received >= received,
        "{ended:?}"
    );
    assert!(
        !client.pings(&internet, Duration::from_secs(1)),
        "the tunnel is closed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_and_restarted_is_not_noticed() {
    let mut stage = Stage::set().await;
    let client = stage.client().await;
    stage.tunnel(&client).await;
    let target = World::INTERNET.to_string();
    assert!(client.pings(&target, Duration::from_secs(5)));
    let ping = client.keep_pinging(&target, PING);
    ping.wait_answers(5).await;

    stage.agent.kill();
    ping.wait_answers(10).await;
    stage.agent.run();
    stage.agent.wait_connected().await;
    ping.wait_answers(10).await;

    let report = ping.stop().await;
    assert!(report.is_whole(), "{report:?}");
    let status = stage.agent.status().expect("the agent answers");
    assert_eq!(status.operations(), 0, "{status:?}");
    stage.wait_counters_agree(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plane_killed_and_restarted_is_not_noticed() {
    let mut stage = Stage::set().await;
    let client = stage.client().await;
    let tunnel = stage.tunnel(&client).await;
    let target = World::INTERNET.to_string();
    assert!(client.pings(&target, Duration::from_secs(5)));
    let before = stage
        .agent
        .status()
        .expect("the agent answers")
        .operations();
    let ping = client.keep_pinging(&target, PING);
    ping.wait_answers(5).await;

    stage.plane.kill();
    ping.wait_answers(10).await;
    stage.plane = stage.plane.restart().await;
    stage.agent.wait_connected().await;
    ping.wait_answers(10).await;

    let report = ping.stop().await;
    assert!(report.is_whole(), "{report:?}");
    let after = stage
        .agent
        .status()
        .expect("the agent answers")
        .operations();
    assert_eq!(after, before);
    stage.wait_counters_agree(1).await;
    stage.user.disconnected(tunnel.connection_id).await;
    assert!(stage.peers().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_reaches_the_internet_and_nothing_else() {
    let stage = Stage::set().await;
    let client = stage.client().await;
    stage.tunnel(&client).await;
    let internet = World::INTERNET.to_string();
    assert!(client.pings(&internet, Duration::from_secs(5)));

    let one_second = Duration::from_secs(1);
    let other = stage.user.connected(&json!({})).await;
    assert!(
        !client.pings(&other.assigned_ip.to_string(), one_second),
        "another client"
    );
    let plane = stage.world.plane_address.to_string();
    assert!(
        !client.pings(&plane, one_second),
        "the node's inner network"
    );
    let port: u16 = stage
        .plane
        .url()
        .rsplit(':')
        .next()
        .and_then(|port| port.parse().ok())
        .expect("a port");
    assert!(
        !client.reaches_tcp(&plane, port),
        "the plane behind the node"
    );
    assert!(
        !client.pings("169.254.169.254", one_second),
        "cloud metadata"
    );
    for target in [other.assigned_ip.to_string(), "10.77.0.1".to_owned()] {
        assert!(!client.reaches_tcp(&target, 22), "a service on {target}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_while_the_agent_was_away_is_gone_after_its_return() {
    let mut stage = Stage::set().await;
    let client = stage.client().await;
    let ended = stage.tunnel(&client).await;
    let kept = stage.user.connected(&json!({})).await;
    assert!(client.pings(&World::INTERNET.to_string(), Duration::from_secs(5)));
    stage.agent.terminate().await;
    assert_eq!(
        stage.peers().len(),
        2,
        "an agent that ends leaves the interface"
    );

    stage.user.disconnected(ended.connection_id).await;
    stage.agent.run();
    stage.agent.wait_connected().await;
    wait_until("one peer is left", SOON, async || stage.peers().len() == 1).await;
    assert!(stage.peer(key_of(&kept.wg_config)).is_some());
    let status = stage.agent.status().expect("the agent answers");
    assert_eq!(status.operations(), 1, "{status:?}");
    wait_until("the final counters arrive", SOON, async || {
        let half = "SELECT count(*) FROM connections WHERE status = 'disconnecting'";
        stage.db.number(half).await == 0
    })
    .await;
    let bytes = "SELECT bytes_sent FROM connections WHERE status = 'disconnected'";
    assert!(stage.db.number(bytes).await > 0);
}
