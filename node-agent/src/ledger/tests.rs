//! The ledger on a real disk, whole and damaged.

use super::*;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use shared::ids::{ConnectionId, Generation, PeerId, Revision, ServerId};
use shared::protocol::{Addresses, Limits, NodeToken, PeerCounters, Settings};
use shared::wireguard::{PresharedKey, PrivateKey};
use uuid::Uuid;

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).expect("in range")
}

fn record(n: u8) -> PeerRecord {
    PeerRecord {
        connection: ConnectionId::generate(),
        public_key: PrivateKey::generate().public_key(),
        preshared_key: Some(PresharedKey::generate()),
        addresses: Addresses {
            v4: Ipv4Addr::new(10, 8, 0, n),
            v6: None,
        },
        not_after: Some(now()),
        generation: Generation(3),
        limits: Limits {
            download_bps: Some(10_000_000),
            upload_bps: None,
            allowance: Some(50),
        },
    }
}

fn counted(generation: u32) -> PeerCounters {
    PeerCounters {
        generation: Generation(generation),
        sent: 7,
        received: 8,
        last_handshake: Some(9),
    }
}

#[test]
fn everything_survives_a_restart() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("state");
    let (two, three) = (record(2), record(3));
    let state = State {
        identity: Some(Identity {
            server_id: ServerId::generate(),
            token: NodeToken {
                token: "secret".into(),
                expires_at: now(),
            },
            received_at: now(),
        }),
        applied: Revision(9),
        interface: Some(Interface {
            boot_id: Uuid::new_v4(),
            index: 4,
            epoch: Uuid::new_v4(),
        }),
        draining: true,
        peers: Peers::from_iter([(PeerId(3), three.clone())]),
        quarantine: [(two.addresses.v4, now() + TimeDelta::milliseconds(1500))].into(),
        consumed: [(PeerId(3), 42)].into(),
        finals: [(
            PeerId(2),
            Final {
                generation: Generation(1),
                tunnel: Some(Tunnel {
                    public_key: two.public_key,
                    addresses: two.addresses,
                }),
                counters: None,
                consumed: 17,
                removed_at: now(),
            },
        )]
        .into(),
        settings: Settings {
            draining: true,
            rotate_key_at: Some(now()),
        },
        planned_key: Some(PlannedKey {
            asked: now(),
            at: now() + TimeDelta::seconds(10),
            public_key: record(9).public_key,
        }),
        rotated: Some(now() - TimeDelta::days(90)),
        ended: [((PeerId(3), Generation(2)), counted(2))].into(),
    };
    let (ledger, empty) = Ledger::open(&path).expect("opens");
    assert_eq!(empty, State::default());
    ledger
        .commit(&[
            Write::Identity(state.identity.clone().expect("set")),
            Write::Interface(state.interface.expect("set")),
            Write::Draining(true),
            Write::Settings(state.settings),
            Write::PlannedKey(state.planned_key.expect("set")),
            Write::Rotated(state.rotated.expect("set")),
            Write::Ended(PeerId(3), counted(1)),
            Write::Ended(PeerId(3), counted(2)),
            Write::NoEnded(PeerId(3), Generation(1)),
            Write::Quarantine(three.addresses.v4, now()),
            Write::Peer(PeerId(2), two.clone()),
            Write::Peer(PeerId(3), three),
            Write::Consumed(vec![(PeerId(2), 1), (PeerId(3), 42)]),
        ])
        .expect("commits");
    ledger
        .commit(&[
            Write::NoPeer(PeerId(2)),
            Write::Quarantine(two.addresses.v4, now() + TimeDelta::milliseconds(1500)),
            Write::Final(PeerId(2), state.finals[&PeerId(2)].clone()),
            Write::Final(PeerId(1), state.finals[&PeerId(2)].clone()),
            Write::NoFinal(PeerId(1)),
            Write::Applied(Revision(9)),
        ])
        .expect("commits");
    assert!(matches!(Ledger::open(&path), Err(LedgerError::InUse(_))));
    drop(ledger);
    let (ledger, restored) = Ledger::open(&path).expect("opens again");
    assert_eq!(restored, state);
    ledger.commit(&[Write::NoPlannedKey]).expect("commits");
    let (_, read) = read(&path.join(FILE)).expect("reads");
    assert_eq!(read.planned_key, None);
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&path.join(FILE)), 0o600);
}

