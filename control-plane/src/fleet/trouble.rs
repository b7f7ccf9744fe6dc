//! Why a server's clients are better off elsewhere. Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use shared::ids::ServerId;

use super::Fleet;
use super::lock;
use super::view::{Live, Server, ServerStatus};

/// The catalogue is read every few seconds; a longer gap says that this process was blind meanwhile.
const BLIND_AFTER: Duration = Duration::from_secs(15);

/// Why a server's clients are better off elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// The operator wants it empty.
    Draining,
    /// Its node is silent.
    Unreachable,
}

impl Trouble {
    /// The database's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Unreachable => "unreachable",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut known = [Self::Draining, Self::Unreachable].into_iter();
        known.find(|trouble| trouble.as_str() == text)
    }
}

/// What is wrong with a server, if anything. A node whose session just ended may be back at once, so
/// only silence for `patience` counts.
fn trouble_of(
    server: &Server,
    live: &Live,
    now: DateTime<Utc>,
    patience: TimeDelta,
) -> Option<Trouble> {
    if live.last_seen.is_none_or(|seen| now - seen > patience) {
        Some(Trouble::Unreachable)
    } else if server.status != ServerStatus::Active || server.is_drained || live.draining {
        Some(Trouble::Draining)
    } else {
        None
    }
}

/// Since when this process has read the catalogue without a break. Whoever was blind for a while finds
/// every node silent that reports to another replica.
#[derive(Debug, Default)]
pub(super) struct Sight(Option<Seeing>);

#[derive(Debug, Clone, Copy)]
struct Seeing {
    since: Instant,
    last: Instant,
}

impl Sight {
    pub(super) fn read(&mut self, now: Instant) {
        let unbroken = self
            .0
            .filter(|seeing| now.saturating_duration_since(seeing.last) < BLIND_AFTER);
        let since = unbroken.map_or(now, |seeing| seeing.since);
        self.0 = Some(Seeing { since, last: now });
    }

    pub(super) const fn failed(&mut self) {
        self.0 = None;
    }

    fn is_clear_for(&self, patience: Duration, now: Instant) -> bool {
        self.0.is_some_and(|seeing| {
            now.saturating_duration_since(seeing.since) >= patience
                && now.saturating_duration_since(seeing.last) < BLIND_AFTER
        })
    }
}

impl Fleet {
    /// The servers whose clients are better off elsewhere. A node counts as silent once it was so for
    /// `patience` under this process's eyes.
    #[must_use]
    pub fn troubles(&self, patience: Duration) -> HashMap<ServerId, Trouble> {
        let view = self.view();
        let troubles = view.servers().iter();
        troubles
            .filter_map(|server| Some((server.id, self.trouble(server, patience)?)))
            .collect()
    }

    /// The same of one server.
    #[must_use]
    pub fn trouble(&self, server: &Server, patience: Duration) -> Option<Trouble> {
        let limit = TimeDelta::from_std(patience).unwrap_or(TimeDelta::MAX);
        trouble_of(server, &server.live(), Utc::now(), limit).filter(|trouble| {
            *trouble == Trouble::Draining
                || lock(&self.sight).is_clear_for(patience, Instant::now())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::{online, profile};
    use super::super::view::{Live, Profile};
    use super::*;

    type Tweak = fn(&mut Profile, &mut Live);

    const TROUBLES: &[(&str, Tweak, Option<Trouble>)] = &[
        ("nothing wrong", |_, _| (), None),
        (
            "its session just ended",
            |_, live| live.replica = None,
            None,
        ),
        (
            "the agent drains",
            |_, live| live.draining = true,
            Some(Trouble::Draining),
        ),
        (
            "the operator drains",
            |profile, _| profile.is_drained = true,
            Some(Trouble::Draining),
        ),
        (
            "maintenance",
            |profile, _| profile.status = ServerStatus::Maintenance,
            Some(Trouble::Draining),
        ),
        (
            "switched off",
            |profile, _| profile.status = ServerStatus::Offline,
            Some(Trouble::Draining),
        ),
        ("silent in time", |_, live| age(live, 15), None),
        (
            "silent",
            |_, live| age(live, 16),
            Some(Trouble::Unreachable),
        ),
        (
            "drained and silent",
            |profile, live| {
                profile.is_drained = true;
                age(live, 16);
            },
            Some(Trouble::Unreachable),
        ),
        (
            "never seen",
            |_, live| live.last_seen = None,
            Some(Trouble::Unreachable),
        ),
    ];

    fn age(live: &mut Live, seconds: i64) {
        live.last_seen = live
            .last_seen
            .map(|seen| seen - TimeDelta::seconds(seconds));
    }

    #[test]
    fn tells_what_is_wrong() {
        let (now, patience) = (Utc::now(), TimeDelta::seconds(15));
        for (name, tweak, expected) in TROUBLES {
            let (mut profile, mut live) = (profile(1), online(now));
            tweak(&mut profile, &mut live);
            let server = Server::new(profile, live);
            assert_eq!(
                trouble_of(&server, &live, now, patience),
                *expected,
                "{name}"
            );
        }
    }

    #[test]
    fn words_are_read_back() {
        for trouble in [Trouble::Draining, Trouble::Unreachable] {
            assert_eq!(Trouble::parse(trouble.as_str()), Some(trouble));
        }
        assert_eq!(Trouble::parse("on fire"), None);
    }

    #[test]
    fn whoever_was_blind_has_to_look_for_a_while() {
        let (start, patience) = (Instant::now(), Duration::from_secs(15));
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut sight = Sight::default();
        assert!(!sight.is_clear_for(patience, start));
        for second in [0, 5, 10, 15] {
            sight.read(at(second));
        }
        assert!(sight.is_clear_for(patience, at(15)));
        assert!(
            !sight.is_clear_for(patience, at(40)),
            "the last is long ago"
        );
        sight.read(at(40));
        assert!(!sight.is_clear_for(patience, at(41)), "it begins anew");
        for second in [45, 50, 55] {
            sight.read(at(second));
        }
        assert!(sight.is_clear_for(patience, at(55)));
        sight.failed();
        sight.read(at(56));
        assert!(!sight.is_clear_for(patience, at(57)));
    }
}
