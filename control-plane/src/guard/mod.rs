//! Protection against abuse. Before a handler every request passes, in this order: is its sender banned,
//! does it flood, is its country refused, is there room in the windows of its address and, where it shows a valid
//! token, of its user.
//!
//! What must hold: a sender who is banned, refused by country or without room costs no round trip; any other
//! request costs one, to Redis, and none of them fails because Redis does. Addresses are in the bans alone: windows
//! and counts are kept under a keyed hash, and nothing is logged.

mod account;
mod address;
mod alerts;
mod bans;
mod census;
mod country;
mod group;
mod kind;
mod layer;
mod limiter;
mod load;
mod routes;
mod tally;
mod window;
mod wire;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use chrono::{DateTime, TimeDelta, Utc};
use ipnet::IpNet;
use shared::ids::UserId;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(crate) use self::account::{Account, Caller, LoginPlace};
pub(crate) use self::address::{Client, Subject};
pub use self::alerts::AlertKind;
pub(crate) use self::alerts::{OpenAlerts, forget as forget_alerts, open_alerts};
pub(crate) use self::bans::forget;
pub use self::country::CountryError;
pub(crate) use self::country::check as check_countries;
pub(crate) use self::layer::protect;
pub(crate) use self::limiter::Lane;
pub use self::routes::routes;

use self::alerts::Alerts;
use self::bans::{Ban, Bans, Reason};
use self::census::{Census, Report};
use self::country::Countries;
use self::group::Group;
use self::kind::{Kind, key, octets, short};
use self::limiter::{Asked, Limiter};
use self::load::Throttle;
use self::tally::Tally;
use self::window::Standing;
use crate::config::{Config, GuardConfig, Limit};
use crate::db::Pool;
use crate::error::{ApiError, Code};
use crate::secrets::KeyRing;

/// Callers in an overview of who was refused most.
const OFFENDERS: usize = 20;

/// What the key is for under which callers are counted.
const KEY_LABEL: &[u8] = b"guard callers";

/// One replica's protection.
#[derive(Debug)]
pub struct Guard {
    config: GuardConfig,
    limiter: Arc<Limiter>,
    bans: Bans,
    floods: Tally,
    failures: Tally,
    throttle: Throttle,
    census: Census,
    countries: Countries,
    alerts: Alerts,
    client: redis::Client,
    mask: hmac::Key,
    /// What hides the names of accounts and their places: not the key that hides callers.
    accounts: hmac::Key,
}

/// What protection is made of.
pub(crate) struct Parts<'a> {
    pub(crate) config: &'a Config,
    pub(crate) db: Pool,
    pub(crate) redis: redis::Client,
    pub(crate) keys: Arc<KeyRing>,
}

impl Guard {
    pub(crate) fn new(parts: Parts<'_>) -> Self {
        let Parts {
            config,
            db,
            redis: client,
            keys,
        } = parts;
        let secret = config.app.keys.derive(KEY_LABEL);
        let alerts = Alerts::new(config.alerts.clone(), db.clone(), keys);
        let config = config.guard.clone();
        let mask = hmac::Key::new(hmac::HMAC_SHA256, secret.as_slice());
        Self {
            limiter: Arc::new(Limiter::new(client.clone(), config.redis_patience)),
            bans: Bans::new(db, client.clone()),
            floods: Tally::new(Reason::Flood, "flood", config.flood),
            failures: Tally::new(Reason::Suspicious, "failures", config.suspicion),
            accounts: account::key_below(&mask),
            mask,
            throttle: Throttle::default(),
            census: Census::default(),
            countries: Countries::default(),
            alerts,
            client,
            config,
        }
    }

    /// Reads the file of countries. Whoever answers no requests does without.
    pub(crate) fn load(&mut self) -> Result<(), CountryError> {
        self.countries = Countries::load(self.config.country.as_ref())?;
        Ok(())
    }

    /// A worker's way to the limits.
    pub(crate) fn lane(&self) -> Lane {
        Lane::new(Arc::clone(&self.limiter))
    }

    /// Keeps bans and counts until `shutdown`.
    pub(crate) async fn run(&self, shutdown: &CancellationToken) {
        let name = |subject| self.hidden(subject);
        tokio::join!(
            self.bans.run(shutdown),
            shutdown.run_until_cancelled(self.limiter.listen()),
            self.follow_load(shutdown),
            Box::pin(self.countries.run(shutdown)),
            self.census.run(&self.client, shutdown),
            Box::pin(self.alerts.run(shutdown)),
            self.floods.run(&self.client, shutdown, name, |it| self
                .impose(it, &self.floods)),
            self.failures.run(&self.client, shutdown, name, |it| self
                .impose(it, &self.failures)),
        );
    }

    async fn follow_load(&self, shutdown: &CancellationToken) {
        if self.config.adaptive {
            self.throttle.run(shutdown).await;
        }
    }

    /// Neither limited, banned, nor refused by country. Who speaks for others is not: the list means the peer itself.
    fn is_whitelisted(&self, client: &Client) -> bool {
        !client.speaks_for_others
            && self
                .config
                .whitelist
                .iter()
                .any(|network| network.contains(&client.address))
    }

