//! What we know of one page of Stripe's, asked for at once. Most of a list is as we have it, and costs no more than
//! this; what is not is for the caller to look into.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use shared::ids::UserId;

use crate::app::AppState;
use crate::billing::invoices::{self, Folded, Seen};
use crate::billing::prices::Prices;
use crate::billing::reference::{CustomerId, fingerprints};
use crate::billing::refunds::{self, RefundStatus};
use crate::billing::stripe::invoices::Invoice;
use crate::billing::stripe::refunds::Refund;
use crate::billing::stripe::subscriptions::Subscription;
use crate::billing::subscription::{self, Policy, Reference};
use crate::billing::{customers, sync};
use crate::error::ApiError;
use crate::secrets::KeyRing;

pub(super) struct Subscriptions<'a> {
    keys: &'a KeyRing,
    policy: Policy,
    now: DateTime<Utc>,
    owners: HashMap<CustomerId, UserId>,
    prices: Prices,
    rows: subscription::Known,
}

impl<'a> Subscriptions<'a> {
    pub(super) async fn of(state: &'a AppState, page: &[Subscription]) -> Result<Self, ApiError> {
        let keys = state.keys();
        let customers = page.iter().map(|it| it.customer.id.clone()).collect();
        let mut connection = state.db().get().await?;
        Ok(Self {
            keys,
            policy: subscription::policy(&state.config().billing),
            now: Utc::now(),
            owners: customers::owners(&mut connection, keys, &customers).await?,
            prices: Prices::load(state, &mut connection).await?,
            rows: subscription::Known::load(&mut connection, &hashes(keys, page, |it| &it.id))
                .await?,
        })
    }

    /// None where it may have to be written.
    pub(super) fn verdict(&self, read: &Subscription) -> Option<Folded> {
        let Some(owner) = self.owners.get(&read.customer.id) else {
            return Some(Folded::Foreign);
        };
        let seen = sync::seen(read, &self.prices).ok()?;
        let reference = Reference::new(read.id.as_str(), fingerprints(self.keys, &read.id));
        let (policy, now) = (&self.policy, self.now);
        let is_settled = self.rows.is_settled(*owner, &reference, &seen, policy, now);
        is_settled.then_some(Folded::Same)
    }
}

pub(super) struct Payments<'a> {
    keys: &'a KeyRing,
    owners: HashMap<CustomerId, UserId>,
    rows: HashMap<Vec<u8>, invoices::Stored>,
}

impl<'a> Payments<'a> {
    pub(super) async fn of(state: &'a AppState, page: &[Invoice]) -> Result<Self, ApiError> {
        let keys = state.keys();
        let customers: HashSet<_> = page.iter().filter_map(payer).cloned().collect();
        let hashes = hashes(keys, page, |it| &it.id);
        let mut connection = state.db().get().await?;
        let owners = customers::owners(&mut connection, keys, &customers).await?;
        let rows = invoices::by_invoices(&mut connection, &hashes).await?;
        Ok(Self {
            keys,
            owners,
            rows: rows.into_iter().map(|it| (it.hash.clone(), it)).collect(),
        })
    }

    /// None where it may have to be written.
    pub(super) fn verdict(&self, read: &Invoice) -> Option<Folded> {
        let is_ours = payer(read).is_some_and(|customer| self.owners.contains_key(customer));
        let seen = Seen::of(read).filter(|_| is_ours);
        let Some(seen) = seen else {
            return Some(Folded::Foreign);
        };
        let known = find(&self.rows, self.keys, &read.id)?;
        let belongs = known.payment.subscription.is_some() == read.subscription().is_some();
        (known.payment.seen == seen && belongs).then_some(Folded::Same)
    }
}

pub(super) struct Refunds<'a> {
    keys: &'a KeyRing,
    statuses: HashMap<Vec<u8>, String>,
}

impl<'a> Refunds<'a> {
    pub(super) async fn of(state: &'a AppState, page: &[Refund]) -> Result<Self, ApiError> {
        let keys = state.keys();
        let mut connection = state.db().get().await?;
        let hashes = hashes(keys, page, |it| &it.id);
        Ok(Self {
            keys,
            statuses: refunds::states(&mut connection, &hashes).await?,
        })
    }

    /// None where it may have to be written.
    pub(super) fn verdict(&self, read: &Refund) -> Option<Folded> {
        if read.payment_intent.is_none() {
            return Some(Folded::Foreign);
        }
        let known = find(&self.statuses, self.keys, &read.id)?;
        let status = RefundStatus::of_stripe(read.status.as_deref()).as_str();
        (known == status).then_some(Folded::Same)
    }
}

fn payer(read: &Invoice) -> Option<&CustomerId> {
    read.customer.as_ref().map(|customer| &customer.id)
}

/// What any of the page may be found by.
fn hashes<T, I: AsRef<str>>(keys: &KeyRing, page: &[T], id: impl Fn(&T) -> &I) -> Vec<Vec<u8>> {
    let of_one = |read| fingerprints(keys, id(read));
    page.iter().flat_map(of_one).collect()
}

fn find<'a, T>(
    rows: &'a HashMap<Vec<u8>, T>,
    keys: &KeyRing,
    id: impl AsRef<str>,
) -> Option<&'a T> {
    fingerprints(keys, id)
        .iter()
        .find_map(|hash| rows.get(hash))
}
