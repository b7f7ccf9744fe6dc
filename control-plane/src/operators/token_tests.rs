use biscuit_auth::builder::BlockBuilder;
use chrono::Duration;
use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::config::Config;

const RIGHTS: [&str; 4] = ["users:read", "users:write", "roles:write", "audit:read"];

fn keys(current: &str, old: &str) -> MasterKeys {
    let variables = [
        ("DEBUG", "true"),
        ("DATABASE_URL", "postgres://localhost/x"),
        ("SECRET_KEY", current),
        ("SECRET_KEYS_OLD", old),
    ];
    let variables = variables
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    Config::read(&variables.collect()).unwrap().app.keys
}

const SECRET: &str = "the secret key of this year in force";
const FORMER: &str = "the secret key of last year retired";

fn authority() -> Authority {
    Authority::new(&keys(SECRET, "")).unwrap()
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

fn set(rights: &[&str]) -> BTreeSet<String> {
    rights.iter().map(|right| (*right).to_owned()).collect()
}

fn grant(rights: &[&str]) -> Grant {
    Grant {
        id: Uuid::from_u128(1),
        name: "ci".to_owned(),
        rights: set(rights),
        expires_at: now() + Duration::hours(8),
    }
}

fn token(rights: &[&str]) -> String {
    authority().mint(&grant(rights)).unwrap()
}

fn wish(right: &str) -> Wish<'_> {
    Wish {
        right,
        resource: None,
        now: now(),
    }
}

fn verdict(token: &str, wish: Wish<'_>) -> String {
    match authority().authorize(token, wish) {
        Ok(id) => {
            assert_eq!(id, Uuid::from_u128(1));
            "allowed".to_owned()
        }
        Err(error) => format!("{error:?}"),
    }
}

fn with_block(token: &str, block: BlockBuilder) -> String {
    let token = UnverifiedBiscuit::from_base64(token).unwrap();
    token.append(block).unwrap().to_base64().unwrap()
}

#[rstest]
#[case(&["users:read"], "users:read", "allowed")]
#[case(&["users:read", "audit:read"], "audit:read", "allowed")]
#[case(&["users:read"], "users:write", "Denied")]
#[case(&[], "users:read", "Denied")]
fn a_token_allows_its_rights(#[case] rights: &[&str], #[case] right: &str, #[case] found: &str) {
    assert_eq!(verdict(&token(rights), wish(right)), found);
}

#[test]
fn a_token_ends() {
    let token = token(&["users:read"]);
    let at = |seconds: i64| Wish {
        now: now() + Duration::seconds(seconds),
        ..wish("users:read")
    };
    assert_eq!(verdict(&token, at(8 * 3600 - 1)), "allowed");
    assert_eq!(verdict(&token, at(8 * 3600)), "Expired");
}

#[test]
fn an_attenuated_token_ends_earlier() {
    let shorter = Restriction {
        expires_at: Some(now() + Duration::hours(1)),
        ..Restriction::default()
    };
    let token = attenuate(&token(&["users:read"]), &shorter).unwrap();
    assert_eq!(verdict(&token, wish("users:read")), "allowed");
    let later = Wish {
        now: now() + Duration::hours(1),
        ..wish("users:read")
    };
    assert_eq!(verdict(&token, later), "Expired");
}

#[test]
fn a_token_for_one_person_lists_nobody() {
    let anna = Uuid::from_u128(7);
    let only = Restriction {
        resource: Some(anna),
        ..Restriction::default()
    };
    let token = attenuate(&token(&["users:read"]), &only).unwrap();
    let on = |resource| Wish {
        resource,
        ..wish("users:read")
    };
    assert_eq!(verdict(&token, on(Some(anna))), "allowed");
    assert_eq!(verdict(&token, on(Some(Uuid::from_u128(8)))), "Denied");
    assert_eq!(verdict(&token, on(None)), "Denied");
}

#[rstest]
#[case::rights(block!(r#"right("users:write");"#))]
#[case::operations(block!(r#"operation("users:read");"#))]
#[case::a_rule(block!(r#"right($x) <- operation($x);"#))]
#[case::another_operator(block!(r#"operator("00000000-0000-0000-0000-000000000002");"#))]
#[case::a_check_that_holds(block!("check if true;"))]
fn an_appended_fact_is_not_believed(#[case] block: BlockBuilder) {
    let token = with_block(&token(&["users:read"]), block);
    assert_eq!(verdict(&token, wish("users:write")), "Denied");
    assert_eq!(verdict(&token, wish("users:read")), "allowed");
}

