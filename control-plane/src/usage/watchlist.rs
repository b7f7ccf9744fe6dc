//! The users whom somebody watches at this replica, and what the database says of their connections and
//! of their quotas.
//!
//! It is read for many of them at once: for each within [`ROUND`], and as soon as it is known that something
//! began or ended; a quota within [`QUOTA_ROUND`]. So what viewers cost the database grows with the rows that they see, not with statements.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use shared::ids::UserId;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::{MissedTickBehavior, interval};

use super::store;
use super::watch::Watched;
use crate::app::AppState;
use crate::error::ApiError;
use crate::tunnels::{self, MonthUsed};

/// Everybody is looked at once in a round, in turns of a second.
const ROUND: u128 = 3;
/// A multiple of it: whose quota is read has their turn.
const QUOTA_ROUND: u128 = 15;
const TURN: Duration = Duration::from_secs(1);
/// Users whose connections are read by one statement.
const BATCH: usize = 500;

/// Everybody who is watched here.
#[derive(Debug, Default)]
pub(super) struct Watchlist {
    users: Mutex<HashMap<UserId, Weak<Listed>>>,
    /// Who is to be read ahead of their turn.
    due: Mutex<HashSet<UserId>>,
    is_due: Notify,
}

/// One of them. Each viewer holds it.
#[derive(Debug, Default)]
pub(super) struct Listed {
    rows: Mutex<Rows>,
    month: Mutex<Option<MonthUsed>>,
    changed: Notify,
}

/// A user's connections as they were read last.
#[derive(Debug, Clone)]
pub(super) struct Rows {
    /// Grows with each reading; zero before the first.
    pub(super) reading: u64,
    pub(super) rows: Arc<[Watched]>,
}

impl Default for Rows {
    fn default() -> Self {
        let rows = Arc::new([]);
        Self { reading: 0, rows }
    }
}

impl Listed {
    /// What was read, unless it is known as of this reading.
    pub(super) fn since(&self, reading: u64) -> Option<Rows> {
        let rows = locked(&self.rows);
        (rows.reading > reading).then(|| rows.clone())
    }

    /// What was used of the month's quota, when it was read last; none where there is no quota.
    pub(super) fn month(&self) -> Option<MonthUsed> {
        *locked(&self.month)
    }

    /// Waits for something else than bytes to change.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    fn put(&self, read: Vec<Watched>) {
        let mut rows = locked(&self.rows);
        let is_news = rows.reading == 0
            || rows.rows.len() != read.len()
            || rows
                .rows
                .iter()
                .zip(&read)
                .any(|(old, new)| !old.is_like(new));
        rows.reading += 1;
        rows.rows = read.into();
        drop(rows);
        if is_news {
            self.changed.notify_waiters();
        }
    }
}

impl Watchlist {
    /// Puts a user on the list for as long as somebody holds what this gives.
    pub(super) fn watch(&self, user: UserId) -> Arc<Listed> {
        let mut users = locked(&self.users);
        if let Some(listed) = users.get(&user).and_then(Weak::upgrade) {
            return listed;
        }
        let listed = Arc::new(Listed::default());
        users.insert(user, Arc::downgrade(&listed));
        drop(users);
        self.due(user);
        listed
    }

    /// The user's connections are to be read, if somebody watches them.
    pub(super) fn changed(&self, user: UserId) {
        if locked(&self.users).contains_key(&user) {
            self.due(user);
        }
    }

    pub(super) fn forget_unwatched(&self) {
        locked(&self.users).retain(|_, listed| listed.strong_count() > 0);
    }

    fn due(&self, user: UserId) {
        locked(&self.due).insert(user);
        self.is_due.notify_one();
    }

    /// Those who have waited for their turn: each is in one of [`ROUND`].
    fn turn(&self, turn: u128) -> Vec<UserId> {
        let users = locked(&self.users);
        let is_in = |user: &UserId| is_in(*user, turn, ROUND);
        let watched = users.iter().filter(|(_, it)| it.strong_count() > 0);
        let watched = watched.map(|(user, _)| *user);
        watched.filter(is_in).collect()
    }

    fn listed(&self, user: UserId) -> Option<Arc<Listed>> {
        locked(&self.users).get(&user).and_then(Weak::upgrade)
    }

    fn put(&self, user: UserId, rows: Vec<Watched>) {
        if let Some(listed) = self.listed(user) {
            listed.put(rows);
        }
    }

    fn put_month(&self, user: UserId, month: Option<MonthUsed>) {
        if let Some(listed) = self.listed(user) {
            *locked(&listed.month) = month;
        }
    }
}

