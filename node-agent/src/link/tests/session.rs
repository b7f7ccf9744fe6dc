//! Sessions from the plane's side.

use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use futures_util::SinkExt;
use rstest::rstest;
use shared::ids::{PeerId, Revision};
use shared::protocol::{
    AgentMessage, Load, MAX_FRAME_BYTES, NodeToken, Outcome, PROTOCOL_VERSION, PlaneMessage,
    SnapshotPart, close,
};
use tokio_tungstenite::tungstenite::Message;

use super::rig::{Agent, Plane, identity, link_config, peer, removal, upserts, world};
use crate::ledger::{Identity, Ledger};
use crate::link::{LinkConfig, LinkState};

#[tokio::test]
async fn a_peer_that_the_plane_wants_is_acknowledged() {
    let ((directory, device), plane) = (world(), Plane::new().await);
    let mut agent = Agent::start(&directory, &device, &plane).await;
    let (mut side, hello) = plane.welcome(1).await;
    assert_eq!(side.bearer, "Bearer first");
    let newest = (PROTOCOL_VERSION, Revision(0));
    assert_eq!((hello.protocol, hello.applied_revision), newest);
    assert_eq!((hello.capacity, hello.backend.as_str()), (253, "fake"));
    side.send(&upserts(0, 1, &[peer(1)])).await;
    let applied = side.applied().await;
    assert_eq!(applied.revision, Revision(1));
    assert!(matches!(applied.results[0].outcome, Outcome::Active { .. }));
    assert!(applied.timings.total_us > 0);
    assert_eq!(device.operations().len(), 1);
    let status = agent
        .until(|it| matches!(it.state, LinkState::Connected { .. }))
        .await;
    assert_eq!(status.desired_revision, Some(Revision(1)));
    agent.stop().await;
    assert_eq!(side.closed().await, 1001);
}

#[tokio::test]
async fn a_restarted_agent_resumes_where_it_stood_without_an_operation() {
    let ((directory, device), plane) = (world(), Plane::new().await);
    let agent = Agent::start(&directory, &device, &plane).await;
    let (mut side, _) = plane.welcome(2).await;
    let peers = [peer(1), peer(2)];
    side.send(&upserts(0, 2, &peers)).await;
    let first = side.applied().await;
    agent.stop().await;
    let _ = device.take_operations();

    let agent = Agent::start(&directory, &device, &plane).await;
    let (mut side, hello) = plane.welcome(2).await;
    assert_eq!(hello.applied_revision, Revision(2));
    assert_eq!(hello.state_hash, first.state_hash);
    side.send(&upserts(2, 2, &peers)).await;
    assert_eq!(side.applied().await.results, first.results);
    assert_eq!(device.take_operations(), []);
    agent.stop().await;
}

#[tokio::test]
async fn a_gap_is_closed_by_a_snapshot_in_parts() {
    let ((directory, device), plane) = (world(), Plane::new().await);
    let agent = Agent::start(&directory, &device, &plane).await;
    let (mut side, _) = plane.welcome(9).await;
    side.send(&upserts(7, 9, &[peer(9)])).await;
    side.until(|message| matches!(message, AgentMessage::Resync).then_some(()))
        .await;
    for (part, id) in [(0, 1), (1, 2)] {
        let part = SnapshotPart {
            revision: Revision(9),
            part,
            last: part == 1,
            peers: vec![peer(id)],
        };
        side.send(&PlaneMessage::Snapshot(part)).await;
    }
    let applied = side.applied().await;
    assert_eq!((applied.revision, applied.results.len()), (Revision(9), 2));
    agent.stop().await;
}

#[tokio::test]
async fn counters_and_load_are_reported_and_repeated_in_a_new_session() {
    let ((directory, device), plane) = (world(), Plane::new().await);
    let agent = Agent::start(&directory, &device, &plane).await;
    let (mut side, _) = plane.welcome(2).await;
    let peers = [peer(1), peer(2)];
    side.send(&upserts(0, 2, &peers)).await;
    side.applied().await;
    device.transfer(&peers[1].public_key, 10, 20);
    let frame = side.counters().await;
    assert_eq!(frame.entries.len(), 1);
    let (id, counters) = frame.entries[0];
    assert_eq!((id, counters.sent, counters.received), (PeerId(2), 10, 20));
    let load: Load = side
        .until(|message| match message {
            AgentMessage::Load(load) => Some(load.clone()),
            _ => None,
        })
        .await;
    assert_eq!((load.peers, load.pool_used, load.capacity), (2, 2, 253));
    side.close(close::RESTARTING).await;
    let (mut side, _) = plane.welcome(2).await;
    assert_eq!(side.counters().await.entries, frame.entries);
    agent.stop().await;
}

#[tokio::test]
async fn the_last_counters_leave_before_the_agent_does() {
    let ((directory, device), plane) = (world(), Plane::new().await);
    let agent = Agent::start(&directory, &device, &plane).await;
    let (mut side, _) = plane.welcome(1).await;
    let one = peer(1);
    side.send(&upserts(0, 1, std::slice::from_ref(&one))).await;
    side.applied().await;
    device.transfer(&one.public_key, 77, 88);
    agent.stop().await;
    assert_eq!(side.counters().await.entries[0].1.sent, 77);
    assert!(device.setup().is_some(), "the interface stays");
}

