//! What the service tells of its requests: a span each, and a histogram by route and status.
//!
//! Neither the client's address nor its user agent nor a query string (it may hold a token) is
//! recorded anywhere.

use std::borrow::Cow;
use std::cell::RefCell;
use std::time::{Duration, Instant};

use actix_web::dev::ServiceRequest;
use actix_web::http::StatusCode;
use actix_web::{Error, HttpRequest};
use foldhash::HashMap;
use metrics::Histogram;
use tracing::{Instrument, Span, field};

use super::Answer;
use super::request_id::RequestId;

/// The name of the histogram, in seconds.
pub const REQUEST_SECONDS: &str = "http_request_duration_seconds";

/// Stands for every path that is no route, so that scanners cannot grow the metrics.
const UNMATCHED: &str = "unmatched";

/// The layer: what happens to a request happens in its span, and is measured.
pub async fn observe(
    request: ServiceRequest,
    next: impl AsyncFnOnce(ServiceRequest) -> Answer,
) -> Answer {
    let start = Instant::now();
    let span = span(&request);
    let outcome = next(request).instrument(span.clone()).await;
    span.in_scope(|| tell(&span, &outcome));
    let response = outcome?;
    if let Some(series) = response.request().app_data::<Series>() {
        series.record(response.request(), response.status(), start.elapsed());
    }
    Ok(response)
}

fn span(request: &ServiceRequest) -> Span {
    // What it says is looked up only where somebody listens.
    tracing::info_span!(
        "request",
        request_id = RequestId::read(request.headers())
            .as_ref()
            .map(RequestId::as_str),
        method = method(request.method().as_str()),
        route = route(request).as_deref(),
        status = field::Empty,
    )
}

/// The pattern that takes the request, if one does.
fn route(request: &ServiceRequest) -> Option<Cow<'_, str>> {
    let series = request.app_data::<Series>();
    if series.is_some_and(|series| series.knows(request.path())) {
        return Some(request.path().into());
    }
    request.match_pattern().map(Cow::Owned)
}

fn tell(span: &Span, outcome: &Answer) {
    match outcome {
        Ok(response) => {
            span.record("status", response.status().as_u16());
            match response.response().error() {
                Some(error) if response.status().is_server_error() => failed(error),
                _ => tracing::debug!("answered"),
            }
        }
        Err(error) => failed(error),
    }
}

fn failed(error: &Error) {
    tracing::error!(error = %chain(error), "request failed");
}

/// The error with its causes.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error
        .as_error::<crate::error::ApiError>()
        .and_then(std::error::Error::source);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// One worker's handles of the histogram. Finding a route by its path walks all of them, and finding
/// a series by its labels copies each; a path that is a route by itself is found here at once.
#[derive(Default)]
pub struct Series(RefCell<HashMap<String, Outcomes>>);

/// By method and status.
type Outcomes = HashMap<(&'static str, u16), Histogram>;

impl Series {
    /// Whether the path is a route by itself. Only routes are kept.
    fn knows(&self, path: &str) -> bool {
        self.0.borrow().contains_key(path)
    }

    fn record(&self, request: &HttpRequest, status: StatusCode, took: Duration) {
        let outcome = (method(request.method().as_str()), status.as_u16());
        let mut series = self.0.borrow_mut();
        let known = series.get(request.path()).and_then(|it| it.get(&outcome));
        if let Some(histogram) = known {
            return histogram.record(took);
        }
        let route = request
            .match_pattern()
            .unwrap_or_else(|| UNMATCHED.to_owned());
        series
            .entry(route.clone())
            .or_default()
            .entry(outcome)
            .or_insert_with(|| {
                metrics::histogram!(
                    REQUEST_SECONDS,
                    "method" => outcome.0,
                    "route" => route,
                    "status" => outcome.1.to_string(),
                )
            })
            .record(took);
    }
}

impl std::fmt::Debug for Series {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Series").finish_non_exhaustive()
    }
}

/// The methods that routes have; any other is the caller's invention.
fn method(method: &str) -> &'static str {
    ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]
        .into_iter()
        .find(|known| *known == method)
        .unwrap_or("other")
}