#[test]
fn the_private_key_is_made_once_and_kept_to_itself() {
    let directory = tempfile::tempdir().expect("directory");
    let key = private_key(directory.path()).expect("made");
    assert_eq!(private_key(directory.path()).expect("read"), key);
    let path = directory.path().join(keys::KEY_FILE);
    let mode = fs::metadata(&path).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    fs::write(&path, "no key").expect("written");
    let error = private_key(directory.path()).expect_err("refused");
    assert!(error.to_string().contains("private.key"), "{error}");
}

#[test]
fn files_belong_to_the_directorys_owner() {
    let directory = tempfile::tempdir().expect("directory");
    // Only root can give the directory away; for anyone else the owners agree anyway.
    let _ = chown(directory.path(), Some(65_534), Some(65_534));
    let (ledger, _) = Ledger::open(directory.path()).expect("opens");
    private_key(directory.path()).expect("made");
    ledger.make_next_key().expect("made");
    let owner = |path: &Path| fs::metadata(path).expect("there").uid();
    for file in files(directory.path()) {
        assert_eq!(owner(&file), owner(directory.path()));
    }
    drop(ledger);
}

#[test]
fn a_foreign_file_is_named_with_what_to_do() {
    let directory = tempfile::tempdir().expect("directory");
    fs::write(directory.path().join(FILE), "this is a diary, not a ledger").expect("written");
    let error = Ledger::open(directory.path())
        .expect_err("refused")
        .to_string();
    assert!(
        error.contains(FILE) && error.contains("enrol again"),
        "{error}"
    );
}

/// The peers that a reader of the file finds, in order.
fn held(directory: &Path) -> Vec<u64> {
    let (_, state) = read(&directory.join(FILE)).expect("reads");
    let mut held: Vec<_> = state.peers.keys().map(|peer| peer.0).collect();
    held.sort_unstable();
    held
}

/// A ledger with a commit for each of these peers.
fn with_peers(directory: &Path, peers: impl IntoIterator<Item = u8>) -> Ledger {
    let (ledger, _) = Ledger::open(directory).expect("opens");
    for n in peers {
        let write = Write::Peer(PeerId(n.into()), record(n));
        ledger.commit(&[write]).expect("commits");
    }
    ledger
}

#[test]
fn what_is_written_is_read_before_it_is_on_disk() {
    let directory = tempfile::tempdir().expect("directory");
    let ledger = with_peers(directory.path(), []);
    let write = Write::Peer(PeerId(2), record(2));
    let unsynced = ledger.append(&[write]).expect("writes");
    assert_eq!(held(directory.path()), [2]);
    drop(ledger);
    // Whoever still waits for the disk does not keep the next agent from starting.
    let (_ledger, state) = Ledger::open(directory.path()).expect("opens");
    assert_eq!(state.peers.len(), 1);
    unsynced.sync().expect("syncs");
}

#[test]
fn a_commit_that_a_crash_tore_is_none_and_the_next_takes_its_place() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join(FILE);
    drop(with_peers(directory.path(), [2]));
    let whole = fs::metadata(&path).expect("there").len();
    drop(with_peers(directory.path(), [3]));
    let bytes = fs::read(&path).expect("reads");
    let cut = usize::try_from(whole).expect("small");
    for length in cut + 1..bytes.len() {
        fs::write(&path, &bytes[..length]).expect("writes");
        drop(with_peers(directory.path(), []));
        assert_eq!(fs::metadata(&path).expect("there").len(), whole);
    }
    // The size was on disk and the content was not.
    let mut blank = bytes.clone();
    blank[cut..].fill(0);
    fs::write(&path, blank).expect("writes");
    drop(with_peers(directory.path(), [4]));
    assert_eq!(held(directory.path()), [2, 4]);
}

