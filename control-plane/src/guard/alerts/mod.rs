//! Attacks as operators see them: a row each, from the first sign until nothing was seen for a while.
//!
//! Signs are counted in memory, on no request's way, and written once a second by one statement. While
//! Postgres is away they wait, for as many attacks as there is room, and become part of the row that comes
//! then. An attack's first row carries a mail to every operator in its commit, unless one of its kind left
//! within the last quarter of an hour. Neither row nor mail has an address.

mod minute;
mod store;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use diesel_async::{AsyncConnection, AsyncPgConnection};
use serde::{Deserialize, Serialize};
use shared::ids::UserId;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use uuid::Uuid;

use self::minute::Minute;
use super::bans::Reason;
use super::lock;
use crate::config::AlertsConfig;
use crate::db::Pool;
use crate::error::{ApiError, Code};
use crate::mail::{self, Letter};
use crate::secrets::KeyRing;

pub(super) use self::store::Filter;
pub(crate) use self::store::{OpenAlerts, forget, open_alerts};

/// Attacks that wait for Postgres at once.
const CAPACITY: usize = 1_024;
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// How often attacks without news are looked at, in ticks of the writing.
const LOOK_EVERY: u32 = 60;
/// An attack of which nothing was seen for so long is over.
const QUIET: TimeDelta = TimeDelta::minutes(15);
/// The least time between two mails of a kind.
const MAIL_PAUSE: TimeDelta = TimeDelta::minutes(15);

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $word:literal;)*) => {
        /// What an attack is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum AlertKind { $($(#[$doc])* $name,)* }

        impl AlertKind {
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)*];

            pub(crate) const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }
        }
    };
}

kinds! {
    /// Addresses were banned because they asked far more than anybody needs.
    Flood = "flood";
    /// Addresses were banned because they failed again and again.
    Guessing = "guessing";
    /// Strangers used up the tries of one account's password.
    AccountGuessing = "account_guessing";
    /// Limits refused far more than usual.
    Refusals = "refusals";
    /// The payment provider's webhook got what the provider did not send, or not now.
    BadWebhooks = "bad_webhooks";
    /// Somebody takes payments back through their bank.
    Disputes = "disputes";
}

/// An attack, whatever it consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Alert {
    pub(super) id: Uuid,
    pub(super) kind: AlertKind,
    /// Whose account it is about, where it is about one.
    pub(super) user: Option<UserId>,
    pub(super) started_at: DateTime<Utc>,
    pub(super) last_seen_at: DateTime<Utc>,
    /// None while it goes on.
    pub(super) ended_at: Option<DateTime<Utc>>,
    /// How many bans, tries or refusals it was.
    pub(super) count: u64,
    pub(super) notified_at: Option<DateTime<Utc>>,
    pub(super) acknowledged_at: Option<DateTime<Utc>>,
    pub(super) acknowledged_by: Option<String>,
}

/// What tells attacks of the same time apart.
type Attack = (AlertKind, Option<UserId>);

/// What was seen of one and is not written yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Signs {
    first: DateTime<Utc>,
    last: DateTime<Utc>,
    count: u64,
}

impl Signs {
    fn join(&mut self, other: Self) {
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.count = self.count.saturating_add(other.count);
    }
}

#[derive(Debug)]
pub(super) struct Alerts {
    unwritten: Mutex<HashMap<Attack, Signs>>,
    /// Refusals of this second.
    refused: AtomicU32,
    config: AlertsConfig,
    db: Pool,
    keys: Arc<KeyRing>,
}

impl Alerts {
    pub(super) fn new(config: AlertsConfig, db: Pool, keys: Arc<KeyRing>) -> Self {
        Self {
            unwritten: Mutex::default(),
            refused: AtomicU32::default(),
            config,
            db,
            keys,
        }
    }

    /// Protection banned somebody.
    pub(super) fn banned(&self, reason: Reason) {
        match reason {
            Reason::Flood => self.saw(AlertKind::Flood, None, 1),
            Reason::Suspicious => self.saw(AlertKind::Guessing, None, 1),
            Reason::Manual => {}
        }
    }

    /// Strangers used up what they have of an account's tries, or came again when they had.
    pub(super) fn guessed(&self, user: UserId) {
        self.saw(AlertKind::AccountGuessing, Some(user), 1);
    }

