//! `/admin/overview`

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, get, web};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{MissedTickBehavior, interval};
use utoipa_actix_web::service_config::ServiceConfig;

use super::views::OverviewView;
use crate::app::AppState;
use crate::error::{ApiError, Code, ErrorEnvelope};
use crate::http::permission::ReadOverview;
use crate::http::sse::{self, Ended, EndedReason, EventSender, Lost};
use crate::http::{Allowed, Holding, Stay};

const EVERY: Duration = Duration::from_secs(2);
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
    let mut stay = Stay::of(viewer);
    loop {
        tokio::select! {
            () = state.shutdown().cancelled() => return Some(EndedReason::ServiceStops),
            () = stay.over() => return Some(EndedReason::Unauthorized),
            () = events.gone() => return None,
            _ = tick.tick() => {}
        }
        if !stay.goes_on(viewer, state).await {
            return Some(EndedReason::Unauthorized);
        }
        match tell(state, events).await {
            Ok(()) => {}
            Err(Lost::Gone) => return None,
            Err(Lost::TooSlow) => return Some(EndedReason::TooSlow),
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
