//! What the operator wants of the node as a whole, and the planned change of the interface's key.
//!
//! The next key is made when a rotation is planned, so that clients can learn it in time; it takes
//! over at the time by this host's clock, whether the plane is there or not. What must hold: a client
//! is told a key only when it is on disk; nobody is cut before the time; a crash at any point leaves
//! either key whole, and the next start goes on from there; peers, their keys, addresses and counters
//! stay. Setting a private key ends every session, so clients hand-shake anew with the key that they
//! were told.
//!
//! A plan is named by the time that the plane asked for. The plane repeats its settings at the start
//! of every session, and a plan that was carried out is not carried out again.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use shared::protocol::{AgentMessage, NextKey, Settings};
use tracing::{error, info, warn};

use super::handle::Outgoing;
use super::node::{Node, NodeError};
use crate::ledger::{self, Ledger, LedgerError, PlannedKey, Write};

/// Between a plan and its time at least: what is late is not done without a word.
const NOTICE: TimeDelta = TimeDelta::seconds(10);

/// The rotation that is ahead, and the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Rotation {
    planned: Option<PlannedKey>,
    /// The plan that was carried out last, by the time that the plane asked for.
    done: Option<DateTime<Utc>>,
}

/// What a wish of the plane's asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Keep,
    /// A new key is to take over.
    Plan(DateTime<Utc>),
    /// The key that was made takes over at another time.
    Move(PlannedKey),
    TakeBack,
}

impl Rotation {
    pub(super) fn restore(stored: &ledger::State) -> Self {
        Self {
            planned: stored.planned_key,
            done: stored.rotated,
        }
    }

    fn next_key(&self) -> Option<NextKey> {
        self.planned.map(|planned| NextKey {
            public_key: planned.public_key,
            at: planned.at,
        })
    }

    fn towards(&self, wanted: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Step {
        let wanted = wanted.filter(|wanted| self.done != Some(*wanted));
        match (self.planned, wanted) {
            (None, None) => Step::Keep,
            (Some(planned), Some(wanted)) if planned.asked == wanted => Step::Keep,
            (None, Some(wanted)) => Step::Plan(wanted),
            (Some(planned), Some(wanted)) => Step::Move(PlannedKey {
                asked: wanted,
                at: not_before(now, wanted),
                ..planned
            }),
            (Some(_), None) => Step::TakeBack,
        }
    }
}

fn not_before(now: DateTime<Utc>, wanted: DateTime<Utc>) -> DateTime<Utc> {
    wanted.max(now + NOTICE)
}

impl Node {
    /// Takes in what the plane wants of the node as a whole.
    pub(super) async fn take_settings(&mut self, settings: Settings) -> Result<(), NodeError> {
        let now = Utc::now();
        let mut writes = Vec::new();
        if self.state.settings != settings {
            writes.push(Write::Settings(settings));
            info!(event = "settings", draining = settings.draining, rotate_key_at = ?settings.rotate_key_at);
        }
        let step = self.rotation.towards(settings.rotate_key_at, now);
        let planned = match step {
            Step::Keep => self.rotation.planned,
            Step::TakeBack => None,
            Step::Move(planned) => Some(planned),
            Step::Plan(asked) => Some(PlannedKey {
                asked,
                at: not_before(now, asked),
                public_key: self.with_ledger(Ledger::make_next_key).await?,
            }),
        };
        if planned != self.rotation.planned {
            writes.push(planned.map_or(Write::NoPlannedKey, Write::PlannedKey));
            info!(event = "key_rotation_planned", at = ?planned.map(|planned| planned.at));
        }
        self.commit(writes).await?;
        self.state.settings = settings;
        self.rotation.planned = planned;
        if step == Step::TakeBack {
            self.with_ledger(Ledger::discard_next_key).await?;
        }
        if let Some(next) = self.next_key() {
            self.send(Outgoing::Message(AgentMessage::NextKey(next)));
        }
        Ok(())
    }

    /// At a start: a plan whose key is gone cannot be kept. The plane asks for it again.
    pub(super) async fn check_rotation(&mut self) -> Result<(), NodeError> {
        let Some(planned) = self.rotation.planned else {
            return Ok(());
        };
        let is_here = move |ledger: &Ledger| ledger.has_key(&planned.public_key);
        if !self.with_ledger(is_here).await? {
            error!(event = "next_key_lost", public_key = %planned.public_key);
            self.commit(vec![Write::NoPlannedKey]).await?;
            self.rotation.planned = None;
        }
        Ok(())
    }

