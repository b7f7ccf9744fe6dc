//! `/admin/billing/reconciliation`

use actix_web::{get, web};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;

use super::report::Report;
use super::store::{self, Ended};
use crate::app::AppState;
use crate::error::ApiError;
use crate::http::Allowed;
use crate::http::permission::ReadBilling;

pub fn routes(config: &mut ServiceConfig<'_>) {
    config.service(last_reconciliation);
}

/// The latest comparison with the payment provider.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Reconciliation)]
struct View {
    /// Null where there was none yet.
    last: Option<EndedView>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EndedReconciliation)]
struct EndedView {
    started_at: DateTime<Utc>,
    ended_at: DateTime<Utc>,
    /// It repaired nothing.
    is_dry_run: bool,
    report: Report,
}

impl From<Ended> for EndedView {
    fn from(ended: Ended) -> Self {
        Self {
            started_at: ended.started_at,
            ended_at: ended.ended_at,
            is_dry_run: ended.is_dry_run,
            report: ended.report,
        }
    }
}

/// What the latest comparison of everything with the payment provider found. There is one every night, and
/// whenever an operator runs `control-plane billing reconcile`.
#[utoipa::path(
    tag = "administration",
    security(("bearer" = []), ("operator" = [])),
    responses((status = 200, description = "The latest comparison", body = View)),
)]
#[get("/admin/billing/reconciliation")]
async fn last_reconciliation(
    state: web::Data<AppState>,
    _: Allowed<ReadBilling>,
) -> Result<web::Json<View>, ApiError> {
    let mut connection = state.db().get().await?;
    let last = store::last(&mut connection).await?;
    Ok(web::Json(View {
        last: last.map(EndedView::from),
    }))
}
