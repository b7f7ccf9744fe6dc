//! `/analytics/plans`

use actix_web::{HttpRequest, HttpResponse, get, web};
use chrono::Utc;
use serde::Serialize;
use utoipa::ToSchema;

use super::views::{Figures, Summary};
use crate::analytics::answer::{Names, Row};
use crate::analytics::asked::{FormatQuery, PeriodQuery};
use crate::analytics::store;
use crate::app::AppState;
use crate::error::ApiError;
use crate::http::permission::ReadAnalytics;
use crate::http::{Allowed, ValidQuery};

/// What the people of a plan used.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PlanUsage)]
struct PlanRow {
    /// The plan that they have now.
    #[schema(example = "premium_monthly")]
    plan_id: String,
    /// How many of them used anything.
    #[schema(example = 41)]
    users: u64,
    #[serde(flatten)]
    figures: Figures,
}

impl Row for PlanRow {
    const HEADER: &'static [Names] = &[&["plan_id", "users"], Figures::HEADER];

    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.plan_id.clone(), self.users.to_string()];
        cells.extend(self.figures.cells());
        cells
    }
}

/// What the people of each plan used in a period, the busiest plan first.
///
/// The period is made of whole buckets of `interval`, and no longer than 31 days.
#[utoipa::path(
    tag = "analytics",
    security(("bearer" = []), ("operator" = [])),
    params(PeriodQuery, FormatQuery),
    responses((
        status = 200,
        description = "The plans of those who used anything",
        content((Summary<PlanRow> = "application/json"), (String = "text/csv")),
    )),
)]
#[get("/analytics/plans")]
pub(super) async fn plan_usage(
    http: HttpRequest,
    state: web::Data<AppState>,
    _: Allowed<ReadAnalytics>,
    ValidQuery(query): ValidQuery<PeriodQuery>,
    ValidQuery(form): ValidQuery<FormatQuery>,
) -> Result<HttpResponse, ApiError> {
    let period = query.list_period(&state, Utc::now())?;
    let used = store::by_plan(&mut *state.db().get().await?, &period).await?;
    let rows = used.into_iter().map(|it| PlanRow {
        plan_id: it.plan,
        users: it.users,
        figures: (&it.sums).into(),
    });
    let view = Summary::new(&period, rows.collect());
    form.of(&http).answer(&view, &view.data, "plans")
}
