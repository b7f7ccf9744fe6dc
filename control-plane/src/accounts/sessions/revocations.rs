//! The ended sessions whose access tokens may not have expired yet, as this replica knows them.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::SessionId;

/// What every request is checked against.
#[derive(Debug)]
pub struct Revocations {
    access_token_life: Duration,
    /// Until when each is remembered.
    ended: RwLock<HashMap<SessionId, Instant>>,
}

impl Revocations {
    #[must_use]
    pub fn new(access_token_life: Duration) -> Self {
        Self {
            access_token_life,
            ended: RwLock::default(),
        }
    }

    /// Whether the session has ended. None where this replica cannot be sure and Postgres has to be
    /// asked.
    #[must_use]
    pub fn is_revoked(&self, session: SessionId) -> Option<bool> {
        let ended = self.ended.read().unwrap_or_else(PoisonError::into_inner);
        Some(ended.contains_key(&session))
    }

    /// Takes note of ended sessions here and tells the other replicas.
    pub(super) fn announce(&self, sessions: &[SessionId]) {
        let until = Instant::now() + self.access_token_life;
        let mut ended = self.ended.write().unwrap_or_else(PoisonError::into_inner);
        ended.extend(sessions.iter().map(|session| (*session, until)));
    }
}