    /// Carries the plan out when its time has come: the key's file first, then the ledger, then the
    /// interface. A session ends then, so that the next one begins with the new key.
    pub(super) async fn rotate(&mut self) -> Result<(), NodeError> {
        let Some(planned) = self.rotation.planned.filter(|it| it.at <= Utc::now()) else {
            return Ok(());
        };
        let adopt = move |ledger: &Ledger| ledger.adopt_next_key(&planned.public_key);
        let Some(key) = self.with_ledger(adopt).await? else {
            return self.check_rotation().await;
        };
        self.commit(vec![Write::Rotated(planned.asked), Write::NoPlannedKey])
            .await?;
        self.rotation = Rotation {
            planned: None,
            done: Some(planned.asked),
        };
        self.setup.private_key = key;
        match self.ensure_interface().await {
            // The periodic comparison tries it again.
            Err(NodeError::Device(error)) => warn!(event = "key_not_set", %error),
            other => other?,
        }
        info!(event = "key_rotated", public_key = %planned.public_key);
        self.send(Outgoing::KeyChanged);
        Ok(())
    }

    pub(super) fn next_key(&self) -> Option<NextKey> {
        self.rotation.next_key()
    }

    pub(super) fn until_rotation(&self) -> Option<Duration> {
        let planned = self.rotation.planned?;
        Some((planned.at - Utc::now()).to_std().unwrap_or_default())
    }

    /// Works with the ledger's files on a blocking thread.
    pub(super) async fn with_ledger<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Ledger) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, NodeError> {
        let ledger = Arc::clone(&self.ledger);
        Ok(tokio::task::spawn_blocking(move || work(&ledger)).await??)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use shared::wireguard::PublicKey;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).expect("in range")
    }

    fn planned(asked: i64, takes_over: i64) -> PlannedKey {
        PlannedKey {
            asked: at(asked),
            at: at(takes_over),
            public_key: PublicKey::from_bytes([7; 32]),
        }
    }

    const NOW: i64 = 1000;

    #[rstest]
    #[case::nothing(None, None, None, Step::Keep)]
    #[case::new(None, None, Some(5000), Step::Plan(at(5000)))]
    #[case::in_the_past(None, None, Some(10), Step::Plan(at(10)))]
    #[case::repeated(Some((5000, 5000)), None, Some(5000), Step::Keep)]
    #[case::repeated_late_one_is_not_put_off(Some((10, 1005)), None, Some(10), Step::Keep)]
    #[case::moved(Some((5000, 5000)), None, Some(6000), Step::Move(planned(6000, 6000)))]
    #[case::moved_into_the_past(Some((5000, 5000)), None, Some(1), Step::Move(planned(1, 1010)))]
    #[case::moved_too_near(Some((5000, 5000)), None, Some(1009), Step::Move(planned(1009, 1010)))]
    #[case::taken_back(Some((5000, 5000)), None, None, Step::TakeBack)]
    #[case::done_already(None, Some(900), Some(900), Step::Keep)]
    #[case::the_next_one(None, Some(900), Some(5000), Step::Plan(at(5000)))]
    #[case::back_to_the_one_that_is_done(Some((5000, 5000)), Some(900), Some(900), Step::TakeBack)]
    fn a_wish_is_compared_with_the_plan(
        #[case] plan: Option<(i64, i64)>,
        #[case] done: Option<i64>,
        #[case] wanted: Option<i64>,
        #[case] expected: Step,
    ) {
        let rotation = Rotation {
            planned: plan.map(|(asked, takes_over)| planned(asked, takes_over)),
            done: done.map(at),
        };
        assert_eq!(rotation.towards(wanted.map(at), at(NOW)), expected);
    }

    #[rstest]
    #[case::late(0, 1010)]
    #[case::now(1000, 1010)]
    #[case::near(1009, 1010)]
    #[case::early_enough(1011, 1011)]
    fn notice_is_always_given(#[case] wanted: i64, #[case] expected: i64) {
        assert_eq!(not_before(at(NOW), at(wanted)), at(expected));
    }
}
