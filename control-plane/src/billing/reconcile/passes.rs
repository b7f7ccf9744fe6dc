//! What is compared, list by list.

use std::collections::HashSet;

use chrono::Utc;
use uuid::Uuid;

use super::report::{Count, Report};
use super::{drift, known};
use crate::app::AppState;
use crate::billing::invoices::{self, Folded};
use crate::billing::reference::fingerprints;
use crate::billing::stripe::Stripe;
use crate::billing::sync::{Mode, SyncError};
use crate::billing::{purchases, refunds, subscription};
use crate::error::ApiError;

/// Rows of ours that are read at once.
const BATCH: i64 = 100;

pub(super) struct Passes<'a> {
    state: &'a AppState,
    stripe: &'a Stripe,
    mode: Mode,
    report: Report,
    /// What subscriptions and invoices in Stripe's lists are found by.
    listed: HashSet<Vec<u8>>,
}

impl<'a> Passes<'a> {
    pub(super) fn new(state: &'a AppState, stripe: &'a Stripe, mode: Mode) -> Self {
        Self {
            state,
            stripe,
            mode,
            report: Report::default(),
            listed: HashSet::new(),
        }
    }

    /// Subscriptions come first: payments belong to them.
    pub(super) async fn run(mut self) -> Report {
        let passes = [
            ("purchases", self.purchases().await),
            ("subscriptions", self.subscriptions().await),
            ("running", self.running().await),
            ("payments", self.payments().await),
            ("unpaid", self.unpaid().await),
            ("refunds", self.refunds().await),
            ("unfinished_refunds", self.unfinished_refunds().await),
            ("given_back", self.given_back().await),
        ];
        for (pass, result) in passes {
            if let Err(error) = result {
                self.report.is_complete = false;
                tracing::warn!(pass, %error, "billing.reconcile_pass_failed");
            }
        }
        self.report
    }

    /// What somebody began to buy. Only what was paid for changes something.
    async fn purchases(&mut self) -> Result<(), SyncError> {
        if self.mode == Mode::Look {
            return Ok(());
        }
        let (done, failed) = purchases::settle_old(self.state, Utc::now()).await?;
        let count = |number| u64::try_from(number).unwrap_or(u64::MAX);
        self.report.purchases = Count {
            looked_at: count(done + failed),
            repaired: count(done),
            failed: count(failed),
        };
        Ok(())
    }

    /// What Stripe lists of subscriptions.
    async fn subscriptions(&mut self) -> Result<(), SyncError> {
        let mut pages = self.stripe.subscriptions(None);
        while let Some(page) = pages.next().await? {
            let known = known::Subscriptions::of(self.state, &page).await?;
            for read in page {
                self.list(&read.id);
                let result = match known.verdict(&read) {
                    Some(verdict) => Ok(verdict),
                    None => Box::pin(drift::repair(self.state, &read, self.mode)).await,
                };
                note(&mut self.report.subscriptions, result);
            }
        }
        Ok(())
    }

    /// What runs here and Stripe did not list: nothing is known of that where the list could not be read.
    async fn running(&mut self) -> Result<(), SyncError> {
        let mut after = Uuid::nil();
        loop {
            let rows = {
                let mut connection = self.state.db().get().await.map_err(ApiError::from)?;
                let keys = self.state.keys();
                subscription::all_at_stripe(&mut connection, keys, after, BATCH).await?
            };
            let Some(last) = rows.last() else {
                return Ok(());
            };
            after = last.row;
            for row in rows {
                if !self.is_listed(&row.hash) {
                    let repairing = drift::repair_unlisted(self.state, &row, self.mode);
                    let result = Box::pin(repairing).await;
                    note(&mut self.report.subscriptions, result);
                }
            }
        }
    }

