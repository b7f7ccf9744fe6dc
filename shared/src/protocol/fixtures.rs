//! What every released version sent, and that this one still reads and writes it.
//!
//! A fixture is never edited after its version's release: a change that breaks one breaks the nodes
//! out there.

mod v1;
mod v2;

use std::fmt::Debug;

use proptest::prelude::*;
use rstest::rstest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::counters::CountersFrame;
use super::enrolment::{EnrolRequest, EnrolResponse};
use super::*;
use crate::ids::{Generation, PeerId, Revision};
use v1::{
    ALICE, addresses, applied, apply, bare_hello, bare_load, hello, load, parse, peer, refused,
    snapshot, token, welcome,
};

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("fixtures/v1/", $name, ".json"))
    };
}

fn holds<T: Serialize + DeserializeOwned + PartialEq + Debug>(fixture: &str, value: &T) {
    let read = serde_json::from_str(fixture).map_err(DecodeError::from);
    is(fixture, value, read);
}

fn is<T: Serialize + PartialEq + Debug>(fixture: &str, value: &T, read: Result<T, DecodeError>) {
    assert_eq!(&read.expect("this version reads the fixture"), value);
    let fixture: Value = serde_json::from_str(fixture).expect("JSON");
    assert_eq!(serde_json::to_value(value).expect("JSON"), fixture);
}

#[rstest]
#[case(fixture!("hello"), AgentMessage::Hello(hello()))]
#[case(fixture!("hello_without_options"), AgentMessage::Hello(bare_hello()))]
#[case(fixture!("applied"), AgentMessage::Applied(applied()))]
#[case(fixture!("load"), AgentMessage::Load(load()))]
#[case(fixture!("load_without_options"), AgentMessage::Load(bare_load()))]
#[case(fixture!("resync"), AgentMessage::Resync)]
#[case(fixture!("renew_token"), AgentMessage::RenewToken)]
fn agents_of_version_1_are_understood(#[case] fixture: &str, #[case] message: AgentMessage) {
    is(fixture, &message, AgentMessage::decode(fixture));
    assert_eq!(
        AgentMessage::decode(&message.encode()).expect("decodes"),
        message
    );
}

#[rstest]
#[case(fixture!("welcome"), welcome(Resume::Delta, 44, 1000))]
#[case(fixture!("welcome_with_snapshot"), welcome(Resume::Snapshot, 0, 250))]
#[case(fixture!("refused"), refused(RefusedReason::UnsupportedProtocol, "this plane speaks 2 to 3"))]
#[case(fixture!("refused_unauthorized"), refused(RefusedReason::Unauthorized, "the token was revoked"))]
#[case(fixture!("snapshot"), snapshot())]
#[case(fixture!("apply"), apply())]
#[case(fixture!("token"), PlaneMessage::Token(token()))]
fn planes_of_version_1_are_understood(#[case] fixture: &str, #[case] message: PlaneMessage) {
    is(fixture, &message, PlaneMessage::decode(fixture));
    assert_eq!(
        PlaneMessage::decode(&message.encode()).expect("decodes"),
        message
    );
}

#[test]
fn enrolment_of_version_1_is_understood() {
    let hello = hello();
    let request = EnrolRequest {
        hostname: "vpn1".into(),
        agent_version: hello.agent_version,
        public_key: hello.public_key,
        endpoint: hello.endpoint,
        subnet: hello.subnet,
        subnet_v6: hello.subnet_v6,
        capacity: hello.capacity,
    };
    holds(fixture!("enrol_request"), &request);
    let response = EnrolResponse {
        server_id: parse("0193a1f0-0000-7000-8000-000000000004"),
        token: token(),
    };
    holds(fixture!("enrol_response"), &response);
}

#[test]
fn counters_of_version_1_are_understood() {
    let counters = |generation, sent, received, last_handshake| PeerCounters {
        generation: Generation(generation),
        sent,
        received,
        last_handshake,
    };
    let frame = CountersFrame {
        taken_at: 1_800_000_000,
        entries: vec![
            (
                PeerId(36),
                counters(1, 300, 5_000_000_000, Some(1_799_999_940)),
            ),
            (PeerId(37), counters(2, 0, 0, None)),
            (
                PeerId(1_000_000),
                counters(u32::MAX, u64::MAX, 1, Some(1_800_000_000)),
            ),
        ],
        consumed: Vec::new(),
    };
    let bytes = hex(include_str!("fixtures/v1/counters.hex"));
    assert_eq!(CountersFrame::decode(&bytes).expect("decodes"), frame);
    assert_eq!(frame.encode(), bytes);
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|it| it.to_digit(16)).collect();
    digits
        .chunks(2)
        .map(|pair| u8::try_from(pair[0] * 16 + pair[1]).expect("a byte"))
        .collect()
}

