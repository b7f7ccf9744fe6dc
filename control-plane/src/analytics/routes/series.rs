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
    let buckets = Buckets::read(&state, &caller, &query, &whose).await?;
    let series = buckets.series(UsagePoint::new);
    let view = UsageView {
        totals: Totals::of(&series.data),
        quotas: quotas(&state, &buckets).await?,
        series,
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
    let buckets = Buckets::read(&state, &caller, &query, &whose).await?;
    let view = buckets.series(ConnectionsPoint::new);
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
    let buckets = Buckets::read(&state, &caller, &query, &whose).await?;
    let now = Utc::now();
    let elapsed = |start| buckets.period.elapsed(start, now);
    let view = buckets.series(|start, sums| BandwidthPoint::new(start, sums, elapsed(start)));
    form.of(&http).answer(&view, &view.data, "bandwidth")
}

/// What a caller asked for: every bucket of the period, in order.
struct Buckets {
    scope: Scope,
    period: Period,
    sums: Vec<(DateTime<Utc>, Sums)>,
}

impl Buckets {
    async fn read(
        state: &AppState,
        caller: &OwnOr<ReadAnalytics>,
        query: &PeriodQuery,
        whose: &ScopeQuery,
    ) -> Result<Self, ApiError> {
        let scope = whose.scope(caller)?;
        let period = query.period(state, Utc::now())?;
        let sums = store::buckets(&mut *state.db().get().await?, &scope, &period).await?;
        Ok(Self {
            scope,
            period,
            sums,
        })
    }

    fn series<T>(&self, point: impl Fn(DateTime<Utc>, &Sums) -> T) -> Series<T> {
        let points = self.sums.iter().map(|(start, sums)| point(*start, sums));
        Series::new(&self.period, &self.scope, points.collect())
    }
}

async fn quotas(state: &AppState, buckets: &Buckets) -> Result<Vec<QuotaView>, ApiError> {
    let (Some(user), None) = (buckets.scope.user, buckets.scope.server) else {
        return Ok(Vec::new());
    };
    let days = buckets.period.days();
    let months = tunnels::quota_months(&mut *state.db().get().await?, user, days).await?;
    Ok(months.into_iter().map(Into::into).collect())
}
