//! The node measures the way to a client through the tunnel.

use std::time::Duration;

use serde_json::json;
use shared::ids::PeerId;
use shared::protocol::{AgentMessage, Outcome, PlaneMessage, Watch};
use tests::lab::{Stage, Wire, World};

/// The peer that the node acknowledged last.
async fn newest(wire: &Wire) -> PeerId {
    wire.hear("the acknowledgement", |message| match message {
        AgentMessage::Applied(applied) => {
            let active = |outcome: &Outcome| matches!(outcome, Outcome::Active { .. });
            let mut results = applied.results.iter();
            results.find(|it| active(&it.outcome)).map(|it| it.peer)
        }
        _ => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_client_has_a_round_trip_and_others_have_none() {
    let mut stage = Stage::set().await;
    let wire = stage.wire().await;
    // A client that never comes, and one that is there.
    stage.user.connected(&json!({})).await;
    let absent = newest(&wire).await;
    wire.forget();
    let client = stage.client().await;
    stage.tunnel(&client).await;
    let present = newest(&wire).await;
    assert_ne!(present, absent);
    assert!(client.pings(&World::INTERNET.to_string(), Duration::from_secs(5)));

    let peers = vec![absent, present, PeerId(u64::MAX)];
    wire.say(PlaneMessage::Watch(Watch { peers }));
    let trips = wire
        .hear("a round trip", |message| match message {
            AgentMessage::RoundTrips(trips) if !trips.peers.is_empty() => Some(trips.clone()),
            _ => None,
        })
        .await;
    let [(peer, micros)] = trips.peers[..] else {
        panic!("one client answers, not {trips:?}");
    };
    assert_eq!(peer, present);
    assert!(micros > 0 && micros < 4_000_000, "{micros}");

    wire.say(PlaneMessage::Watch(Watch {
        peers: vec![absent],
    }));
    wire.forget();
    wire.hear("unanswered seconds", |message| match message {
        AgentMessage::RoundTrips(trips) => trips.peers.is_empty().then_some(()),
        _ => None,
    })
    .await;
}
