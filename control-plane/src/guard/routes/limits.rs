//! `/admin/rate-limits/status` and `…/reset`

use actix_web::{HttpResponse, delete, get, web};
use garde::Validate;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::{subject, written};
use crate::app::AppState;
use crate::audit::{self, Action, Event};
use crate::error::ApiError;
use crate::guard::group::Group;
use crate::http::permission::{ReadSecurity, WriteSecurity};
use crate::http::{Allowed, RequestId, ValidQuery};

#[derive(Debug, Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
struct EndpointQuery {
    /// Only this group of endpoints, such as `auth_login`.
    #[garde(skip)]
    #[param(inline, example = "auth_login")]
    endpoint: Option<Group>,
}

impl EndpointQuery {
    fn groups(&self) -> Vec<Group> {
        self.endpoint
            .map_or_else(|| Group::ALL.to_vec(), |group| vec![group])
    }
}

/// How an address stands with one group of endpoints.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RateLimitWindow)]
struct WindowView {
    endpoint: Group,
    /// How many pass in a window, its burst included.
    #[schema(example = 7)]
    limit: u32,
    #[schema(example = 2)]
    remaining: u32,
    #[schema(example = 300)]
    window_seconds: u64,
    /// Seconds until the next one passes; 0 where it does now.
    #[schema(example = 0)]
    retry_after: u64,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RateLimitStatus)]
struct StatusView {
    #[schema(example = "203.0.113.9")]
    ip: String,
    banned: bool,
    windows: Vec<WindowView>,
}

/// How an address stands with the limits, over all replicas. Asking counts nothing.
#[utoipa::path(
    tag = "administration",
    security(("bearer" = []), ("operator" = [])),
    params(("ip" = String, Path, description = "An address", example = "203.0.113.9"), EndpointQuery),
    responses((status = 200, description = "Its windows", body = StatusView)),
)]
#[get("/admin/rate-limits/status/{ip}")]
pub(super) async fn show_rate_limits(
    state: web::Data<AppState>,
    _: Allowed<ReadSecurity>,
    path: web::Path<String>,
    ValidQuery(query): ValidQuery<EndpointQuery>,
) -> Result<web::Json<StatusView>, ApiError> {
    let (subject, groups) = (subject(&path)?, query.groups());
    let windows = state.guard().standing(subject, &groups).await;
    let windows = windows
        .into_iter()
        .map(|(group, limit, standing)| WindowView {
            endpoint: group,
            limit: limit.capacity(),
            remaining: standing.remaining,
            window_seconds: limit.window.as_secs(),
            retry_after: standing.wait_ms.map_or(0, |wait| wait.div_ceil(1000)),
        });
    Ok(web::Json(StatusView {
        ip: written(subject.network()),
        banned: state.guard().bans.find(subject.network().addr()).is_some(),
        windows: windows.collect(),
    }))
}

/// Forgets what counts against an address, over all replicas.
#[utoipa::path(
    tag = "administration",
    security(("bearer" = []), ("operator" = [])),
    params(("ip" = String, Path, description = "An address", example = "203.0.113.9"), EndpointQuery),
    responses((status = 204, description = "Its windows are empty")),
)]
#[delete("/admin/rate-limits/reset/{ip}")]
pub(super) async fn reset_rate_limits(
    state: web::Data<AppState>,
    allowed: Allowed<WriteSecurity>,
    request: RequestId,
    path: web::Path<String>,
    ValidQuery(query): ValidQuery<EndpointQuery>,
) -> Result<HttpResponse, ApiError> {
    let (subject, groups) = (subject(&path)?, query.groups());
    let event = Event::new(Action::ResetRateLimits, allowed.actor.clone())
        .change(Value::Null, json!({ "endpoint": query.endpoint }))
        .in_request(&request);
    audit::record(&mut *state.db().get().await?, &event).await?;
    state.guard().reset(subject, &groups).await?;
    Ok(HttpResponse::NoContent().finish())
}
