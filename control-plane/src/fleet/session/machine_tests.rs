//! The machine's tables.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use chrono::DateTime;
use rstest::rstest;
use shared::ids::{ConnectionId, PeerId, Revision, SessionId};
use shared::protocol::counters::CountersFrame;
use shared::protocol::*;
use shared::wireguard::PublicKey;
use uuid::Uuid;

use super::machine::*;
use crate::fleet::desired::{Changes, Snapshot};

fn peer(number: u64) -> Peer {
    Peer {
        peer: PeerId(number),
        connection: ConnectionId(Uuid::from_u128(number.into())),
        public_key: PublicKey::from_bytes([1; 32]),
        preshared_key: None,
        addresses: None,
        not_after: None,
        limits: Limits::default(),
    }
}

fn changes(to: u64, numbers: &[u64], more: bool) -> Changes {
    Changes {
        to: Revision(to),
        changes: numbers
            .iter()
            .map(|number| Change::Upsert(peer(*number)))
            .collect(),
        more,
    }
}

fn snapshot(revision: u64, peers: u64) -> Snapshot {
    Snapshot {
        revision: Revision(revision),
        peers: (1..=peers).map(peer).collect(),
    }
}

fn active(number: u64) -> PeerResult {
    let addresses = Addresses {
        v4: Ipv4Addr::new(10, 8, 0, 2),
        v6: None,
    };
    PeerResult {
        peer: PeerId(number),
        outcome: Outcome::Active { addresses },
    }
}

fn applied(revision: u64, numbers: &[u64]) -> String {
    AgentMessage::Applied(Applied {
        revision: Revision(revision),
        state_hash: StateHash::default(),
        results: numbers.iter().map(|number| active(*number)).collect(),
        timings: Timings {
            total_us: 5,
            ..Timings::default()
        },
    })
    .encode()
}

fn open(applied: u64, resumption: Resumption, now: Instant) -> Machine {
    open_as(1, Settings::default(), applied, resumption, now)
}

fn open_as(
    protocol: u16,
    settings: Settings,
    applied: u64,
    resumption: Resumption,
    now: Instant,
) -> Machine {
    let opened = Opened {
        session: SessionId(Uuid::nil()),
        protocol,
        report_interval: Duration::from_secs(1),
        server_time: DateTime::UNIX_EPOCH,
        applied: Revision(applied),
        state_hash: StateHash::default(),
        revision: Revision(applied),
        resumption,
        settings,
    };
    Machine::open(opened, now)
}

/// A session that resumed at revision 10 and found nothing to read.
fn quiet(now: Instant) -> Machine {
    let mut machine = open(10, Resumption::Delta(Vec::new()), now);
    drain(&mut machine);
    machine.handle_changes(changes(10, &[], false), now);
    assert_eq!(drain(&mut machine), []);
    machine
}

fn drain(machine: &mut Machine) -> Vec<Output> {
    std::iter::from_fn(|| machine.poll()).collect()
}

fn sent(outputs: &[Output]) -> Vec<(u64, u64, usize)> {
    outputs
        .iter()
        .filter_map(|output| match output {
            Output::Send(PlaneMessage::Apply(apply)) => {
                Some((apply.from.0, apply.to.0, apply.changes.len()))
            }
            _ => None,
        })
        .collect()
}

fn closes(outputs: &[Output]) -> Option<u16> {
    match outputs.last() {
        Some(Output::Close(close)) => Some(close.code),
        _ => None,
    }
}

#[test]
fn a_delta_resends_the_unacknowledged_and_then_reads_on() {
    let now = Instant::now();
    let lost = vec![Change::Upsert(peer(9))];
    let mut machine = open(10, Resumption::Delta(lost), now);
    let outputs = drain(&mut machine);
    assert!(
        matches!(&outputs[0], Output::Send(PlaneMessage::Welcome(welcome)) if welcome.resume == Resume::Delta)
    );
    assert_eq!(sent(&outputs), [(10, 10, 1)]);
    assert_eq!(outputs[2], Output::ReadChanges(Revision(10)));
}

