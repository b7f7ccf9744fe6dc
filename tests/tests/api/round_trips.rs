//! The round trip through the tunnel, from the node to whoever looks.

use serde_json::{Value, json};
use shared::ids::{ConnectionId, PeerId};
use shared::protocol::{AgentMessage, RoundTrips};
use tests::api::Metrics;
use tests::sim::Message;
use tests::{SimNode, TestApp, wait_until};

use crate::SOON;

fn peer_of(node: &SimNode, connection: ConnectionId) -> PeerId {
    node.peer_of(connection).expect("the node holds it").peer
}

/// Measures once, as an agent does every second.
async fn measure(node: &SimNode, trips: &[(PeerId, u32)]) {
    let peers = trips.to_vec();
    let message = AgentMessage::RoundTrips(RoundTrips { peers });
    node.send(Message::text(message.encode())).await;
}

async fn next_ping(socket: &mut Metrics) -> Value {
    let metrics = tokio::time::timeout(SOON, socket.next_of("metrics")).await;
    let metrics = metrics.expect("one a second");
    assert_eq!(metrics["data"]["latency"], metrics["ping_ms"], "{metrics}");
    metrics["ping_ms"].clone()
}

async fn assert_measured(app: &TestApp, node: &SimNode, url: &str) {
    let user = app.user().await.at(url);
    let tunnel = user.connected(&json!({})).await;
    let unwatched = user.connected(&json!({})).await;
    let peer = peer_of(node, tunnel.connection_id);
    assert!(node.session().watched.is_empty(), "nobody looks");

    let socket = user.metrics(user.user(), user.token()).await;
    let mut socket = socket.expect("the socket opens");
    let both = [peer, peer_of(node, unwatched.connection_id)];
    wait_until("the node is asked", SOON, async || {
        node.session().watched == both
    })
    .await;
    user.disconnected(unwatched.connection_id).await;
    wait_until("the node is asked for less", SOON, async || {
        node.session().watched == [peer]
    })
    .await;
    assert!(next_ping(&mut socket).await.is_null());

    let stranger = PeerId(peer.0 + 1000);
    loop {
        measure(node, &[(peer, 24_600), (stranger, 1)]).await;
        if next_ping(&mut socket).await == 25 {
            break;
        }
    }
    wait_until("an unanswered one is forgotten", SOON, async || {
        next_ping(&mut socket).await.is_null()
    })
    .await;

    drop(socket);
    wait_until("the node is asked no more", SOON, async || {
        node.session().watched.is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_node_measured_is_the_ping() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    assert_measured(&app, &node, app.url()).await;
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_comes_through_another_replica_too() {
    let app = TestApp::replicas(2).await;
    let node = app.node("fra").await;
    app.wait_selectable_at(1, &node).await;
    assert_measured(&app, &node, app.url_of(1)).await;
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_one_stays_with_the_connection() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let user = app.user().await;
    let tunnel = user.connected(&json!({})).await;
    let only = |status: &Value| status["connections"][0].clone();
    assert!(only(&user.status().await)["ping_ms"].is_null());
    let socket = user.metrics(user.user(), user.token()).await;
    let socket = socket.expect("the socket opens");
    let peer = peer_of(&node, tunnel.connection_id);
    wait_until("it is stored", 2 * SOON, async || {
        measure(&node, &[(peer, 24_600)]).await;
        let stored = "SELECT count(*) FROM connections WHERE round_trip_us = 24600";
        app.db().number(stored).await == 1
    })
    .await;
    drop(socket);
    let shown = only(&user.status().await);
    assert_eq!(shown["ping_ms"], 25);
    node.add_traffic(tunnel.connection_id, 5_000_000, 5_000_000);
    node.report().await;
    wait_until("the counters arrive", SOON, async || {
        only(&user.status().await)["bytes_sent"] == 5_000_000
    })
    .await;
    let shown = only(&user.status().await);
    for speed in ["avg_speed", "peak_speed", "current_speed"] {
        let text = shown[speed].as_str().expect("a text");
        assert!(text.ends_with("B/s"), "{shown}");
    }
    assert!(
        !shown["avg_speed"]
            .as_str()
            .expect("a text")
            .starts_with("0 "),
        "{shown}"
    );
    let ended = user
        .disconnect(tunnel.connection_id)
        .await
        .expect(200)
        .json();
    assert_eq!(ended["ping_ms"], 25, "{ended}");
    assert!(ended["last_handshake"].is_string(), "{ended}");
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_gone_looks_no_more() {
    let mut app = TestApp::replicas(2).await;
    let node = app.node("fra").await;
    app.wait_selectable_at(1, &node).await;
    let user = app.user().await.at(app.url_of(1));
    user.connected(&json!({})).await;
    let socket = user.metrics(user.user(), user.token()).await;
    let _socket = socket.expect("the socket opens");
    wait_until("the node is asked", SOON, async || {
        node.session().watched.len() == 1
    })
    .await;
    app.stop_replica(1).await;
    wait_until("the node is asked no more", SOON, async || {
        node.session().watched.is_empty()
    })
    .await;
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_agent_is_asked_nothing() {
    let app = TestApp::start().await;
    let mut config = app.config("old");
    (config.protocol, config.min_protocol) = (1, 1);
    let node = app.node_with(config).await;
    let user = app.user().await;
    user.connected(&json!({})).await;
    let socket = user.metrics(user.user(), user.token()).await;
    let mut socket = socket.expect("the socket opens");
    for _ in 0..3 {
        assert!(next_ping(&mut socket).await.is_null());
    }
    assert!(node.session().watched.is_empty());
    app.finish(&[&node]).await;
}
