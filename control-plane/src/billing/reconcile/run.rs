//! One comparison, from its beginning to its report.

use chrono::Utc;

use super::alone::Alone;
use super::passes::Passes;
use super::report::Report;
use super::store::{self, Ended};
use crate::app::AppState;
use crate::billing::sync::Mode;
use crate::error::ApiError;

#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    #[error("another comparison is running")]
    Busy,
    #[error(transparent)]
    Here(#[from] ApiError),
}

/// Compares everything, and repairs it unless it is only to be looked at.
pub async fn reconcile(state: &AppState, mode: Mode) -> Result<Report, ReconcileError> {
    let Some(alone) = Alone::take(state).await? else {
        return Err(ReconcileError::Busy);
    };
    Ok(compare(state, mode, &alone).await?)
}

/// The same for whoever has the right to already.
pub(super) async fn compare(state: &AppState, mode: Mode, _: &Alone) -> Result<Report, ApiError> {
    let stripe = &state.payments()?.stripe;
    let started_at = Utc::now();
    let report = Box::pin(Passes::new(state, stripe, mode).run()).await;
    let ended = Ended {
        started_at,
        ended_at: Utc::now(),
        is_dry_run: mode == Mode::Look,
        report,
    };
    let mut connection = state.db().get().await?;
    store::insert(&mut connection, &ended).await?;
    tell(&ended);
    Ok(ended.report)
}

fn tell(ended: &Ended) {
    for (kind, count) in ended.report.kinds() {
        for (outcome, number) in [
            ("looked_at", count.looked_at),
            ("repaired", count.repaired),
            ("failed", count.failed),
        ] {
            metrics::counter!("billing_reconciled_total", "kind" => kind, "outcome" => outcome)
                .increment(number);
        }
    }
    let report = serde_json::to_string(&ended.report).unwrap_or_default();
    let is_dry_run = ended.is_dry_run;
    if ended.report.is_clean() {
        tracing::info!(report, is_dry_run, "billing.reconciled");
    } else {
        tracing::warn!(report, is_dry_run, "billing.reconciled_in_part");
    }
}