#[test]
fn a_commit_that_others_follow_is_damage_where_it_is_not_whole() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join(FILE);
    drop(with_peers(directory.path(), [2]));
    let place = usize::try_from(fs::metadata(&path).expect("there").len()).expect("small");
    drop(with_peers(directory.path(), [3, 4]));
    let bytes = fs::read(&path).expect("reads");
    for (offset, value) in [(0, 0xff), (3, 0xff), (5, 1), (40, 9)] {
        let mut damaged = bytes.clone();
        damaged[place + offset] ^= value;
        fs::write(&path, damaged).expect("writes");
        let opened = Ledger::open(directory.path());
        assert!(
            matches!(opened, Err(LedgerError::Damaged { .. })),
            "{offset}: {opened:?}"
        );
    }
}

#[test]
fn what_is_past_is_left_out_once_it_is_most_of_the_file() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join(FILE);
    let size = || fs::metadata(&path).expect("there").len();
    let ledger = with_peers(directory.path(), [2, 3]);
    ledger.tidy().expect("nothing to do");
    let many: Vec<_> = (0..10_000).map(|n| (PeerId(n), n)).collect();
    while !ledger.is_long() {
        ledger
            .commit(&[Write::Consumed(many.clone()), Write::NoPeer(PeerId(3))])
            .expect("commits");
    }
    let (before, long) = (read(&path).expect("reads").1, size());
    ledger.tidy().expect("tidies");
    assert!(
        size() < long / 2 && !ledger.is_long(),
        "{} of {long}",
        size()
    );
    assert_eq!(read(&path).expect("reads").1, before);
    let write = Write::Peer(PeerId(4), record(4));
    ledger.commit(&[write]).expect("commits");
    assert!(matches!(
        Ledger::open(directory.path()),
        Err(LedgerError::InUse(_))
    ));
    drop(ledger);
    assert_eq!(held(directory.path()), [2, 4]);
    // Nobody tidied for long: a commit of any length is read.
    let long: Vec<_> = (0..40_000).map(|n| (PeerId(n), n)).collect();
    let (ledger, _) = Ledger::open(directory.path()).expect("opens");
    ledger.commit(&[Write::Consumed(long)]).expect("commits");
    drop(ledger);
    let (_ledger, state) = Ledger::open(directory.path()).expect("opens");
    assert_eq!(state.consumed.len(), 40_000);
}

#[test]
fn what_a_later_version_adds_is_passed_over() {
    let mut bytes = vec![200, 3, 0, 0, 0, 1, 2, 3];
    entry::encode(&Write::Applied(Revision(7)), &mut bytes).expect("writes");
    let mut state = State::default();
    entry::decode(&bytes, &mut state).expect("reads");
    assert_eq!(state.applied, Revision(7));
}

#[test]
fn what_an_older_agent_wrote_of_an_end_has_no_tunnel() {
    let old = r#"{"generation":1,"counters":null,"removed_at":"2026-03-01T12:00:00Z"}"#;
    let last: Final = serde_json::from_str(old).expect("reads");
    assert_eq!((last.consumed, last.tunnel), (0, None));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// A damaged file may lose its content to a clear error, never to a panic.
    #[test]
    fn damage_never_panics(
        places in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..64),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let directory = tempfile::tempdir().expect("directory");
        let (ledger, _) = Ledger::open(directory.path()).expect("opens");
        let writes: Vec<_> = (2..50).map(|n| Write::Peer(PeerId(n.into()), record(n))).collect();
        ledger.commit(&writes).expect("commits");
        drop(ledger);
        let path = directory.path().join(FILE);
        let mut bytes = fs::read(&path).expect("reads");
        let length = bytes.len();
        for (place, value) in places {
            bytes[place.index(length)] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(length));
        }
        fs::write(&path, bytes).expect("writes");
        let opened = Ledger::open(directory.path());
        let used = opened.and_then(|(ledger, _)| ledger.commit(&writes));
        prop_assert!(matches!(used, Ok(()) | Err(LedgerError::Damaged { .. })), "{used:?}");
    }

    #[test]
    fn garbage_is_no_panic_either(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = entry::decode(&bytes, &mut State::default());
    }
}
