//! `/admin/security/events`

use std::cmp::Reverse;

use actix_web::{get, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::bans::BanView;
use super::network;
use super::statistics::{GroupView, group_views};
use crate::app::AppState;
use crate::error::ApiError;
use crate::http::Allowed;
use crate::http::permission::ReadSecurity;

/// Bans in the overview.
const LATEST: i64 = 20;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Offender)]
struct OffenderView {
    /// The address, or the /64 of an IPv6 address.
    #[schema(example = "203.0.113.9")]
    ip: String,
    #[schema(example = 1_204)]
    refused: u64,
    banned: bool,
}

/// What protection costs a request, in microseconds, each rounded up to a power of two; null where nothing was
/// measured.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProtectionOverhead)]
struct OverheadView {
    #[schema(example = 256)]
    p50_us: Option<u64>,
    #[schema(example = 1024)]
    p99_us: Option<u64>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SecurityEvents)]
struct EventsView {
    /// Who was refused most, the most first.
    top_offenders: Vec<OffenderView>,
    /// The groups of endpoints that refused most, the most first.
    most_hit_endpoints: Vec<GroupView>,
    /// The latest bans in force.
    bans: Vec<BanView>,
    protection_overhead: OverheadView,
}

/// What protection had to do in the last day, over all replicas.
#[utoipa::path(
    tag = "administration",
    security(("bearer" = []), ("operator" = [])),
    responses((status = 200, description = "The last day", body = EventsView)),
)]
#[get("/admin/security/events")]
pub(super) async fn show_events(
    state: web::Data<AppState>,
    _: Allowed<ReadSecurity>,
) -> Result<web::Json<EventsView>, ApiError> {
    let guard = state.guard();
    let report = guard.report().await?;
    let (bans, _) = guard.bans.page((0, LATEST)).await?;
    let mut endpoints = group_views(&report);
    endpoints.retain(|it| it.refused > 0);
    endpoints.sort_by_key(|it| Reverse(it.refused));
    let offenders = report
        .offenders
        .into_iter()
        .map(|(ip, refused)| OffenderView {
            banned: network(&ip).is_ok_and(|it| guard.bans.find(it.addr()).is_some()),
            ip,
            refused,
        });
    Ok(web::Json(EventsView {
        top_offenders: offenders.collect(),
        most_hit_endpoints: endpoints,
        bans: bans.into_iter().map(BanView::from).collect(),
        protection_overhead: OverheadView {
            p50_us: report.overhead.quantile_us(500),
            p99_us: report.overhead.quantile_us(990),
        },
    }))
}