    /// What Stripe lists of invoices.
    async fn payments(&mut self) -> Result<(), SyncError> {
        let mut pages = self.stripe.invoices(None);
        while let Some(page) = pages.next().await? {
            let known = known::Payments::of(self.state, &page).await?;
            for read in page {
                self.list(&read.id);
                let result = match known.verdict(&read) {
                    Some(verdict) => Ok(verdict),
                    None => {
                        let customer = read.customer.as_ref().map(|it| &it.id);
                        let reading = invoices::invoice(self.state, &read.id, customer, self.mode);
                        Box::pin(reading).await
                    }
                };
                note(&mut self.report.payments, result);
            }
        }
        Ok(())
    }

    /// What is to be paid here and Stripe did not list.
    async fn unpaid(&mut self) -> Result<(), SyncError> {
        let mut after = Uuid::nil();
        loop {
            let rows = {
                let mut connection = self.state.db().get().await.map_err(ApiError::from)?;
                invoices::unpaid(&mut connection, after, BATCH).await?
            };
            let Some(last) = rows.last() else {
                return Ok(());
            };
            after = last.id;
            for row in rows {
                if !self.is_listed(&row.hash) {
                    let id = row.invoice(self.state.keys())?;
                    let reading = invoices::invoice(self.state, &id, None, self.mode);
                    let result = Box::pin(reading).await;
                    note(&mut self.report.payments, result);
                }
            }
        }
    }

    /// What Stripe lists of refunds.
    async fn refunds(&mut self) -> Result<(), SyncError> {
        let mut pages = self.stripe.refunds(None);
        while let Some(page) = pages.next().await? {
            let known = known::Refunds::of(self.state, &page).await?;
            for read in page {
                let result = match (known.verdict(&read), &read.payment_intent) {
                    (Some(verdict), _) => Ok(verdict),
                    (None, Some(intent)) => {
                        Box::pin(invoices::intent(self.state, &intent.id, self.mode)).await
                    }
                    (None, None) => Ok(Folded::Foreign),
                };
                note(&mut self.report.refunds, result);
            }
        }
        Ok(())
    }

    /// What was promised and is not made.
    async fn unfinished_refunds(&mut self) -> Result<(), SyncError> {
        let (now, mut after) = (Utc::now(), Uuid::nil());
        loop {
            let rows = {
                let mut connection = self.state.db().get().await.map_err(ApiError::from)?;
                refunds::unfinished(&mut connection, now, after, BATCH).await?
            };
            let Some(last) = rows.last() else {
                return Ok(());
            };
            after = *last;
            for id in rows {
                let result = match self.mode {
                    Mode::Write => Box::pin(refunds::carry_out(self.state, id, false)).await,
                    Mode::Look => Ok(()),
                };
                note(&mut self.report.refunds, result.map(|()| Folded::Changed));
            }
        }
    }

    /// What runs although nothing is left of what was paid for it.
    async fn given_back(&mut self) -> Result<(), SyncError> {
        let (now, mut after) = (Utc::now(), Uuid::nil());
        loop {
            let rows = {
                let mut connection = self.state.db().get().await.map_err(ApiError::from)?;
                invoices::given_back(&mut connection, now, after, BATCH).await?
            };
            let Some(last) = rows.last() else {
                return Ok(());
            };
            after = last.id;
            for row in rows {
                let ending = invoices::end_given_back(self.state, &row.payment, self.mode);
                match Box::pin(ending).await {
                    Ok(false) => {}
                    Ok(true) => note(&mut self.report.subscriptions, Ok(Folded::Changed)),
                    Err(error) => note(&mut self.report.subscriptions, Err(error)),
                }
            }
        }
    }

    fn list(&mut self, id: impl AsRef<str>) {
        self.listed.extend(fingerprints(self.state.keys(), id));
    }

    fn is_listed(&self, hash: &[u8]) -> bool {
        self.listed.contains(hash)
    }
}

/// What is nobody's here is not counted.
fn note(count: &mut Count, result: Result<Folded, SyncError>) {
    match result {
        Ok(Folded::Foreign) => return,
        Ok(Folded::Same) => {}
        Ok(Folded::Changed) => count.repaired += 1,
        Err(error) => {
            count.failed += 1;
            tracing::warn!(%error, "billing.reconcile_one_failed");
        }
    }
    count.looked_at += 1;
}