/// Adds a field that this version does not know to every object.
fn extend(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(extend);
            fields.insert("of_a_later_version".into(), json!({"x": [1]}));
        }
        Value::Array(items) => items.iter_mut().for_each(extend),
        _ => {}
    }
}

#[rstest]
#[case(fixture!("hello"))]
#[case(fixture!("applied"))]
#[case(fixture!("load"))]
#[case(fixture!("resync"))]
#[case(fixture!("renew_token"))]
fn fields_of_later_agents_are_ignored(#[case] fixture: &str) {
    let mut later: Value = serde_json::from_str(fixture).expect("JSON");
    extend(&mut later);
    assert_eq!(
        AgentMessage::decode(&later.to_string()).expect("decodes"),
        AgentMessage::decode(fixture).expect("decodes")
    );
}

#[rstest]
#[case(fixture!("welcome"))]
#[case(fixture!("refused"))]
#[case(fixture!("snapshot"))]
#[case(fixture!("apply"))]
#[case(fixture!("token"))]
fn fields_of_later_planes_are_ignored(#[case] fixture: &str) {
    let mut later: Value = serde_json::from_str(fixture).expect("JSON");
    extend(&mut later);
    assert_eq!(
        PlaneMessage::decode(&later.to_string()).expect("decodes"),
        PlaneMessage::decode(fixture).expect("decodes")
    );
}

#[rstest]
#[case::first(r#"{"type":"resync"}"#, true)]
#[case::with_more(r#"{"type":"resync","later":{"type":"load"}}"#, true)]
#[case::elsewhere(r#" { "later": [1], "type": "resync" } "#, true)]
#[case::escaped(r#"{"type":"re\u0073ync"}"#, true)]
#[case::cut(r#"{"type":"resync""#, false)]
#[case::followed(r#"{"type":"resync"} x"#, false)]
#[case::unknown_and_cut(r#"{"type":"later","#, false)]
#[case::none(r#"{"later":1}"#, false)]
#[case::no_object("[]", false)]
fn the_type_may_stand_anywhere(#[case] text: &str, #[case] is_one: bool) {
    let read = AgentMessage::decode(text).ok();
    assert_eq!(read, is_one.then_some(AgentMessage::Resync));
}

#[test]
fn variants_of_later_versions_are_unknown_and_spoil_nothing_beside_them() {
    let message = r#"{"type":"of_a_later_version","peers":[1,2]}"#;
    assert_eq!(
        AgentMessage::decode(message).expect("decodes"),
        AgentMessage::Unknown
    );
    assert_eq!(
        PlaneMessage::decode(message).expect("decodes"),
        PlaneMessage::Unknown
    );

    let apply = r#"{"type":"apply","from":1,"to":3,"changes":[
        {"op":"of_a_later_version","peer":2,"x":{}},{"op":"remove","peer":3}]}"#;
    let PlaneMessage::Apply(apply) = PlaneMessage::decode(apply).expect("decodes") else {
        panic!("no apply");
    };
    let known = Change::Remove { peer: PeerId(3) };
    assert_eq!(apply.changes, [Change::Unknown, known]);

    let applied = r#"{"type":"applied","revision":3,
        "state_hash":"00000000000000000000000000000000","results":[
        {"peer":1,"status":"of_a_later_version","x":1},
        {"peer":2,"status":"failed","reason":"of_a_later_version"}]}"#;
    let AgentMessage::Applied(applied) = AgentMessage::decode(applied).expect("decodes") else {
        panic!("no applied");
    };
    let outcomes: Vec<_> = applied.results.into_iter().map(|it| it.outcome).collect();
    let reason = FailureReason::Unknown;
    assert_eq!(outcomes, [Outcome::Unknown, Outcome::Failed { reason }]);

    let refused = r#"{"type":"refused","reason":"of_a_later_version","message":""}"#;
    assert!(matches!(
        PlaneMessage::decode(refused).expect("decodes"),
        PlaneMessage::Refused(Refused {
            reason: RefusedReason::Unknown,
            ..
        })
    ));
}

