//! `/admin/overview`

use std::future::pending;
use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, get, web};
use chrono::Utc;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{MissedTickBehavior, interval, sleep};
use utoipa_actix_web::service_config::ServiceConfig;

use super::views::OverviewView;
use crate::app::AppState;
use crate::error::{ApiError, Code, ErrorEnvelope};
use crate::http::permission::ReadOverview;
use crate::http::sse::{self, Ended, EndedReason, EventSender, Lost};
use crate::http::{Allowed, Holding};

const EVERY: Duration = Duration::from_secs(2);
/// Looks between two questions whether the viewer still may.
const ADMIT_TICKS: u32 = 3;
/// The name of its events.
const EVENT: &str = "overview";

pub fn routes(config: &mut ServiceConfig<'_>) {
    config.service(overview).service(overview_stream);
}

/// Nodes, connections, traffic, people, subscriptions, jobs and alerts at a glance.
///
/// Over all replicas. What moves is at most three seconds old, what is counted over whole tables at most six.
#[utoipa::path(
    tag = "administration",
    security(("bearer" = []), ("operator" = [])),
    responses((status = 200, description = "The overview", body = OverviewView)),
)]
#[get("/admin/overview")]
async fn overview(
    state: web::Data<AppState>,
    _: Allowed<ReadOverview>,
) -> Result<HttpResponse, ApiError> {
    let view = state.overview().glance(&state).await?;
    Ok(HttpResponse::Ok().json(&*view))
}

/// The same every two seconds, as server-sent events named `overview`.
///
/// When the token is no longer valid, events are not taken or the service stops, the last event is `ended` and
/// says why.
#[utoipa::path(
    tag = "administration",
    security(("bearer" = []), ("operator" = [])),
    responses(
        (status = 200, description = "The stream; the data of its events are:",
         content_type = "text/event-stream", body = OverviewView),
        (status = 429, description = "RATE_LIMITED: too many look already", body = ErrorEnvelope),
    ),
)]
#[get("/admin/overview/stream")]
async fn overview_stream(
    state: web::Data<AppState>,
    viewer: Holding<ReadOverview>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let place = state.overview().place().ok_or(Code::RateLimited)?;
    let (events, response) = sse::open(&request);
    let tasks = state.tasks().clone();
    actix_web::rt::spawn(tasks.track_future(run(state, viewer, events, place)));
    Ok(response)
}

async fn run(
    state: web::Data<AppState>,
    viewer: Holding<ReadOverview>,
    mut events: EventSender,
    _place: OwnedSemaphorePermit,
) {
    metrics::gauge!("overview_streams").increment(1.0);
    let reason = serve(&state, &viewer, &mut events).await;
    metrics::gauge!("overview_streams").decrement(1.0);
    if let Some(reason) = reason {
        events.end(Ended::EVENT, &Ended::now(reason));
    }
}

/// Until one side ends it; why, where the client is to be told.
async fn serve(
    state: &AppState,
    viewer: &Holding<ReadOverview>,
    events: &mut EventSender,
) -> Option<EndedReason> {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let expiry = async {
        match viewer.holder.expires_at() {
            Some(at) => sleep((at - Utc::now()).to_std().unwrap_or_default()).await,
            None => pending().await,
        }
    };
    tokio::pin!(expiry);
    let mut ticks = 0_u32;
    loop {
        tokio::select! {
            () = state.shutdown().cancelled() => return Some(EndedReason::ServiceStops),
            () = &mut expiry => return Some(EndedReason::Unauthorized),
            () = events.gone() => return None,
            _ = tick.tick() => {}
        }
        let asks = ticks.is_multiple_of(ADMIT_TICKS);
        ticks = ticks.wrapping_add(1);
        if viewer.holder.is_out(state) || asks && !may_stay(state, viewer).await {
            return Some(EndedReason::Unauthorized);
        }
        match tell(state, events).await {
            Ok(()) => {}
            Err(Lost::Gone) => return None,
            Err(Lost::TooSlow) => return Some(EndedReason::TooSlow),
        }
    }
}

/// While the database is away they stay: the stream ends with its token.
async fn may_stay(state: &AppState, viewer: &Holding<ReadOverview>) -> bool {
    match viewer.is_admitted(state).await {
        Ok(admitted) => admitted,
        Err(error) => {
            tracing::debug!(%error, "overview.viewer_check_failed");
            true
        }
    }
}

async fn tell(state: &AppState, events: &mut EventSender) -> Result<(), Lost> {
    match state.overview().glance(state).await {
        Ok(view) => events.send(EVENT, &*view).await,
        Err(error) => {
            tracing::debug!(%error, "overview.look_failed");
            events.beat().await
        }
    }
}
