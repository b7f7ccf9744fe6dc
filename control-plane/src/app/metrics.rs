//! The metrics recorder and its listener.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix_web::http::header::ContentType;
use actix_web::{HttpResponse, web};
use chrono::Utc;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

use super::AppState;
use crate::http::observe::REQUEST_SECONDS;
use crate::usage::format;

const BUCKETS: [f64; 13] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];
const UPKEEP: Duration = Duration::from_secs(5);

/// A process has one recorder, as the `metrics` crate wants it; several applications in one
/// process share it.
static RECORDER: Mutex<Option<PrometheusHandle>> = Mutex::new(None);

#[derive(Debug, thiserror::Error)]
#[error("the metrics recorder cannot be installed")]
pub struct MetricsError(#[from] BuildError);

/// The process's recorder, installed at the first call.
pub(super) fn recorder() -> Result<PrometheusHandle, MetricsError> {
    let mut recorder = RECORDER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = recorder.as_ref() {
        return Ok(handle.clone());
    }
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full(REQUEST_SECONDS.to_owned()), &BUCKETS)?
        .install_recorder()?;
    Ok(recorder.insert(handle).clone())
}

/// Empties the recorder's buffers regularly, or they would grow between two scrapes.
pub(super) async fn upkeep(handle: PrometheusHandle, shutdown: CancellationToken) {
    let mut tick = tokio::time::interval(UPKEEP);
    while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
        handle.run_upkeep();
    }
}

/// What Prometheus scrapes.
pub(super) async fn render(state: web::Data<AppState>) -> HttpResponse {
    let pool = state.db().state();
    pool_gauges("postgres", pool.connections, pool.idle_connections);
    let pool = state.redis().state();
    pool_gauges("redis", pool.connections, pool.idle_connections);
    live_gauges(&state);
    HttpResponse::Ok()
        .content_type(ContentType::plaintext())
        .body(state.metrics().render())
}

/// What is known without asking anybody, read when it is asked for.
fn live_gauges(state: &AppState) {
    let (live, fleet) = (state.live(), state.fleet());
    let flow = live.flow(Instant::now());
    metrics::gauge!("usage_upload_bytes_per_second").set(flow.upload);
    metrics::gauge!("usage_download_bytes_per_second").set(flow.download);
    metrics::gauge!("usage_moving_peers").set(real(flow.moving));
    let holdings = live.holdings();
    metrics::gauge!("usage_peers").set(real(holdings.peers));
    metrics::gauge!("usage_unstored_peers").set(real(holdings.unstored));
    for (name, count) in fleet.states(Utc::now()).all() {
        metrics::gauge!("fleet_nodes", "state" => name).set(format::real(count));
    }
    metrics::gauge!("fleet_waiting_connects").set(real(fleet.waiting()));
    metrics::gauge!("http_requests_in_flight").set(real(state.requests().len()));
}

fn real(count: usize) -> f64 {
    format::real(u64::try_from(count).unwrap_or(u64::MAX))
}

fn pool_gauges(pool: &'static str, open: u32, idle: u32) {
    metrics::gauge!("pool_connections", "pool" => pool, "state" => "open").set(open);
    metrics::gauge!("pool_connections", "pool" => pool, "state" => "idle").set(idle);
}
