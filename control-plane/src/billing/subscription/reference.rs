//! A subscription's id at Stripe, as rows have it: a keyed hash to find it by, and the id sealed.

use std::fmt;

use diesel_async::AsyncPgConnection;
use shared::ids::UserId;
use uuid::Uuid;

use super::machine::Subscription;
use super::store;
use crate::app::AppState;
use crate::billing::reference::{SubscriptionId, open};
use crate::error::ApiError;
use crate::secrets::{KeyRing, Place, SealError, SealedColumn};

const COLUMN: &str = "subscriptions.sealed_stripe_id";

/// Which subscription at Stripe it is.
pub struct Reference<'a> {
    id: &'a str,
    hashes: Vec<Vec<u8>>,
}

impl<'a> Reference<'a> {
    /// The id with its hashes under the key in force and under those before it, in this order.
    #[must_use]
    pub const fn new(id: &'a str, hashes: Vec<Vec<u8>>) -> Self {
        Self { id, hashes }
    }

    /// What a row may be found by.
    pub(super) fn hashes(&self) -> &[Vec<u8>] {
        &self.hashes
    }

    /// What a row is written with.
    pub(super) fn hash(&self) -> Option<&[u8]> {
        self.hashes.as_slice().first().map(Vec::as_slice)
    }

    pub(super) fn seal(&self, keys: &KeyRing, row: Uuid) -> Result<Vec<u8>, SealError> {
        keys.seal(place(row), self.id.as_bytes())
    }
}

impl fmt::Debug for Reference<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reference")
    }
}

/// A subscription that runs, and that Stripe has.
#[derive(Debug, Clone)]
pub struct Billed {
    pub id: SubscriptionId,
    pub subscription: Subscription,
}

/// The person's, if the one that runs is such a one.
pub async fn billed(
    state: &AppState,
    connection: &mut AsyncPgConnection,
    user: UserId,
) -> Result<Option<Billed>, ApiError> {
    let Some(stored) = store::running(connection, user).await? else {
        return Ok(None);
    };
    let Some(sealed) = store::sealed_id(connection, stored.id).await? else {
        return Ok(None);
    };
    Ok(Some(Billed {
        id: open_id(state.keys(), stored.id, &sealed)?,
        subscription: stored.subscription,
    }))
}

/// Whether the person never had one: a trial is for them.
pub async fn is_new(connection: &mut AsyncPgConnection, user: UserId) -> Result<bool, ApiError> {
    Ok(!store::was_billed(connection, user).await?)
}

const fn place(row: Uuid) -> Place {
    Place {
        column: COLUMN,
        row,
    }
}

pub(super) fn open_id(
    keys: &KeyRing,
    row: Uuid,
    sealed: &[u8],
) -> Result<SubscriptionId, SealError> {
    open(keys, COLUMN, row, sealed)
}

/// The ids, for whoever changes the key: what they are found by follows.
pub const SEALED_SUBSCRIPTION_IDS: SealedColumn = SealedColumn::new(COLUMN).found_by("stripe_hash");
