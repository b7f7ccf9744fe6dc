//! Which tier of servers the plans of those who asked lately open, so that asking again costs no query.
//!
//! What is said here is advice: connect reads the plan anew. A change of somebody's plan is told to every
//! replica; a word that was lost counts for [`LIFE`].

use std::sync::Mutex;
use std::time::{Duration, Instant};

use foldhash::HashMap;
use shared::ids::UserId;

use super::lock;

/// How long a tier is known.
const LIFE: Duration = Duration::from_secs(60);
/// People who are kept: some 6 MB.
const CAPACITY: usize = 100_000;

#[derive(Debug, Default)]
pub struct Tiers(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    of: HashMap<UserId, Kept>,
    /// How often something was forgotten.
    changes: u64,
}

#[derive(Debug)]
struct Kept {
    tier: i16,
    until: Instant,
}

/// Held while somebody's tier is read: what is read while plans change is not kept.
#[derive(Debug)]
pub struct Reading(u64);

impl Tiers {
    #[must_use]
    pub fn get(&self, user: UserId, now: Instant) -> Option<i16> {
        let known = lock(&self.0);
        let kept = known.of.get(&user).filter(|kept| kept.until > now)?;
        Some(kept.tier)
    }

    /// Call it before the tier is read.
    #[must_use]
    pub fn reading(&self) -> Reading {
        Reading(lock(&self.0).changes)
    }

    /// What was read, and how long it is so at the most, where that is known.
    pub fn keep(
        &self,
        Reading(began): Reading,
        user: UserId,
        tier: i16,
        left: Option<Duration>,
        now: Instant,
    ) {
        let mut known = lock(&self.0);
        if known.changes != began {
            return;
        }
        if known.of.len() >= CAPACITY {
            known.of.retain(|_, kept| kept.until > now);
        }
        if known.of.len() < CAPACITY {
            let until = now + left.map_or(LIFE, |left| left.min(LIFE));
            known.of.insert(user, Kept { tier, until });
        }
    }

    /// This person's plan changed, or everybody's may have.
    pub(super) fn forget(&self, user: Option<UserId>) {
        let mut known = lock(&self.0);
        known.changes = known.changes.wrapping_add(1);
        match user {
            Some(user) => drop(known.of.remove(&user)),
            None => known.of.clear(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_is_known_until_it_ends_and_no_longer_than_its_life() {
        let (tiers, now) = (Tiers::default(), Instant::now());
        let (one, other) = (UserId::generate(), UserId::generate());
        let short = Duration::from_secs(5);
        tiers.keep(tiers.reading(), one, 1, Some(LIFE * 2), now);
        tiers.keep(tiers.reading(), other, 2, Some(short), now);
        assert_eq!(
            (tiers.get(one, now), tiers.get(other, now)),
            (Some(1), Some(2))
        );
        assert_eq!(tiers.get(other, now + short), None);
        assert_eq!(tiers.get(one, now + short), Some(1));
        assert_eq!(tiers.get(one, now + LIFE), None);
    }

    #[test]
    fn a_change_is_forgotten_even_where_it_is_just_being_read() {
        let (tiers, now) = (Tiers::default(), Instant::now());
        let (one, other) = (UserId::generate(), UserId::generate());
        tiers.keep(tiers.reading(), one, 1, None, now);
        tiers.keep(tiers.reading(), other, 1, None, now);
        let old = tiers.reading();
        tiers.forget(Some(one));
        tiers.keep(old, one, 1, None, now);
        assert_eq!(
            (tiers.get(one, now), tiers.get(other, now)),
            (None, Some(1))
        );
        tiers.forget(None);
        assert_eq!(tiers.get(other, now), None);
    }

    #[test]
    fn many_people_take_no_more_room() {
        let (tiers, now) = (Tiers::default(), Instant::now());
        for _ in 0..=CAPACITY {
            tiers.keep(tiers.reading(), UserId::generate(), 0, None, now);
        }
        assert_eq!(lock(&tiers.0).of.len(), CAPACITY);
        tiers.keep(tiers.reading(), UserId::generate(), 0, None, now + LIFE);
        assert_eq!(lock(&tiers.0).of.len(), 1);
    }
}