#[rstest]
#[case::empty(0, &[0])]
#[case::one_part(500, &[500])]
#[case::two_parts(501, &[500, 1])]
fn a_snapshot_comes_in_parts(#[case] peers: u64, #[case] parts: &[usize]) {
    let now = Instant::now();
    let mut machine = open(0, Resumption::Snapshot(snapshot(20, peers)), now);
    let outputs = drain(&mut machine);
    let seen: Vec<_> = outputs
        .iter()
        .filter_map(|output| match output {
            Output::Send(PlaneMessage::Snapshot(part)) => Some(part),
            _ => None,
        })
        .collect();
    assert_eq!(
        seen.iter().map(|part| part.peers.len()).collect::<Vec<_>>(),
        parts
    );
    assert!(
        seen.iter()
            .zip(0..)
            .all(|(part, number)| part.part == number)
    );
    assert_eq!(seen.iter().filter(|part| part.last).count(), 1);
    assert!(seen.last().is_some_and(|part| part.last));
}

#[test]
fn nothing_is_pushed_until_a_snapshot_is_applied() {
    let now = Instant::now();
    let mut machine = open(0, Resumption::Snapshot(snapshot(20, 1)), now);
    drain(&mut machine);
    machine.handle_wake(now, now);
    assert_eq!(drain(&mut machine), []);
    machine.handle_text(&applied(20, &[1]), now);
    let outputs = drain(&mut machine);
    assert!(matches!(
        &outputs[..],
        [Output::Store(_), Output::ReadChanges(Revision(20))]
    ));
}

#[test]
fn wakes_during_a_read_are_one_more_read() {
    let now = Instant::now();
    let mut machine = quiet(now);
    machine.handle_wake(now, now);
    assert_eq!(drain(&mut machine), [Output::ReadChanges(Revision(10))]);
    for _ in 0..5 {
        machine.handle_wake(now, now);
    }
    assert_eq!(drain(&mut machine), []);
    machine.handle_changes(changes(12, &[11, 12], false), now);
    let outputs = drain(&mut machine);
    assert_eq!(sent(&outputs), [(10, 12, 2)]);
    assert_eq!(outputs[1..], [Output::ReadChanges(Revision(12))]);
    machine.handle_changes(changes(12, &[], false), now);
    assert_eq!(drain(&mut machine), []);
}

#[test]
fn pushes_wait_for_the_node() {
    let now = Instant::now();
    let mut machine = quiet(now);
    machine.handle_wake(now, now);
    for to in 11..=14 {
        assert_eq!(
            drain(&mut machine).last(),
            Some(&Output::ReadChanges(Revision(to - 1)))
        );
        machine.handle_changes(changes(to, &[to], true), now);
    }
    assert_eq!(
        sent(&drain(&mut machine)),
        [(13, 14, 1)],
        "and no further read"
    );
    machine.handle_text(&applied(11, &[11]), now);
    let outputs = drain(&mut machine);
    assert!(matches!(
        &outputs[..],
        [Output::Store(_), Output::ReadChanges(Revision(14))]
    ));
}

#[test]
fn acknowledgements_are_stored_together_and_timed() {
    let start = Instant::now();
    let mut machine = quiet(start);
    let at = |millis| start + Duration::from_millis(millis);
    machine.handle_wake(start, at(1));
    machine.handle_changes(changes(11, &[11], false), at(2));
    machine.handle_wake(at(2), at(2));
    machine.handle_changes(changes(13, &[12, 13], false), at(3));
    drain(&mut machine);
    machine.handle_text(&applied(11, &[11]), at(6));
    let outputs = drain(&mut machine);
    let Output::Store(batch) = &outputs[0] else {
        panic!("{outputs:?}");
    };
    assert_eq!(batch.results, [active(11)]);
    assert_eq!(
        (batch.timings.queue_us, batch.timings.round_trip_us),
        (2_000, 4_000)
    );
    assert_eq!(batch.timings.agent.total_us, 5);

    machine.handle_text(&applied(13, &[12]), at(7));
    machine.handle_text(&applied(13, &[13]), at(7));
    assert_eq!(drain(&mut machine), [], "one store at a time");
    machine.handle_stored(at(8));
    let outputs = drain(&mut machine);
    assert!(
        matches!(&outputs[..], [Output::Store(batch)] if batch.results == [active(12), active(13)])
    );
    assert_eq!(machine.position().1, Revision(13));
}

