//! Which rows of many say already what Stripe does.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use diesel::QueryResult;
use diesel_async::AsyncPgConnection;
use shared::ids::UserId;

use super::machine::{Policy, Seen, fold};
use super::reference::Reference;
use super::store::{self, Stored};

/// The rows of some subscriptions, by what they are found by.
#[derive(Debug)]
pub struct Known(HashMap<Vec<u8>, Row>);

#[derive(Debug)]
struct Row {
    stored: Stored,
    /// Whether the person has one that runs, this one or another.
    has_running: bool,
}

impl Known {
    /// Asks for all at once.
    pub async fn load(connection: &mut AsyncPgConnection, hashes: &[Vec<u8>]) -> QueryResult<Self> {
        let found = store::all_of(connection, hashes).await?;
        let by_hash = found.into_iter().filter_map(|(stored, has_running)| {
            let hash = stored.hash.clone()?;
            let row = Row {
                stored,
                has_running,
            };
            Some((hash, row))
        });
        Ok(Self(by_hash.collect()))
    }

    /// Whether [`super::apply`] would change nothing. In doubt it is false: then it is to be tried.
    #[must_use]
    pub fn is_settled(
        &self,
        user: UserId,
        reference: &Reference<'_>,
        seen: &Seen,
        policy: &Policy,
        now: DateTime<Utc>,
    ) -> bool {
        let row = reference.hashes().iter().find_map(|hash| self.0.get(hash));
        let current = row.map(|row| &row.stored.subscription);
        let next = fold(current, seen, policy, now).next;
        // Of two subscriptions of one person one runs: where this one does, there is no other to give way.
        row.map_or(next.is_none(), |row| {
            row.stored.user == user
                && row.has_running
                && row.stored.hash.as_deref() == reference.hash()
                && next.as_ref() == Some(&row.stored.subscription)
        })
    }
}