#[test]
fn a_restriction_is_not_undone_by_facts_after_it() {
    let anna = Uuid::from_u128(7);
    let only = Restriction {
        resource: Some(anna),
        rights: set(&["users:read"]),
        ..Restriction::default()
    };
    let token = attenuate(&token(&["users:read", "users:write"]), &only).unwrap();
    let id = anna.to_string();
    let token = with_block(
        &token,
        block!(r#"resource({id}); operation("users:read"); operation("users:write");"#),
    );
    assert_eq!(verdict(&token, wish("users:read")), "Denied");
    assert_eq!(verdict(&token, wish("users:write")), "Denied");
}

/// A part signed by a key of the holder's own is worth no more than one without.
#[test]
fn a_third_party_grants_nothing() {
    let stranger = KeyPair::new();
    let held = UnverifiedBiscuit::from_base64(token(&["users:read"])).unwrap();
    let part = held
        .third_party_request()
        .unwrap()
        .create_block(&stranger.private(), block!(r#"right("users:write");"#))
        .unwrap()
        .serialize()
        .unwrap();
    let wider = held.append_third_party(&part).unwrap().to_base64().unwrap();
    assert_eq!(verdict(&wider, wish("users:write")), "Denied");
}

#[rstest]
#[case::empty(String::new(), "Malformed")]
#[case::garbage("garbage".to_owned(), "Malformed")]
#[case::not_base64("ä".repeat(40), "Malformed")]
#[case::huge("A".repeat(MAX_TOKEN_LENGTH + 1), "Malformed")]
#[case::cut_short(token(&["users:read"])[..100].to_owned(), "Malformed")]
#[case::forged(Authority::new(&keys(FORMER, "")).unwrap().mint(&grant(&["users:read"])).unwrap(), "Forged")]
fn what_is_no_token_of_ours_is_refused(#[case] token: String, #[case] reason: &str) {
    assert_eq!(verdict(&token, wish("users:read")), reason);
}

#[test]
fn a_token_outlives_its_key_for_as_long_as_that_is_named() {
    let old = Authority::new(&keys(FORMER, "")).unwrap();
    let token = old.mint(&grant(&["users:read"])).unwrap();
    let rotated = Authority::new(&keys(SECRET, FORMER)).unwrap();
    assert!(rotated.authorize(&token, wish("users:read")).is_ok());
    let forgotten = authority().authorize(&token, wish("users:read"));
    assert!(
        matches!(forgotten, Err(TokenError::Forged)),
        "{forgotten:?}"
    );
}

#[test]
fn a_node_token_of_the_same_secret_is_no_operator() {
    let config = Config::read(
        &[
            ("DEBUG", "true"),
            ("DATABASE_URL", "postgres://localhost/x"),
            ("SECRET_KEY", SECRET),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into(),
    );
    let identity = crate::fleet::identity::Identity::new(&config.unwrap().nodes).unwrap();
    let node = crate::fleet::identity::NodeIdentity {
        server: shared::ids::ServerId::generate(),
        epoch: 1,
    };
    let token = identity.node_token(node, now()).unwrap().token;
    assert_eq!(verdict(&token, wish("users:read")), "Forged");
}

#[test]
fn the_key_is_not_printed_and_the_token_can_be_read() {
    assert_eq!(format!("{:?}", authority()), "Authority(redacted)");
    let parts = inspect(&token(&["users:read"])).unwrap();
    assert_eq!(parts.len(), 1);
    assert!(parts[0].contains(r#"right("users:read")"#), "{parts:?}");
}

fn some_rights() -> impl Strategy<Value = BTreeSet<String>> {
    prop::sample::subsequence(RIGHTS.to_vec(), 0..=RIGHTS.len()).prop_map(|rights| set(&rights))
}

fn restriction() -> impl Strategy<Value = Restriction> {
    let end = prop::option::of((-10_i64..20).prop_map(|hours| now() + Duration::hours(hours)));
    let resource = prop::option::of((1_u128..4).prop_map(Uuid::from_u128));
    (some_rights(), end, resource).prop_map(|(rights, expires_at, resource)| Restriction {
        rights,
        expires_at,
        resource,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Each step allows at most what the one before it did.
    #[test]
    fn an_attenuation_only_narrows(
        rights in some_rights(),
        steps in prop::collection::vec(restriction(), 1..4),
        right in prop::sample::select(RIGHTS.to_vec()),
        resource in prop::option::of((1_u128..4).prop_map(Uuid::from_u128)),
    ) {
        let authority = authority();
        let wish = Wish { right, resource, now: now() };
        let mut token = authority.mint(&Grant { rights: rights.clone(), ..grant(&[]) }).unwrap();
        let mut expected = rights.contains(right);
        prop_assert_eq!(authority.authorize(&token, wish).is_ok(), expected);
        for step in steps {
            token = attenuate(&token, &step).unwrap();
            expected = expected
                && (step.rights.is_empty() || step.rights.contains(right))
                && step.expires_at.is_none_or(|end| now() < end)
                && (step.resource.is_none() || step.resource == resource);
            prop_assert_eq!(authority.authorize(&token, wish).is_ok(), expected);
        }
    }
}