#[rstest]
#[case::empty("")]
#[case::not_json("hello")]
#[case::not_an_object("[1]")]
#[case::no_type(r#"{"from":1}"#)]
#[case::cut_short(r#"{"type":"apply","from":1"#)]
#[case::wrong_type(r#"{"type":"apply","from":"one","to":2,"changes":[]}"#)]
#[case::negative(r#"{"type":"apply","from":-1,"to":2,"changes":[]}"#)]
#[case::bad_key(
    r#"{"type":"snapshot","revision":1,"part":0,"last":true,"peers":[{"peer":1,
    "connection":"0193a1f0-0000-7000-8000-000000000002","public_key":"AAAA"}]}"#
)]
#[case::trailing(r#"{"type":"apply","from":1,"to":2,"changes":[]} {}"#)]
fn what_is_no_message_is_refused(#[case] text: &str) {
    assert!(matches!(
        PlaneMessage::decode(text),
        Err(DecodeError::Json(_))
    ));
}

#[test]
fn oversized_frames_are_refused_unread() {
    let text = format!(
        r#"{{"type":"resync","pad":"{}"}}"#,
        "x".repeat(MAX_FRAME_BYTES)
    );
    let refused = Err::<(), _>(text.len());
    let size = |error| match error {
        DecodeError::TooLarge(size) => size,
        other => panic!("{other}"),
    };
    assert_eq!(
        AgentMessage::decode(&text).map(|_| ()).map_err(size),
        refused
    );
    assert_eq!(
        PlaneMessage::decode(&text).map(|_| ()).map_err(size),
        refused
    );
    let frame = vec![1; text.len()];
    assert_eq!(
        CountersFrame::decode(&frame).map(|_| ()).map_err(size),
        refused
    );
}

#[test]
fn the_largest_messages_fit_the_frame() {
    let result = PeerResult {
        peer: PeerId(u64::MAX),
        outcome: Outcome::Removed {
            counters: Some(PeerCounters {
                generation: Generation(u32::MAX),
                sent: u64::MAX,
                received: u64::MAX,
                last_handshake: Some(u64::MAX),
            }),
        },
    };
    let applied = AgentMessage::Applied(Applied {
        results: vec![result; MAX_PEERS_PER_MESSAGE],
        ..applied()
    });
    assert!(applied.encode().len() <= MAX_FRAME_BYTES);
    let peer = Peer {
        peer: PeerId(u64::MAX),
        addresses: Some(addresses(
            "255.255.255.255",
            Some("fd70:7276:706e:ffff:ffff:ffff:ffff:ffff"),
        )),
        limits: Limits {
            download_bps: Some(u64::MAX),
            upload_bps: Some(u64::MAX),
            allowance: Some(u64::MAX),
        },
        ..peer()
    };
    let apply = PlaneMessage::Apply(Apply {
        from: Revision(u64::MAX),
        to: Revision(u64::MAX),
        changes: vec![Change::Upsert(peer); MAX_PEERS_PER_MESSAGE],
    });
    assert!(apply.encode().len() <= MAX_FRAME_BYTES);
}

#[test]
fn secrets_are_not_printed() {
    let shown = format!("{:?} {:?}", snapshot(), PlaneMessage::Token(token()));
    assert!(
        !shown.contains("AQEB") && !shown.contains("an-opaque-token"),
        "{shown}"
    );
}

/// Any JSON, with the protocol's own words likely.
fn garbage() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "type",
        "apply",
        "snapshot",
        "applied",
        "changes",
        "op",
        "upsert",
        "peer",
        "peers",
        "results",
        "status",
        "active",
        "revision",
        "from",
        "to",
        "addresses",
        "v4",
        ALICE,
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((word.clone(), inner), 0..6).prop_map(|fields| {
                fields
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect()
            }),
        ]
    })
}

proptest! {
    #[test]
    fn garbage_never_panics(text in any::<String>(), json in garbage()) {
        for text in [text, json.to_string()] {
            let _ = AgentMessage::decode(&text);
            let _ = PlaneMessage::decode(&text);
        }
    }

    #[test]
    fn damaged_messages_never_panic(
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        for fixture in [fixture!("snapshot"), fixture!("apply"), fixture!("applied"), fixture!("hello")] {
            let mut bytes = fixture.as_bytes().to_vec();
            let place = place.index(bytes.len());
            bytes[place] = byte;
            bytes.truncate(cut.index(bytes.len() * 2));
            let text = String::from_utf8_lossy(&bytes);
            let _ = AgentMessage::decode(&text);
            let _ = PlaneMessage::decode(&text);
        }
    }
}