    /// Somebody sent what only the payment provider sends.
    pub(super) fn bad_webhook(&self) {
        self.saw(AlertKind::BadWebhooks, None, 1);
    }

    /// A bank takes a payment back for somebody.
    pub(super) fn disputed(&self) {
        self.saw(AlertKind::Disputes, None, 1);
    }

    /// A limit refused a request.
    pub(super) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    fn saw(&self, kind: AlertKind, user: Option<UserId>, count: u64) {
        let now = Utc::now();
        let signs = Signs {
            first: now,
            last: now,
            count,
        };
        self.keep((kind, user), signs);
    }

    fn keep(&self, attack: Attack, signs: Signs) {
        let mut unwritten = lock(&self.unwritten);
        if let Some(kept) = unwritten.get_mut(&attack) {
            kept.join(signs);
        } else if unwritten.len() < CAPACITY {
            unwritten.insert(attack, signs);
        } else {
            metrics::counter!("guard_alerts_dropped_total").increment(1);
        }
    }

    /// Writes until `shutdown`.
    pub(super) async fn run(&self, shutdown: &CancellationToken) {
        let (mut minute, mut round) = (Minute::default(), 0_u32);
        let mut tick = interval(WRITE_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
            let refused = self.refused.swap(0, Ordering::Relaxed);
            let too_many = minute.step(refused, self.config.refused_per_minute);
            if too_many > 0 {
                self.saw(AlertKind::Refusals, None, too_many.into());
            }
            let taken = std::mem::take(&mut *lock(&self.unwritten));
            let looks = round.is_multiple_of(LOOK_EVERY);
            round = round.wrapping_add(1);
            if taken.is_empty() && !looks {
                continue;
            }
            if let Err(error) = self.write(&taken, Utc::now()).await {
                tracing::debug!(%error, "guard.alerts_not_written");
                for (attack, signs) in taken {
                    self.keep(attack, signs);
                }
            }
        }
    }

    async fn write(
        &self,
        seen: &HashMap<Attack, Signs>,
        now: DateTime<Utc>,
    ) -> Result<(), ApiError> {
        let mut connection = self.db.get().await?;
        let begun = connection
            .transaction(async |connection| {
                // Of replicas that see the same, one begins it.
                store::lock(connection).await?;
                store::end_quiet(connection, now - QUIET).await?;
                let begun = store::put(connection, seen).await?;
                // A kind has one mail, however many accounts are guessed at.
                let first: HashMap<_, _> =
                    begun.iter().rev().map(|(id, kind)| (*kind, *id)).collect();
                for (kind, id) in first {
                    self.tell(connection, id, kind, now).await?;
                }
                Ok::<_, ApiError>(begun)
            })
            .await?;
        for (alert, kind) in begun {
            let kind = kind.as_str();
            metrics::counter!("guard_alerts_total", "kind" => kind).increment(1);
            tracing::warn!(%alert, kind, "guard.attacked");
        }
        Ok(())
    }

    async fn tell(
        &self,
        connection: &mut AsyncPgConnection,
        alert: Uuid,
        kind: AlertKind,
        now: DateTime<Utc>,
    ) -> Result<(), ApiError> {
        let operators = &self.config.emails;
        if operators.is_empty()
            || !store::claim_mail(connection, alert, kind, now, now - MAIL_PAUSE).await?
        {
            return Ok(());
        }
        let letter = Letter::Attacked { kind };
        for to in operators {
            mail::post(connection, &self.keys, to, &letter).await?;
        }
        Ok(())
    }

    pub(super) async fn page(
        &self,
        filter: Filter,
        page: (i64, i64),
    ) -> Result<(Vec<Alert>, u64), ApiError> {
        Ok(store::page(&mut *self.db.get().await?, filter, page).await?)
    }

    /// Takes note of who looks into an attack, if nobody does yet; whether that changed anything.
    pub(super) async fn acknowledge(
        &self,
        connection: &mut AsyncPgConnection,
        id: Uuid,
        by: &str,
    ) -> Result<(Alert, bool), ApiError> {
        let changed = store::acknowledge(connection, id, by).await?;
        let alert = store::find(connection, id).await?;
        Ok((alert.ok_or(Code::AlertNotFound)?, changed))
    }
}

#[cfg(test)]
mod tests;
