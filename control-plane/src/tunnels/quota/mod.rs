//! Plans' limits on live connections: rates, and the leases of a quota.
//!
//! - A node enforces what it was told; here it is decided what that is. A change of limits is a change of
//!   the desired peer like any other, and never touches the tunnel.
//! - What the nodes may still let through is never more than what is left; see [`shares`].
//! - A plan's end is on the node where the free one opens the server no more; elsewhere the peer stays and
//!   its limits come down. Who has more live than the plan has places for, or on servers that it does not open,
//!   loses those.
//! - What is due is learnt from the statements that store what nodes report. A sweep finds whatever got
//!   lost in between, the turn of a month, and plans that were changed by hand.

pub(super) mod shares;

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use diesel::QueryResult;
use diesel_async::AsyncPgConnection;
use shared::ids::{ServerId, UserId};
use uuid::Uuid;

use self::shares::{Lease, UNLIMITED, Verdict, share};
use super::bounds::unfit;
use super::end::announce;
use super::store::{self, Account, Desired, Limited, MonthUsed, Stamp};
use crate::app::AppState;
use crate::error::ApiError;

const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// People whose limits are written by one statement.
const BATCH: usize = 200;
/// People found by one sweep.
const SWEEP_LIMIT: i32 = 2_000;
/// How often to begin again where somebody shared the same quota out meanwhile.
const MAX_ROUNDS: usize = 5;

/// Shares quotas out whenever it is due, until the service stops.
pub async fn run(state: &AppState) {
    let mut sweep = tokio::time::interval(SWEEP_EVERY);
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let due = tokio::select! {
            () = state.shutdown().cancelled() => return,
            due = state.live().quotas_due() => Ok(due),
            _ = sweep.tick() => out_of_step(state).await,
        };
        let done = match due {
            Ok(users) => limits_changed_of(state, &users).await,
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            // The sweep finds them again.
            tracing::warn!(%error, source = ?std::error::Error::source(&error), "tunnels.quota_failed");
        }
    }
}

async fn out_of_step(state: &AppState) -> Result<Vec<UserId>, ApiError> {
    let mut conn = state.db().get().await?;
    Ok(store::out_of_step(&mut conn, SWEEP_LIMIT).await?)
}

/// What these people used of this month's quota; of those whose plan has one.
pub async fn months_used(
    connection: &mut AsyncPgConnection,
    users: &[UserId],
) -> QueryResult<HashMap<UserId, MonthUsed>> {
    store::months_used(connection, users).await
}

/// Gives a person's live connections the limits of the plan as it stands within `connection`, which may
/// be in a transaction: then both commit together. Hand the result to [`signal`] after the commit.
///
/// Whoever changes a subscription calls this.
pub async fn limits_changed(
    connection: &mut AsyncPgConnection,
    user: UserId,
) -> Result<LimitsChanged, ApiError> {
    let changed = apply(connection, &[user]).await?;
    let tier_of = Some(user);
    Ok(LimitsChanged { tier_of, ..changed })
}

/// The same for everybody who is connected under this plan, a few at a time, once the plan's change is
/// committed.
///
/// Whoever changes a plan calls this.
pub async fn limits_of_plan_changed(state: &AppState, plan: &str) -> Result<(), ApiError> {
    state.fleet().tier_changed(None);
    let mut after = Uuid::nil();
    let batch = i32::try_from(BATCH).unwrap_or(i32::MAX);
    loop {
        let mut conn = state.db().get().await?;
        let users = store::live_under(&mut conn, plan, after, batch).await?;
        drop(conn);
        let Some(last) = users.last() else {
            return Ok(());
        };
        after = last.0;
        limits_changed_of(state, &users).await?;
    }
}

/// What has to be told after the commit.
#[derive(Debug, Default)]
#[must_use = "nodes and clients learn of it by `signal`"]
pub struct LimitsChanged {
    servers: BTreeSet<ServerId>,
    ended: Vec<store::Ended>,
    /// Whose plan may open other servers now.
    tier_of: Option<UserId>,
}

/// Tells the nodes of changed limits, after the commit. Without it they learn by the next heartbeat.
pub fn signal(state: &AppState, changed: LimitsChanged) {
    for server in changed.servers {
        state.fleet().signal(server, None);
    }
    for ended in &changed.ended {
        announce(state, ended, None);
    }
    if changed.tier_of.is_some() {
        state.fleet().tier_changed(changed.tier_of);
    }
}