/// Reads until the service stops. While the database is away viewers go on with what they know.
pub async fn keep(state: &AppState) {
    let list = state.live().watchlist();
    let mut turns = interval(TURN);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut turn = 0_u128;
    loop {
        let users: Vec<UserId>;
        let with_quotas: Vec<UserId>;
        tokio::select! {
            () = state.shutdown().cancelled() => return,
            () = list.is_due.notified() => {
                users = locked(&list.due).drain().collect();
                with_quotas = users.clone();
            }
            _ = turns.tick() => {
                turn = turn.wrapping_add(1);
                users = list.turn(turn);
                let of_turn = users.iter().filter(|user| is_in(**user, turn, QUOTA_ROUND));
                with_quotas = of_turn.copied().collect();
            }
        }
        if let Err(error) = read(state, list, &users, &with_quotas).await {
            tracing::debug!(%error, "usage.watchlist_failed");
        }
    }
}

/// Whether it is a user's turn in rounds of so many.
const fn is_in(user: UserId, turn: u128, round: u128) -> bool {
    user.0.as_u128() % round == turn % round
}

/// What was read before a failure is put nevertheless.
async fn read(
    state: &AppState,
    list: &Watchlist,
    users: &[UserId],
    with_quotas: &[UserId],
) -> Result<(), ApiError> {
    let mut conn = state.db().get().await?;
    for batch in users.chunks(BATCH) {
        let mut rows = store::watched(&mut conn, batch).await?;
        for user in batch {
            list.put(*user, rows.remove(user).unwrap_or_default());
        }
    }
    for batch in with_quotas.chunks(BATCH) {
        let months = tunnels::months_used(&mut conn, batch).await?;
        for user in batch {
            list.put_month(*user, months.get(user).copied());
        }
    }
    Ok(())
}

/// What is behind these locks is whole after every statement.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use futures_util::FutureExt;

    use super::*;
    use crate::usage::watch::tests::row;

    #[test]
    fn everybody_has_one_turn_in_a_round() {
        let list = Watchlist::default();
        let users: Vec<_> = (0..100).map(|_| UserId::generate()).collect();
        let held: Vec<_> = users.iter().map(|user| list.watch(*user)).collect();
        let turns: Vec<_> = (7..7 + ROUND).map(|turn| list.turn(turn)).collect();
        assert!(turns.iter().all(|turn| turn.len() < users.len()));
        let mut read: Vec<_> = turns.concat();
        read.sort_unstable();
        let all: BTreeSet<_> = users.into_iter().collect();
        assert_eq!(read, all.into_iter().collect::<Vec<_>>());
        drop(held);
        assert!((0..ROUND).all(|turn| list.turn(turn).is_empty()));
        list.forget_unwatched();
        assert!(locked(&list.users).is_empty());
    }

    /// In a quota's turn the connections are read anyway.
    #[test]
    fn everybodys_quota_has_one_turn_in_its_round() {
        let user = UserId::generate();
        let turns = (7..7 + QUOTA_ROUND).filter(|turn| is_in(user, *turn, QUOTA_ROUND));
        let turns: Vec<_> = turns.collect();
        assert_eq!(turns.len(), 1);
        assert!(turns.into_iter().all(|turn| is_in(user, turn, ROUND)));
    }

    #[test]
    fn whoever_is_not_watched_is_not_read() {
        let (list, user) = (Watchlist::default(), UserId::generate());
        list.changed(user);
        assert!(locked(&list.due).is_empty());
        let first = list.watch(user);
        assert_eq!(locked(&list.due).drain().collect::<Vec<_>>(), [user]);
        // A second viewer knows what the first does.
        assert!(Arc::ptr_eq(&first, &list.watch(user)));
        assert!(locked(&list.due).is_empty());
        list.changed(user);
        assert!(locked(&list.due).contains(&user));
    }

    #[test]
    fn viewers_are_woken_by_more_than_bytes() {
        let (list, user) = (Watchlist::default(), UserId::generate());
        let listed = list.watch(user);
        let wakes = |rows| {
            let woken = listed.changed();
            tokio::pin!(woken);
            woken.as_mut().enable();
            list.put(user, rows);
            woken.now_or_never().is_some()
        };
        assert!(listed.since(0).is_none());
        assert!(wakes(vec![]));
        assert_eq!(listed.since(0).expect("read").rows.len(), 0);
        assert!(wakes(vec![row(0, 0)]));
        assert!(!wakes(vec![row(5, 7)]));
        let read = listed.since(2).expect("read anew");
        assert_eq!((read.reading, read.rows[0].ledger.sent), (3, 5));
        assert!(listed.since(3).is_none());
        assert!(wakes(vec![]));
    }
}