#[test]
fn what_could_not_be_stored_or_read_is_tried_again_a_second_later() {
    let start = Instant::now();
    let mut machine = quiet(start);
    machine.handle_wake(start, start);
    machine.handle_changes(changes(11, &[11], false), start);
    machine.handle_text(&applied(11, &[11]), start);
    machine.handle_wake(start, start);
    drain(&mut machine);
    machine.handle_store_failed(start);
    machine.handle_read_failed(start);
    machine.handle_text(&applied(11, &[]), start);
    assert_eq!(drain(&mut machine), []);
    let retry = start + Duration::from_secs(1);
    assert!(machine.timeout() <= retry);
    machine.handle_timeout(retry);
    let outputs = drain(&mut machine);
    assert!(
        outputs
            .iter()
            .any(|it| matches!(it, Output::Store(batch) if batch.results == [active(11)]))
    );
    assert!(outputs.contains(&Output::ReadChanges(Revision(11))));
}

#[test]
fn a_resync_is_answered_by_one_snapshot() {
    let now = Instant::now();
    let mut machine = quiet(now);
    machine.handle_wake(now, now);
    machine.handle_changes(changes(11, &[11], false), now);
    machine.handle_wake(now, now);
    drain(&mut machine);
    let resync = AgentMessage::Resync.encode();
    machine.handle_text(&resync, now);
    machine.handle_text(&resync, now);
    assert_eq!(drain(&mut machine), [], "a read of changes is under way");
    machine.handle_changes(changes(12, &[12], false), now);
    assert_eq!(
        drain(&mut machine),
        [Output::ReadSnapshot],
        "and is thrown away"
    );
    machine.handle_snapshot(snapshot(12, 2), now);
    machine.handle_text(&resync, now);
    let outputs = drain(&mut machine);
    assert!(
        matches!(&outputs[..], [Output::Send(PlaneMessage::Snapshot(_))]),
        "{outputs:?}"
    );
}

#[test]
fn pings_and_ends_a_silent_session() {
    let start = Instant::now();
    let mut machine = quiet(start);
    machine.handle_timeout(start);
    let outputs = drain(&mut machine);
    let Some(Output::Ping(payload)) = outputs.first() else {
        panic!("{outputs:?}");
    };
    machine.handle_pong(payload, start + Duration::from_millis(3));
    assert_eq!(
        drain(&mut machine),
        [Output::RoundTrip(Duration::from_millis(3))]
    );
    machine.handle_timeout(start + Duration::from_secs(14));
    assert_eq!(closes(&drain(&mut machine)), None);
    machine.handle_timeout(start + Duration::from_secs(16));
    assert_eq!(closes(&drain(&mut machine)), Some(close::TIMED_OUT));
}

#[rstest]
#[case::garbage("garbage")]
#[case::not_an_object("[]")]
#[case::no_type("{}")]
#[case::cut_short(r#"{"type":"applied","revision":"#)]
#[case::from_the_future(&applied(11, &[11]))]
#[case::oversized(&"x".repeat(MAX_FRAME_BYTES + 1))]
fn a_bad_frame_ends_the_session(#[case] text: &str) {
    let now = Instant::now();
    let mut machine = quiet(now);
    machine.handle_text(text, now);
    assert_eq!(closes(&drain(&mut machine)), Some(close::BAD_FRAME));
    machine.handle_text("garbage", now);
    machine.handle_wake(now, now);
    assert_eq!(drain(&mut machine), [], "once");
}

