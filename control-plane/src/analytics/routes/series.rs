//! `/analytics/usage`, `/analytics/connections`, `/analytics/bandwidth`

use actix_web::{HttpRequest, HttpResponse, get, web};
use chrono::{DateTime, Utc};

use super::views::{
    BandwidthPoint, ConnectionsPoint, QuotaView, Series, Totals, UsagePoint, UsageView,
};
use crate::analytics::asked::{FormatQuery, PeriodQuery, Scope, ScopeQuery};
use crate::analytics::period::Period;
use crate::analytics::store::{self, Sums};
use crate::app::AppState;
use crate::error::ApiError;
use crate::http::ValidQuery;
use crate::http::permission::{OwnOr, ReadAnalytics};
use crate::tunnels;

/// Bytes by hours, days or months.
///
/// One's own; for support everybody's, or one user's. Bytes count in the hour in which they were stored, which is at
/// most a minute after they moved.
#[utoipa::path(
    tag = "analytics",
    security(("bearer" = []), ("operator" = [])),
    params(PeriodQuery, FormatQuery, ScopeQuery),
    responses((
        status = 200,
        description = "A bucket for each interval",
        content((UsageView = "application/json"), (String = "text/csv")),
    )),
)]
#[get("/analytics/usage")]
pub(super) async fn usage(
    http: HttpRequest,
    state: web::Data<AppState>,
    caller: OwnOr<ReadAnalytics>,
    ValidQuery(query): ValidQuery<PeriodQuery>,
    ValidQuery(form): ValidQuery<FormatQuery>,
    ValidQuery(whose): ValidQuery<ScopeQuery>,
) -> Result<HttpResponse, ApiError> {
    let scope = whose.scope(&caller)?;
    let period = query.period(&state, Utc::now())?;
    let buckets = buckets(&state, &scope, &period).await?;
    let points = buckets
        .iter()
        .map(|(start, sums)| UsagePoint::new(*start, sums));
    let points: Vec<_> = points.collect();
    let view = UsageView {
        totals: Totals::of(&points),
        quotas: quotas(&state, &scope, &period).await?,
        series: Series::new(&period, &scope, points),
    };
    form.of(&http).answer(&view, &view.series.data, "usage")
}

/// Connections by hours, days or months.
///
/// One's own; for support everybody's, or one user's.
#[utoipa::path(
    tag = "analytics",
    security(("bearer" = []), ("operator" = [])),
    params(PeriodQuery, FormatQuery, ScopeQuery),
    responses((
        status = 200,
        description = "A bucket for each interval",
        content((Series<ConnectionsPoint> = "application/json"), (String = "text/csv")),
    )),
)]
#[get("/analytics/connections")]
pub(super) async fn connection_usage(
    http: HttpRequest,
    state: web::Data<AppState>,
    caller: OwnOr<ReadAnalytics>,
    ValidQuery(query): ValidQuery<PeriodQuery>,
    ValidQuery(form): ValidQuery<FormatQuery>,
    ValidQuery(whose): ValidQuery<ScopeQuery>,
) -> Result<HttpResponse, ApiError> {
    let scope = whose.scope(&caller)?;
    let period = query.period(&state, Utc::now())?;
    let buckets = buckets(&state, &scope, &period).await?;
    let points = buckets
        .iter()
        .map(|(start, sums)| ConnectionsPoint::new(*start, sums));
    let view = Series::new(&period, &scope, points.collect());
    form.of(&http).answer(&view, &view.data, "connections")
}

/// Bandwidth by hours, days or months.
///
/// One's own; for support everybody's, or one user's.
#[utoipa::path(
    tag = "analytics",
    security(("bearer" = []), ("operator" = [])),
    params(PeriodQuery, FormatQuery, ScopeQuery),
    responses((
        status = 200,
        description = "A bucket for each interval",
        content((Series<BandwidthPoint> = "application/json"), (String = "text/csv")),
    )),
)]
#[get("/analytics/bandwidth")]
pub(super) async fn bandwidth_usage(
    http: HttpRequest,
    state: web::Data<AppState>,
    caller: OwnOr<ReadAnalytics>,
    ValidQuery(query): ValidQuery<PeriodQuery>,
    ValidQuery(form): ValidQuery<FormatQuery>,
    ValidQuery(whose): ValidQuery<ScopeQuery>,
) -> Result<HttpResponse, ApiError> {
    let now = Utc::now();
    let scope = whose.scope(&caller)?;
    let period = query.period(&state, now)?;
    let buckets = buckets(&state, &scope, &period).await?;
    let points = buckets
        .iter()
        .map(|(start, sums)| BandwidthPoint::new(*start, sums, period.elapsed(*start, now)));
    let view = Series::new(&period, &scope, points.collect());
    form.of(&http).answer(&view, &view.data, "bandwidth")
}

/// Every bucket of the period, in order.
async fn buckets(
    state: &AppState,
    scope: &Scope,
    period: &Period,
) -> Result<Vec<(DateTime<Utc>, Sums)>, ApiError> {
    Ok(store::buckets(&mut *state.db().get().await?, scope, period).await?)
}

async fn quotas(
    state: &AppState,
    scope: &Scope,
    period: &Period,
) -> Result<Vec<QuotaView>, ApiError> {
    let (Some(user), None) = (scope.user, scope.server) else {
        return Ok(Vec::new());
    };
    let months = tunnels::quota_months(&mut *state.db().get().await?, user, period.days()).await?;
    Ok(months.into_iter().map(Into::into).collect())
}
