//! The node session: who gets one, what ends it, and how it resumes.

use serde_json::json;
use shared::protocol::{
    AgentMessage, MAX_FRAME_BYTES, PROTOCOL_VERSION, RefusedReason, Resume, close,
};
use tests::sim::Message;
use tests::{SimNode, TestApp, wait_until};

use crate::SOON;

#[tokio::test(flavor = "multi_thread")]
async fn an_unsupported_version_is_refused_with_the_reason() {
    let app = TestApp::start().await;
    let mut config = app.config("future");
    (config.protocol, config.min_protocol) = (999, 998);
    let node = app.enrolled(config).await;
    wait_until("the plane refuses", SOON, async || {
        node.session().refused.is_some()
    })
    .await;
    let refused = node.session().refused.expect("just seen");
    assert_eq!(refused.reason, RefusedReason::UnsupportedProtocol);
    assert!(!refused.message.is_empty());
    assert_eq!(node.session().welcomed, 0);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_agent_that_speaks_the_old_version_too_is_welcome() {
    let app = TestApp::start().await;
    let mut config = app.config("newer");
    (config.protocol, config.min_protocol) = (PROTOCOL_VERSION + 1, 1);
    let node = app.node_with(config).await;
    let welcome = node.session().welcome.expect("a session");
    assert_eq!(welcome.protocol, PROTOCOL_VERSION);
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_frame_ends_the_session_and_nothing_else() {
    let app = TestApp::start().await;
    let (bad, good) = (app.node("bad").await, app.node("good").await);
    let user = app.user().await;
    let tunnel = user.connected(&json!({ "server_id": bad.server() })).await;
    let frames = [
        Message::text("garbage"),
        Message::text("[]"),
        Message::text(bad.hello().encode()),
        Message::text(" ".repeat(MAX_FRAME_BYTES + 1)),
        Message::binary(vec![0xff; 40]),
        Message::binary(vec![1, 0x80]),
        Message::binary(vec![1; MAX_FRAME_BYTES + 1]),
    ];
    for (frame, sessions) in frames.into_iter().zip(2..) {
        bad.send(frame).await;
        wait_until("a further session", SOON, async || {
            let session = bad.session();
            session.welcomed == sessions && session.online
        })
        .await;
        assert_eq!(
            bad.session().changes_received,
            0,
            "it resumes where it stood"
        );
    }
    assert_eq!(bad.connections(), [tunnel.connection_id]);
    assert_eq!(good.session().welcomed, 1);
    app.finish(&[&bad, &good]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_later_version_are_ignored() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let user = app.user().await;
    node.send(Message::text(r#"{"type":"teleport","to":"moon"}"#))
        .await;
    user.connected(&json!({})).await;
    assert_eq!(node.session().welcomed, 1);
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_session_replaces_the_first() {
    let app = TestApp::start().await;
    let mut old = app.node("fra").await;
    old.no_redial();
    let mut new = old.twin();
    new.start();
    new.wait_online().await;
    wait_until("the first is closed", SOON, async || {
        old.session().close_code == Some(close::REPLACED)
    })
    .await;
    old.stop().await;
    app.wait_selectable(&new).await;
    let user = app.user().await;
    let tunnel = user.connected(&json!({})).await;
    assert_eq!(new.connections(), [tunnel.connection_id]);
    assert_eq!(old.peer_count(), 0);
    app.finish(&[&new]).await;
}

async fn reconnect(node: &mut SimNode) {
    node.stop().await;
    node.start();
    node.wait_online().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_return_with_nothing_missed_brings_no_change() {
    let app = TestApp::start().await;
    let mut node = app.node("fra").await;
    let user = app.user().await;
    for _ in 0..3 {
        user.connected(&json!({})).await;
    }
    let operations = node.operations();
    reconnect(&mut node).await;
    // A connect is behind everything that the resumption could have brought.
    app.wait_selectable(&node).await;
    user.connected(&json!({})).await;
    let session = node.session();
    assert_eq!(
        session.welcome.map(|welcome| welcome.resume),
        Some(Resume::Delta)
    );
    assert_eq!(session.changes_received, 1, "the new connection alone");
    assert_eq!(node.operations(), operations + 1);
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_return_brings_what_was_missed() {
    let app = TestApp::start().await;
    let mut node = app.node("fra").await;
    let user = app.user().await;
    let first = user.connected(&json!({})).await;
    let second = user.connected(&json!({})).await;
    node.stop().await;
    user.disconnected(first.connection_id).await;
    node.start();
    wait_until("the missed removal arrives", SOON, async || {
        node.connections() == [second.connection_id]
    })
    .await;
    let session = node.session();
    assert_eq!(
        session.welcome.map(|welcome| welcome.resume),
        Some(Resume::Delta)
    );
    assert_eq!(session.changes_received, 1);
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_hash_gets_a_snapshot_that_keeps_addresses() {
    let app = TestApp::start().await;
    let mut node = app.node("fra").await;
    let user = app.user().await;
    let tunnels = [
        user.connected(&json!({})).await,
        user.connected(&json!({})).await,
    ];
    node.stop().await;
    let lost = node.peer_of(tunnels[0].connection_id).expect("held");
    node.forget(lost.peer);
    node.start();
    wait_until("the lost peer is back", SOON, async || {
        node.peer_count() == 2
    })
    .await;
    let session = node.session();
    assert_eq!(
        session.welcome.map(|welcome| welcome.resume),
        Some(Resume::Snapshot)
    );
    for tunnel in &tunnels {
        let peer = node.peer_of(tunnel.connection_id).expect("held");
        assert_eq!(
            peer.addresses.v4, tunnel.assigned_ip,
            "an address once given stays"
        );
    }
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_everything_gets_everything() {
    let app = TestApp::start().await;
    let mut node = app.node("fra").await;
    let user = app.user().await;
    let tunnel = user.connected(&json!({})).await;
    node.stop().await;
    let mut reborn = node.twin();
    reborn.start();
    wait_until("the peer is there", SOON, async || {
        reborn.connections() == [tunnel.connection_id]
    })
    .await;
    let peer = reborn.peer_of(tunnel.connection_id).expect("held");
    assert_eq!(peer.addresses.v4, tunnel.assigned_ip);
    app.finish(&[&reborn]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resync_is_answered_with_a_snapshot() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let user = app.user().await;
    let tunnel = user.connected(&json!({})).await;
    let before = node.session().changes_received;
    node.send(Message::text(AgentMessage::Resync.encode()))
        .await;
    wait_until("a snapshot comes", SOON, async || {
        node.session().changes_received > before
    })
    .await;
    assert_eq!(node.connections(), [tunnel.connection_id]);
    assert_eq!(node.operations(), 1);
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_renewed_within_the_session() {
    let app = TestApp::start().await;
    let mut node = app.node("fra").await;
    let old = node.token();
    node.send(Message::text(AgentMessage::RenewToken.encode()))
        .await;
    wait_until("a new token comes", SOON, async || node.token() != old).await;
    assert!(node.token().expires_at >= old.expires_at);
    reconnect(&mut node).await;
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_of_the_plane_tells_its_nodes() {
    let mut app = TestApp::start().await;
    let node = app.node("fra").await;
    let user = app.user().await;
    user.connected(&json!({})).await;
    app.stop_replica(0).await;
    wait_until("the node is told", SOON, async || {
        node.session().close_code == Some(close::RESTARTING)
    })
    .await;
    assert_eq!(node.peer_count(), 1, "a tunnel outlives the plane");
    app.finish(&[]).await;
}