#[tokio::test]
async fn final_counters_come_with_the_removal() {
    let ((directory, device), plane) = (world(), Plane::new().await);
    let agent = Agent::start(&directory, &device, &plane).await;
    let (mut side, _) = plane.welcome(1).await;
    let one = peer(1);
    side.send(&upserts(0, 1, std::slice::from_ref(&one))).await;
    side.applied().await;
    device.transfer(&one.public_key, 77, 88);
    side.send(&removal(1, 2, 1)).await;
    let Outcome::Removed {
        counters: Some(last),
    } = side.applied().await.results[0].outcome
    else {
        panic!("no counters");
    };
    assert_eq!((last.sent, last.received), (77, 88));
    agent.stop().await;
}

#[rstest]
#[case::not_json("hello".to_owned())]
#[case::empty(String::new())]
#[case::wrong_type(r#"{"type":"apply","from":"x"}"#.to_owned())]
#[case::oversized(format!(r#"{{"type":"later","pad":"{}"}}"#, "x".repeat(MAX_FRAME_BYTES)))]
#[case::out_of_order(r#"{"type":"snapshot","revision":1,"part":3,"last":true,"peers":[]}"#.to_owned())]
#[tokio::test]
async fn garbage_ends_the_session_and_not_the_agent(#[case] garbage: String) {
    let ((directory, device), plane) = (world(), Plane::new().await);
    let mut agent = Agent::start(&directory, &device, &plane).await;
    let (mut side, _) = plane.welcome(0).await;
    side.text(&garbage).await;
    assert_eq!(side.closed().await, close::BAD_FRAME);
    let status = agent.until(|it| it.last_error.is_some()).await;
    assert!(status.last_error.expect("set").contains("not the protocol"));
    let (mut side, _) = plane.welcome(1).await;
    side.send(&upserts(0, 1, &[peer(1)])).await;
    side.applied().await;
    agent.stop().await;
}

#[tokio::test]
async fn nothing_is_taken_before_the_welcome_and_later_messages_are_ignored() {
    let ((directory, device), plane) = (world(), Plane::new().await);
    let agent = Agent::start(&directory, &device, &plane).await;
    let mut side = plane.accept().await;
    side.text(r#"{"type":"of_a_later_version","x":1}"#).await;
    side.socket
        .send(Message::binary(vec![9]))
        .await
        .expect("sends");
    side.send(&upserts(0, 1, &[peer(1)])).await;
    assert_eq!(side.closed().await, close::BAD_FRAME);
    assert_eq!(device.operations(), []);
    agent.stop().await;
}

#[tokio::test]
async fn a_silent_plane_is_left_and_a_pinging_one_is_not() {
    let ((directory, device), plane) = (world(), Plane::new().await);
    let config = LinkConfig {
        silence: Duration::from_millis(300),
        ..link_config(&plane)
    };
    let agent = Agent::start_with(&directory, &device, config, identity()).await;
    let (mut side, _) = plane.welcome(0).await;
    let begin = Instant::now();
    let mut pongs = 0;
    while begin.elapsed() < Duration::from_millis(900) {
        side.socket
            .send(Message::Ping("x".into()))
            .await
            .expect("sends");
        while !matches!(side.frame().await, Message::Pong(_)) {}
        pongs += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(pongs > 3);
    assert_eq!(side.closed().await, close::TIMED_OUT);
    let (_side, _) = plane.welcome(0).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_refused_token_is_told_to_the_operator() {
    let ((directory, device), plane) = (world(), Plane::new().await);
    let mut agent = Agent::start(&directory, &device, &plane).await;
    plane.answer("401 Unauthorized", "").await;
    let status = agent.until(|it| it.last_error.is_some()).await;
    let told = status.last_error.expect("set");
    assert!(told.contains("node-agent enroll"), "{told}");
    agent.stop().await;
}

#[tokio::test]
async fn an_old_token_is_renewed_kept_and_used() {
    let ((directory, device), plane) = (world(), Plane::new().await);
    let old = Identity {
        received_at: Utc::now() - TimeDelta::hours(50),
        ..identity()
    };
    let agent = Agent::start_with(&directory, &device, link_config(&plane), old).await;
    let (mut side, _) = plane.welcome(0).await;
    side.until(|message| matches!(message, AgentMessage::RenewToken).then_some(()))
        .await;
    let token = NodeToken {
        token: "second".into(),
        expires_at: Utc::now() + TimeDelta::hours(24),
    };
    side.send(&PlaneMessage::Token(token.clone())).await;
    side.send(&upserts(0, 0, &[])).await;
    side.applied().await;
    side.close(close::RESTARTING).await;
    let (side, _) = plane.welcome(0).await;
    assert_eq!(side.bearer, "Bearer second");
    agent.stop().await;
    let (_ledger, stored) = Ledger::open(directory.path()).expect("ledger");
    assert_eq!(stored.identity.expect("kept").token, token);
}
