//! `/connection/statistics`

use actix_web::{HttpRequest, get, web};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::views::TotalsView;
use crate::analytics::{self, Figures, Interval, PeriodQuery, Sums};
use crate::app::AppState;
use crate::error::ApiError;
use crate::http::{CurrentUser, Page, PageQuery, ValidQuery};
use crate::tunnels::store;

#[derive(Serialize, ToSchema)]
#[schema(as = StatisticsBucket)]
struct Bucket {
    start: DateTime<Utc>,
    #[serde(flatten)]
    figures: Figures,
}

/// What the caller's connections moved.
#[derive(Serialize, ToSchema)]
#[schema(as = ConnectionStatistics)]
pub(super) struct Statistics {
    #[schema(inline)]
    interval: Interval,
    /// The beginning of the first bucket.
    from: DateTime<Utc>,
    /// The end of the last.
    to: DateTime<Utc>,
    /// Of all buckets together.
    totals: Figures,
    /// One for each interval, in order, those without anything included.
    buckets: Vec<Bucket>,
    /// Those that were there in the period, the newest first, each with all that it moved.
    connections: Page<TotalsView>,
}

/// What the caller's connections moved, by connections and by hours, days or months.
///
/// A connection's totals are those of its whole life, at this moment; buckets have bytes from when they were
/// stored, which is at most a minute after they moved.
#[utoipa::path(
    tag = "connections",
    security(("bearer" = [])),
    params(PeriodQuery, PageQuery),
    responses((status = 200, description = "The totals", body = Statistics)),
)]
#[get("/connection/statistics")]
pub(super) async fn statistics(
    request: HttpRequest,
    state: web::Data<AppState>,
    user: CurrentUser,
    ValidQuery(query): ValidQuery<PeriodQuery>,
    ValidQuery(asked): ValidQuery<PageQuery>,
) -> Result<web::Json<Statistics>, ApiError> {
    let now = Utc::now();
    let period = query.period(&state, now)?;
    let (buckets, (connections, total)) = {
        let mut conn = state.db().get().await?;
        let buckets = analytics::used_by(&mut conn, user.id, &period).await?;
        let rows = (asked.offset(), asked.limit());
        let times = period.from..period.to;
        let connections = store::used_in(&mut conn, user.id, times, rows).await?;
        (buckets, connections)
    };
    let totals = buckets
        .iter()
        .fold(Sums::default(), |all, (_, sums)| all.plus(*sums));
    let data = connections
        .iter()
        .map(|it| TotalsView::new(it, state.live(), now));
    let (path, query) = (request.path(), request.query_string());
    Ok(web::Json(Statistics {
        interval: period.interval,
        from: period.from,
        to: period.to,
        totals: (&totals).into(),
        buckets: buckets
            .iter()
            .map(|(start, sums)| Bucket {
                start: *start,
                figures: sums.into(),
            })
            .collect(),
        connections: Page::new(data.collect(), total, asked, path, query),
    }))
}