    /// Counts a request that came; true when its sender is banned for it.
    fn floods(&self, subject: Subject) -> bool {
        let too_many = self.floods.count(subject, Instant::now());
        if too_many {
            self.impose(subject, &self.floods);
        }
        too_many
    }

    /// Counts a request that failed as only guessing fails.
    fn failed(&self, subject: Subject) {
        if self.failures.count(subject, Instant::now()) {
            self.impose(subject, &self.failures);
        }
    }

    /// A webhook's event was signed by nobody we know, or long ago.
    pub(crate) fn bad_webhook(&self) {
        self.alerts.bad_webhook();
    }

    /// Somebody takes a payment back through their bank.
    pub(crate) fn disputed(&self) {
        self.alerts.disputed();
    }

    fn impose(&self, subject: Subject, tally: &Tally) {
        let (reason, network) = (tally.reason(), subject.network());
        // Redis and memory may both find the same one.
        if self.bans.find(network.addr()).is_none() {
            self.alerts.banned(reason);
        }
        metrics::counter!("guard_bans_total", "reason" => reason.as_str()).increment(1);
        let ban = self.ban_of(
            network,
            reason,
            None,
            "system".to_owned(),
            Some(tally.ban()),
        );
        tracing::warn!(ban = %ban.id, reason = reason.as_str(), "guard.banned");
        self.bans.impose(ban);
    }

    fn ban_of(
        &self,
        network: IpNet,
        reason: Reason,
        note: Option<String>,
        made_by: String,
        life: Option<Duration>,
    ) -> Ban {
        let now = Utc::now();
        let life = life.and_then(|life| TimeDelta::from_std(life).ok());
        Ban {
            id: Uuid::now_v7(),
            network,
            reason,
            note,
            made_by,
            created_at: now,
            expires_at: life.and_then(|life| now.checked_add_signed(life)),
        }
    }

    /// The windows that a request counts in. The first one is what its sender is told of.
    fn windows(&self, group: Group, subject: Subject, user: Option<UserId>) -> Vec<Asked> {
        let hidden = self.hidden(subject);
        let limit = self.limit_of(group);
        let asked = |kind, whose, limit| Asked {
            key: key(kind, whose),
            limit,
        };
        let mut windows = vec![asked(Kind::Group(group), hidden, limit)];
        if group.stands_alone() {
            return windows;
        }
        let address = self.config.address.scaled(self.throttle.share());
        windows.push(asked(Kind::Address, hidden, address));
        windows.push(match user {
            Some(user) => asked(Kind::User(group), *user.0.as_bytes(), limit),
            None => asked(Kind::Strangers, [0; 16], self.config.strangers),
        });
        windows
    }

    /// A caller's name where the address itself has no business.
    fn hidden(&self, subject: Subject) -> [u8; 16] {
        short(hmac::sign(&self.mask, &octets(subject)))
    }

    /// How an address stands with these groups, and which limits these are.
    async fn standing(&self, subject: Subject, groups: &[Group]) -> Vec<(Group, Limit, Standing)> {
        let asked = self.own_windows(subject, groups);
        let standings = self.limiter.look(&asked).await;
        let windows = groups.iter().zip(asked).zip(standings);
        windows
            .map(|((group, asked), standing)| (*group, asked.limit, standing))
            .collect()
    }

    /// Forgets what counts against an address.
    async fn reset(&self, subject: Subject, groups: &[Group]) -> Result<(), ApiError> {
        let mut keys: Vec<_> = self
            .own_windows(subject, groups)
            .iter()
            .map(|asked| asked.key)
            .collect();
        keys.push(key(Kind::Address, self.hidden(subject)));
        if self.limiter.reset(&keys).await {
            return Ok(());
        }
        Err(Code::Unavailable.into())
    }

    async fn report(&self) -> Result<Report, ApiError> {
        let report = census::report(&self.client, OFFENDERS).await;
        report.ok_or_else(|| Code::Unavailable.into())
    }

    /// Nothing that an address did counts against it any more.
    async fn forgive(&self, subject: Subject) {
        self.floods.forget(subject);
        self.failures.forget(subject);
        if self.reset(subject, Group::ALL).await.is_err() {
            tracing::debug!("guard.not_forgiven_in_redis");
        }
    }

    fn own_windows(&self, subject: Subject, groups: &[Group]) -> Vec<Asked> {
        let hidden = self.hidden(subject);
        let asked = |group: &Group| Asked {
            key: key(Kind::Group(*group), hidden),
            limit: self.limit_of(*group),
        };
        groups.iter().map(asked).collect()
    }

    /// As it holds at present.
    fn limit_of(&self, group: Group) -> Limit {
        let limit = group.limit(&self.config.groups);
        if group.stands_alone() {
            return limit;
        }
        limit.scaled(self.throttle.share())
    }
}

/// Seconds until a time, for `Retry-After`: rounded up, at least one.
fn seconds_until(time: DateTime<Utc>) -> u64 {
    let left = (time - Utc::now()).num_milliseconds().max(1);
    u64::try_from(left).unwrap_or(1).div_ceil(1000)
}

/// The state behind the lock. Nobody panics while holding one, and the state is whole in any case.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
