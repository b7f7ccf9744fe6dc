use std::collections::HashSet;

use super::*;
use crate::config::{Config, Variables};
use crate::db;

fn alerts() -> Alerts {
    let variables: Variables = [
        ("DEBUG", "true"),
        ("DATABASE_URL", "postgres://localhost/x"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let config = Config::read(&variables).unwrap();
    let keys = Arc::new(KeyRing::new(&config.app.keys).unwrap());
    Alerts::new(
        config.alerts,
        db::connect("postgres://localhost/x", 1),
        keys,
    )
}

#[tokio::test]
async fn signs_of_one_attack_add_up_and_others_stay_apart() {
    let alerts = alerts();
    let (ada, bob) = (UserId::generate(), UserId::generate());
    for reason in [
        Reason::Flood,
        Reason::Flood,
        Reason::Suspicious,
        Reason::Manual,
    ] {
        alerts.banned(reason);
    }
    for user in [ada, bob, ada] {
        alerts.guessed(user);
    }
    let kept = lock(&alerts.unwritten);
    let count = |kind, user| kept.get(&(kind, user)).map(|it| it.count);
    assert_eq!(kept.len(), 4);
    assert_eq!(count(AlertKind::Flood, None), Some(2));
    assert_eq!(count(AlertKind::Guessing, None), Some(1));
    assert_eq!(count(AlertKind::AccountGuessing, Some(ada)), Some(2));
    assert_eq!(count(AlertKind::AccountGuessing, Some(bob)), Some(1));
}

#[tokio::test]
async fn any_number_of_attacks_takes_bounded_room() {
    let alerts = alerts();
    for _ in 0..CAPACITY + 10 {
        alerts.guessed(UserId::generate());
    }
    alerts.banned(Reason::Flood);
    assert_eq!(lock(&alerts.unwritten).len(), CAPACITY);
}

#[test]
fn what_waited_joins_what_came_meanwhile() {
    let at = |seconds| DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds);
    let signs = |first, last, count| Signs {
        first: at(first),
        last: at(last),
        count,
    };
    let mut newer = signs(7, 9, 1);
    newer.join(signs(1, 5, 3));
    assert_eq!(newer, signs(1, 9, 4));
}

#[test]
fn a_kind_has_one_word() {
    let words: HashSet<_> = AlertKind::ALL.iter().map(|kind| kind.as_str()).collect();
    assert_eq!(words.len(), AlertKind::ALL.len());
    for kind in AlertKind::ALL {
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
    }
}