async fn limits_changed_of(state: &AppState, users: &[UserId]) -> Result<(), ApiError> {
    for batch in users.chunks(BATCH) {
        let changed = {
            let mut conn = state.db().get().await?;
            apply(&mut conn, batch).await?
        };
        signal(state, changed);
    }
    Ok(())
}

async fn apply(conn: &mut AsyncPgConnection, users: &[UserId]) -> Result<LimitsChanged, ApiError> {
    let mut changed = LimitsChanged::default();
    let mut left = users.to_vec();
    for _ in 0..MAX_ROUNDS {
        let accounts = store::accounts(conn, &left).await?;
        let ended = end_unfit(conn, &accounts).await?;
        if !ended.is_empty() {
            // What is left of a quota depends on what is left of the connections.
            changed.ended.extend(ended);
            continue;
        }
        let round = Round::decide(accounts);
        left = round.writers();
        if !round.stamps.is_empty() {
            for (user, server) in store::write_limits(conn, &round.stamps, &round.desired).await? {
                left.retain(|waiting| *waiting != user);
                changed.servers.extend(server);
            }
        }
        if !round.used_up.is_empty() {
            changed
                .ended
                .extend(store::end_used_up(conn, &round.used_up).await?);
        }
        if left.is_empty() {
            break;
        }
    }
    Ok(changed)
}

/// Ends what the plans have no place for, and moves the rest into the places that there are.
async fn end_unfit(
    conn: &mut AsyncPgConnection,
    accounts: &[Account],
) -> Result<Vec<store::Ended>, ApiError> {
    let mut all = Vec::new();
    for account in accounts {
        let spots: Vec<_> = account.live.iter().map(|live| live.spot).collect();
        let ending = unfit(&spots, account.bounds);
        let is_beyond = account.bounds.is_beyond(&spots);
        if ending.is_empty() && !is_beyond {
            continue;
        }
        store::hold(conn, account.user).await?;
        if !ending.is_empty() {
            all.extend(store::end_unfit(conn, account.user, &ending).await?);
        }
        if is_beyond {
            store::renumber(conn, account.user, account.bounds.max_connections).await?;
        }
    }
    Ok(all)
}

/// What is to be written for some people at once.
#[derive(Debug, Default)]
struct Round {
    stamps: Vec<(UserId, Stamp)>,
    desired: Vec<Desired>,
    used_up: Vec<(UserId, Stamp)>,
}

impl Round {
    fn decide(accounts: Vec<Account>) -> Self {
        let mut round = Self::default();
        for account in accounts {
            match desired(&account) {
                Some(desired) => {
                    round.stamps.push((account.user, account.stamp));
                    round.desired.extend(desired);
                }
                None => round.used_up.push((account.user, account.stamp)),
            }
        }
        round
    }

    fn writers(&self) -> Vec<UserId> {
        self.stamps.iter().map(|(user, _)| *user).collect()
    }
}

/// What one person's connections shall have; none when the quota is used up.
fn desired(account: &Account) -> Option<Vec<Desired>> {
    let leases = match account.quota {
        Some(quota) => {
            let now: Vec<_> = account.live.iter().map(counted).collect();
            match share(quota, account.pinned, &now) {
                Verdict::UsedUp => return None,
                Verdict::Shared(leases) => leases.into_iter().map(Some).collect(),
            }
        }
        None => account.live.iter().map(released).collect::<Vec<_>>(),
    };
    let desired = account.live.iter().zip(leases).map(|(live, lease)| {
        let allowance = |lease: Option<Lease>| lease.map(|it| it.allowance);
        let expires_at = account.bounds.end_of(live.spot);
        let is_news = live.rates != account.rates
            || allowance(live.lease) != allowance(lease)
            || live.expires_at != expires_at;
        Desired {
            connection: live.connection,
            user: account.user,
            rates: account.rates,
            lease,
            expires_at,
            is_news,
        }
    });
    Some(desired.collect())
}

/// A connection under a quota; one that was not counted yet has nothing of it.
fn counted(live: &Limited) -> Lease {
    live.lease.unwrap_or(Lease {
        consumed: live.consumed,
        allowance: UNLIMITED,
        held: UNLIMITED,
        share_at: UNLIMITED,
    })
}

/// A connection without a quota: uncounted, or counted without an end.
fn released(live: &Limited) -> Option<Lease> {
    live.lease.map(|lease| Lease {
        allowance: UNLIMITED,
        held: UNLIMITED,
        share_at: UNLIMITED,
        ..lease
    })
}