#[test]
fn unknown_messages_of_later_versions_are_ignored() {
    let now = Instant::now();
    let mut machine = quiet(now);
    machine.handle_text(r#"{"type":"of_tomorrow","x":1}"#, now);
    assert_eq!(drain(&mut machine), []);
}

/// The socket answers the ping when what came before it was put out.
#[test]
fn an_answered_ping_says_that_the_counters_before_it_were_taken() {
    let now = Instant::now();
    let mut machine = quiet(now);
    let frame = CountersFrame {
        taken_at: 5,
        entries: Vec::new(),
        consumed: Vec::new(),
    };
    machine.handle_binary(&frame.encode(), now);
    assert_eq!(drain(&mut machine), [Output::Counters(frame)]);
    machine.handle_sign_of_life(now);
    assert_eq!(drain(&mut machine), []);
}

#[test]
fn garbage_counters_end_the_session() {
    let now = Instant::now();
    let mut machine = quiet(now);
    machine.handle_binary(&[1, 0, 0], now);
    assert!(matches!(drain(&mut machine)[..], [Output::Counters(_)]));
    machine.handle_binary(&[9, 9], now);
    assert_eq!(closes(&drain(&mut machine)), Some(close::BAD_FRAME));
}

#[rstest]
#[case(-3.0, 0.0)]
#[case(42.5, 42.5)]
#[case(1e9, 100.0)]
fn a_load_is_held_to_its_bounds(#[case] said: f64, #[case] taken: f64) {
    let now = Instant::now();
    let mut machine = quiet(now);
    let load = Load {
        current_load: said,
        ..Load::default()
    };
    machine.handle_text(&AgentMessage::Load(load).encode(), now);
    let outputs = drain(&mut machine);
    assert!(matches!(&outputs[..], [Output::Load(load)] if load.current_load == taken));
}

#[test]
fn a_node_that_floods_with_results_is_cut_off() {
    let now = Instant::now();
    let mut machine = quiet(now);
    let numbers: Vec<u64> = (0..1_000).collect();
    let flood = applied(10, &numbers);
    for _ in 0..22 {
        machine.handle_text(&flood, now);
    }
    assert_eq!(closes(&drain(&mut machine)), Some(close::TIMED_OUT));
}

#[test]
fn what_is_looked_at_is_told_once_a_second_and_what_is_measured_comes_out() {
    let start = Instant::now();
    let mut machine = open(10, Resumption::Delta(Vec::new()), start);
    drain(&mut machine);
    machine.handle_looked_at(vec![PeerId(1)], start);
    assert_eq!(drain(&mut machine), [], "version 1 knows nothing of it");

    let resumption = Resumption::Delta(Vec::new());
    let mut machine = open_as(2, Settings::default(), 10, resumption, start);
    drain(&mut machine);
    let watch = |numbers: &[u64]| {
        let peers = numbers.iter().copied().map(PeerId).collect();
        Output::Send(PlaneMessage::Watch(Watch { peers }))
    };
    machine.handle_looked_at(vec![PeerId(1)], start);
    assert_eq!(drain(&mut machine), [watch(&[1])]);
    machine.handle_looked_at(vec![PeerId(1), PeerId(2)], start);
    assert_eq!(drain(&mut machine), []);
    let later = start + Duration::from_secs(1);
    assert!(machine.timeout() <= later);
    machine.handle_timeout(later);
    assert!(drain(&mut machine).contains(&watch(&[1, 2])));

    let trips = RoundTrips {
        peers: vec![(PeerId(1), 25_000)],
    };
    machine.handle_text(&AgentMessage::RoundTrips(trips.clone()).encode(), later);
    assert_eq!(drain(&mut machine), [Output::RoundTrips(trips)]);
}

const DRAINED: Settings = Settings {
    draining: true,
    rotate_key_at: None,
};

fn next_key() -> NextKey {
    NextKey {
        public_key: PublicKey::from_bytes([9; 32]),
        at: DateTime::UNIX_EPOCH,
    }
}

/// A session of the second version that found nothing to read.
fn quiet_second(settings: Settings, now: Instant) -> Machine {
    let mut machine = open_as(2, settings, 10, Resumption::Delta(Vec::new()), now);
    drain(&mut machine);
    machine.handle_changes(changes(10, &[], false), now);
    assert_eq!(drain(&mut machine), []);
    machine
}

#[rstest]
#[case::knows_no_settings(1, None)]
#[case::is_told_after_the_welcome(2, Some(DRAINED))]
fn settings_follow_the_welcome(#[case] protocol: u16, #[case] told: Option<Settings>) {
    let now = Instant::now();
    let mut machine = open_as(
        protocol,
        DRAINED,
        0,
        Resumption::Snapshot(snapshot(9, 1)),
        now,
    );
    let outputs = drain(&mut machine);
    let sent: Vec<_> = outputs
        .iter()
        .map(|output| match output {
            Output::Send(PlaneMessage::Welcome(_)) => "welcome",
            Output::Send(PlaneMessage::Settings(_)) => "settings",
            Output::Send(PlaneMessage::Snapshot(_)) => "snapshot",
            other => panic!("{other:?}"),
        })
        .collect();
    let expected: &[_] = match told {
        Some(_) => &["welcome", "settings", "snapshot"],
        None => &["welcome", "snapshot"],
    };
    assert_eq!((sent.as_slice(), machine.settings()), (expected, told));
}

#[test]
fn settings_are_read_at_a_signal_and_said_when_they_differ() {
    let now = Instant::now();
    let mut machine = quiet_second(Settings::default(), now);
    machine.handle_settings_signal(now);
    assert_eq!(drain(&mut machine), [Output::ReadSettings]);
    machine.handle_settings_signal(now);
    assert_eq!(drain(&mut machine), [], "one read at a time");
    machine.handle_settings(DRAINED, now);
    assert_eq!(
        drain(&mut machine),
        [
            Output::Send(PlaneMessage::Settings(DRAINED)),
            Output::ReadSettings
        ]
    );
    machine.handle_settings(DRAINED, now);
    assert_eq!(drain(&mut machine), [], "the node knows");
}

#[test]
fn a_read_of_settings_that_failed_is_tried_again_a_second_later() {
    let start = Instant::now();
    let mut machine = quiet_second(Settings::default(), start);
    machine.handle_settings_signal(start);
    drain(&mut machine);
    machine.handle_settings_failed(start);
    machine.handle_settings_signal(start);
    assert_eq!(drain(&mut machine), []);
    machine.handle_timeout(start + Duration::from_secs(1));
    assert!(drain(&mut machine).contains(&Output::ReadSettings));
}

#[test]
fn an_old_agents_settings_are_not_even_read() {
    let now = Instant::now();
    let mut machine = quiet(now);
    machine.handle_settings_signal(now);
    machine.handle_text(&AgentMessage::NextKey(next_key()).encode(), now);
    assert_eq!(drain(&mut machine), []);
}

#[test]
fn a_next_key_is_stored_until_it_is() {
    let start = Instant::now();
    let mut machine = quiet_second(Settings::default(), start);
    machine.handle_text(&AgentMessage::NextKey(next_key()).encode(), start);
    assert_eq!(drain(&mut machine), [Output::StoreNextKey(next_key())]);
    machine.handle_next_key_failed(start);
    assert_eq!(drain(&mut machine), []);
    machine.handle_timeout(start + Duration::from_secs(1));
    assert!(drain(&mut machine).contains(&Output::StoreNextKey(next_key())));
    machine.handle_next_key_stored(start);
    assert_eq!(drain(&mut machine), []);
}
