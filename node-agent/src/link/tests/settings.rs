//! What the operator wants of the node as a whole, over the wire.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use shared::ids::PeerId;
use shared::protocol::{AgentMessage, Hello, NextKey, PlaneMessage, RoundTrips, Settings, Watch};

use super::rig::{Agent, Plane, Side, peer, upserts, world};
use crate::ledger::{Ledger, PlannedKey, Write};
use crate::link::LinkState;
use crate::wireguard::fake::FakeDevice;

async fn next_key(side: &mut Side) -> NextKey {
    side.until(|message| match message {
        AgentMessage::NextKey(next) => Some(*next),
        _ => None,
    })
    .await
}

async fn draining(side: &mut Side, expected: bool) {
    side.until(|message| match message {
        AgentMessage::Load(load) => (load.draining == expected).then_some(()),
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn settings_are_taken_and_told_again_in_the_next_hello() {
    let ((directory, device), plane) = (world(), Plane::new().await);
    let agent = Agent::start(&directory, &device, &plane).await;
    let (mut side, hello) = plane.welcome(0).await;
    assert_eq!((hello.draining, hello.next_key), (false, None));
    let settings = Settings {
        draining: true,
        rotate_key_at: Some(Utc::now() + TimeDelta::hours(24)),
    };
    side.send(&PlaneMessage::Settings(settings)).await;
    let next = next_key(&mut side).await;
    assert_eq!(Some(next.at), settings.rotate_key_at);
    draining(&mut side, true).await;
    agent.stop().await;

    let agent = Agent::start(&directory, &device, &plane).await;
    let (mut side, hello) = plane.welcome(0).await;
    assert_eq!((hello.draining, hello.next_key), (true, Some(next)));
    side.send(&PlaneMessage::Settings(Settings::default()))
        .await;
    draining(&mut side, false).await;
    agent.stop().await;
}

fn key(device: &FakeDevice) -> shared::wireguard::PublicKey {
    let setup = device.setup().expect("an interface");
    setup.private_key.public_key()
}

#[tokio::test]
async fn a_session_ends_with_the_key_and_the_next_one_tells_the_new_one() {
    let ((directory, device), plane) = (world(), Plane::new().await);
    let next = {
        let (ledger, _) = Ledger::open(directory.path()).expect("ledger");
        let planned = PlannedKey {
            asked: Utc::now(),
            at: Utc::now() + TimeDelta::milliseconds(700),
            public_key: ledger.make_next_key().expect("made"),
        };
        ledger
            .commit(&[Write::PlannedKey(planned)])
            .expect("commits");
        planned
    };
    let mut agent = Agent::start(&directory, &device, &plane).await;
    let (mut side, hello) = plane.welcome(1).await;
    let expected = NextKey {
        public_key: next.public_key,
        at: next.at,
    };
    assert_eq!(hello.next_key, Some(expected));
    side.send(&upserts(0, 1, &[peer(1)])).await;
    let before = side.applied().await;
    assert_eq!(key(&device), hello.public_key);
    assert_eq!(side.closed().await, 1000);
    assert!(Utc::now() >= next.at);

    let told = |hello: &Hello| (hello.public_key, hello.next_key);
    let (_side, hello) = plane.welcome(1).await;
    assert_eq!(told(&hello), (next.public_key, None));
    assert_eq!(hello.state_hash, before.state_hash);
    assert_eq!(key(&device), next.public_key);
    agent
        .until(|it| matches!(it.state, LinkState::Connected { .. }))
        .await;
    agent.stop().await;
}

#[tokio::test]
async fn the_key_changes_without_a_plane_too() {
    let ((directory, device), plane) = (world(), Plane::new().await);
    let (ledger, _) = Ledger::open(directory.path()).expect("ledger");
    let planned = PlannedKey {
        asked: Utc::now(),
        at: Utc::now() + TimeDelta::milliseconds(300),
        public_key: ledger.make_next_key().expect("made"),
    };
    ledger
        .commit(&[Write::PlannedKey(planned)])
        .expect("commits");
    drop(ledger);
    // Nobody accepts what the agent dials.
    let agent = Agent::start(&directory, &device, &plane).await;
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while key(&device) != planned.public_key {
        assert!(std::time::Instant::now() < deadline, "the key stays");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(Utc::now() >= planned.at);
    agent.stop().await;
}

#[tokio::test]
async fn round_trips_are_reported_while_somebody_is_watched() {
    let ((directory, device), plane) = (world(), Plane::new().await);
    let agent = Agent::start(&directory, &device, &plane).await;
    let (mut side, _) = plane.welcome(1).await;
    side.send(&upserts(0, 1, &[peer(1)])).await;
    side.applied().await;
    let peers = vec![PeerId(1)];
    side.send(&PlaneMessage::Watch(Watch { peers })).await;
    // This agent has no interface to ask through: nobody answers.
    let trips = side
        .until(|message| match message {
            AgentMessage::RoundTrips(trips) => Some(trips.clone()),
            _ => None,
        })
        .await;
    assert_eq!(trips, RoundTrips::default());
    side.send(&PlaneMessage::Watch(Watch::default())).await;
    let mut quiet = 0;
    while quiet < 3 {
        let is_trips = side
            .until(|message| match message {
                AgentMessage::RoundTrips(_) => Some(true),
                AgentMessage::Load(_) => Some(false),
                _ => None,
            })
            .await;
        quiet = if is_trips { 0 } else { quiet + 1 };
    }
    agent.stop().await;
}
