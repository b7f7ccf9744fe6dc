//! The ledger on a real disk, whole and damaged.

use super::*;
use chrono::TimeDelta;
use proptest::prelude::*;
use shared::wireguard::{PresharedKey, PrivateKey};

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
        peers: [(PeerId(3), three.clone())].into(),
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
    assert_eq!(ledger.read().expect("reads").planned_key, None);
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

#[test]
fn a_ledger_of_another_format_is_named_with_what_to_do() {
    let directory = tempfile::tempdir().expect("directory");
    let (ledger, _) = Ledger::open(directory.path()).expect("opens");
    let transaction = ledger
        .database()
        .expect("open")
        .begin_write()
        .expect("begins");
    transaction
        .open_table(META)
        .expect("table")
        .insert("applied", b"{".as_slice())
        .expect("inserts");
    transaction.commit().expect("commits");
    drop(ledger);
    let error = Ledger::open(directory.path())
        .expect_err("refused")
        .to_string();
    assert!(
        error.contains(FILE) && error.contains("enrol again"),
        "{error}"
    );
}

#[test]
fn what_an_older_agent_wrote_has_no_limits() {
    let old = r#"{"connection":"0193a1f0-0000-7000-8000-000000000002",
        "public_key":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
        "addresses":{"v4":"10.8.0.2"},"generation":3}"#;
    let peer: PeerRecord = serde_json::from_str(old).expect("reads");
    assert!(peer.limits.are_none());
    let written = serde_json::to_string(&peer).expect("writes");
    assert!(!written.contains("limits"), "{written}");
    let old = r#"{"generation":1,"counters":null,"removed_at":"2026-03-01T12:00:00Z"}"#;
    let last: Final = serde_json::from_str(old).expect("reads");
    assert_eq!(last.consumed, 0);

    let directory = tempfile::tempdir().expect("directory");
    let (ledger, _) = Ledger::open(directory.path()).expect("opens");
    let transaction = ledger
        .database()
        .expect("open")
        .begin_write()
        .expect("begins");
    let bytes = old.as_bytes();
    transaction
        .open_table(FINALS)
        .expect("table")
        .insert(4, bytes)
        .expect("inserts");
    transaction.delete_table(CONSUMED).expect("deletes");
    transaction.commit().expect("commits");
    drop(ledger);
    let (_ledger, state) = Ledger::open(directory.path()).expect("opens");
    assert_eq!(state.finals, [(PeerId(4), last)].into());
    assert_eq!(state.consumed, HashMap::new());
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
        let length = bytes.len().min(64 * 1024);
        for (place, value) in places {
            bytes[place.index(length)] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(length));
        }
        fs::write(&path, bytes).expect("writes");
        let opened = Ledger::open(directory.path());
        let used = opened.and_then(|(ledger, _)| ledger.commit(&writes));
        prop_assert!(matches!(used, Ok(()) | Err(LedgerError::Damaged { .. } | LedgerError::Storage(_))), "{used:?}");
    }
}
