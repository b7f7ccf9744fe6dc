//! `/admin/rate-limits/stats`

use actix_web::{get, web};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::AppState;
use crate::error::ApiError;
use crate::guard::census::Report;
use crate::guard::group::Group;
use crate::http::Allowed;
use crate::http::permission::ReadSecurity;

/// One group of endpoints in the last day.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EndpointStatistics)]
pub(super) struct GroupView {
    endpoint: Group,
    /// Requests that had room.
    #[schema(example = 5_120)]
    passed: u64,
    /// Requests that were refused: no room, or banned.
    #[schema(example = 37)]
    pub(super) refused: u64,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RateLimitStatistics)]
struct StatisticsView {
    /// Requests of the last day that had room, whitelisted ones left out.
    #[schema(example = 181_300)]
    passed: u64,
    #[schema(example = 412)]
    refused: u64,
    #[schema(example = 3)]
    bans_in_force: usize,
    /// The part of the limits that holds at present on this replica: less than 1 while the host is loaded.
    #[schema(example = 1.0)]
    limits_share: f64,
    endpoints: Vec<GroupView>,
}

pub(super) fn group_views(report: &Report) -> Vec<GroupView> {
    let groups = report.groups.iter();
    let view = |(group, passed, refused): &(Group, u64, u64)| GroupView {
        endpoint: *group,
        passed: *passed,
        refused: *refused,
    };
    groups.map(view).collect()
}

/// What the limits let pass and refused in the last day, over all replicas.
#[utoipa::path(
    tag = "administration",
    security(("bearer" = []), ("operator" = [])),
    responses((status = 200, description = "The last day", body = StatisticsView)),
)]
#[get("/admin/rate-limits/stats")]
pub(super) async fn show_statistics(
    state: web::Data<AppState>,
    _: Allowed<ReadSecurity>,
) -> Result<web::Json<StatisticsView>, ApiError> {
    let guard = state.guard();
    let endpoints = group_views(&guard.report().await?);
    Ok(web::Json(StatisticsView {
        passed: endpoints.iter().map(|it| it.passed).sum(),
        refused: endpoints.iter().map(|it| it.refused).sum(),
        bans_in_force: guard.bans.count(),
        limits_share: f64::from(guard.throttle.share()) / 1000.0,
        endpoints,
    }))
}
