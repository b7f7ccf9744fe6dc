//! One-time tickets: what a browser opens a stream with, since it cannot send a header there and an
//! access token in an address is kept in logs and histories.
//!
//! A ticket is random and lives for thirty seconds. What it stands for is sealed and kept under its
//! hash, in Redis, where taking it out and learning it are one step. While Redis is away it is kept in this
//! process and opens a stream at this replica.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::cmd;
use secrecy::zeroize::Zeroizing;
use serde::{Deserialize, Serialize};
use shared::ids::UserId;
use uuid::Uuid;

use crate::app::AppState;
use crate::error::{ApiError, Code};
use crate::http::CurrentUser;
use crate::secrets::{Place, SecretToken, TokenHash};

/// How long a ticket can be used.
pub(super) const LIFE: Duration = Duration::from_secs(30);
/// Tickets kept in this process.
const MAX_KEPT: usize = 10_000;
const REDIS_TIMEOUT: Duration = Duration::from_millis(500);

/// What a ticket stands for.
#[derive(Serialize, Deserialize)]
pub(super) struct Pass {
    /// Whose connections it shows.
    pub(super) user: UserId,
    pub(super) bearer: Bearer,
}

/// Who asked for it, and by what right.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Bearer {
    Person(CurrentUser),
    /// An operator's token.
    Operator(String),
}

/// Makes a ticket.
pub(super) async fn issue(state: &AppState, pass: &Pass) -> Result<SecretToken, ApiError> {
    let ticket = SecretToken::generate();
    let hash = ticket.hash();
    let plain = Zeroizing::new(serde_json::to_vec(pass).map_err(ApiError::internal)?);
    let sealed = state.keys().seal(place(&hash), &plain)?;
    if let Err(error) = within(put(state, &hash, &sealed)).await {
        tracing::debug!(%error, "usage.ticket_kept_here");
        if !state.live().tickets().put(hash, sealed, Instant::now()) {
            return Err(ApiError::new(Code::Unavailable).with_source(error));
        }
    }
    Ok(ticket)
}

/// Takes a ticket in: what it stands for, once.
pub(super) async fn redeem(state: &AppState, ticket: &str) -> Result<Pass, ApiError> {
    let hash = TokenHash::of(ticket);
    let sealed = match state.live().tickets().take(&hash, Instant::now()) {
        Some(sealed) => Some(sealed),
        None => within(take(state, &hash))
            .await
            .map_err(|error| ApiError::new(Code::Unavailable).with_source(error))?,
    };
    let sealed = sealed.ok_or(Code::Unauthorized)?;
    // What does not open is none of ours.
    let plain = state.keys().open(place(&hash), &sealed).map_err(|error| {
        tracing::warn!(%error, "usage.ticket_refused");
        ApiError::new(Code::Unauthorized)
    })?;
    serde_json::from_slice(&plain).map_err(ApiError::internal)
}

async fn put(state: &AppState, hash: &TokenHash, sealed: &[u8]) -> Result<(), String> {
    let mut connection = state.redis().get().await.map_err(|it| it.to_string())?;
    let mut put = cmd("SET");
    put.arg(key(hash)).arg(sealed).arg("EX").arg(LIFE.as_secs());
    let put = put.query_async(&mut *connection);
    put.await.map_err(|error| error.to_string())
}

async fn take(state: &AppState, hash: &TokenHash) -> Result<Option<Vec<u8>>, String> {
    let mut connection = state.redis().get().await.map_err(|it| it.to_string())?;
    let mut take = cmd("GETDEL");
    let taken = take.arg(key(hash)).query_async(&mut *connection);
    taken.await.map_err(|error| error.to_string())
}

async fn within<T>(asked: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    match tokio::time::timeout(REDIS_TIMEOUT, asked).await {
        Ok(answer) => answer,
        Err(_) => Err("Redis does not answer in time".to_owned()),
    }
}

fn key(hash: &TokenHash) -> String {
    format!("ticket:{}", hex::encode(hash.as_bytes()))
}

/// What is sealed belongs to its ticket.
fn place(hash: &TokenHash) -> Place {
    let mut row = [0; 16];
    row.copy_from_slice(&hash.as_bytes()[..16]);
    Place {
        column: "redis.ticket",
        row: Uuid::from_bytes(row),
    }
}

/// The tickets that Redis did not take.
#[derive(Debug, Default)]
pub(super) struct KeptTickets(Mutex<HashMap<TokenHash, Kept>>);

#[derive(Debug)]
struct Kept {
    until: Instant,
    sealed: Vec<u8>,
}

impl KeptTickets {
    /// Whether there was room for it.
    fn put(&self, hash: TokenHash, sealed: Vec<u8>, now: Instant) -> bool {
        let mut kept = self.kept();
        if kept.len() >= MAX_KEPT {
            kept.retain(|_, ticket| ticket.until > now);
        }
        let has_room = kept.len() < MAX_KEPT;
        if has_room {
            let until = now + LIFE;
            kept.insert(hash, Kept { until, sealed });
        }
        has_room
    }

    fn take(&self, hash: &TokenHash, now: Instant) -> Option<Vec<u8>> {
        let kept = self.kept().remove(hash)?;
        (kept.until > now).then_some(kept.sealed)
    }

    /// Forgets those whose time is over.
    pub(super) fn forget_old(&self, now: Instant) {
        self.kept().retain(|_, ticket| ticket.until > now);
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<TokenHash, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: usize) -> TokenHash {
        TokenHash::of(&number.to_string())
    }

    #[test]
    fn a_kept_ticket_works_once_and_for_its_time() {
        let (kept, now) = (KeptTickets::default(), Instant::now());
        assert!(kept.put(hash(1), vec![1], now) && kept.put(hash(2), vec![2], now));
        assert_eq!(kept.take(&hash(1), now), Some(vec![1]));
        assert_eq!(kept.take(&hash(1), now), None);
        assert_eq!(kept.take(&hash(2), now + LIFE), None);
        assert_eq!(kept.take(&hash(3), now), None);
    }

    #[test]
    fn there_is_room_for_so_many_until_their_time_is_over() {
        let (kept, now) = (KeptTickets::default(), Instant::now());
        assert!((0..MAX_KEPT).all(|number| kept.put(hash(number), Vec::new(), now)));
        assert!(!kept.put(hash(MAX_KEPT), Vec::new(), now));
        assert!(kept.put(hash(MAX_KEPT), Vec::new(), now + LIFE));
        assert_eq!(kept.kept().len(), 1);
        kept.forget_old(now + 2 * LIFE);
        assert!(kept.kept().is_empty());
    }

    #[test]
    fn keys_and_places_are_of_the_hash_alone() {
        assert_eq!(key(&hash(1)).len(), "ticket:".len() + 64);
        assert_ne!(key(&hash(1)), key(&hash(2)));
        assert_ne!(place(&hash(1)).row, place(&hash(2)).row);
    }
}
