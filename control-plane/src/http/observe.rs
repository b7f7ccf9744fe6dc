//! What the service tells of its requests: a span each, and a histogram by route and status.
//!
//! Neither the client's address nor its user agent nor a query string (it may hold a token) is
//! recorded anywhere.

use std::time::Instant;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage};
use tracing::{Span, field};
use tracing_actix_web::RootSpanBuilder;

use super::request_id::RequestId;

/// The name of the histogram, in seconds.
pub const REQUEST_SECONDS: &str = "http_request_duration_seconds";

/// Stands for every path that is no route, so that scanners cannot grow the metrics.
const UNMATCHED: &str = "unmatched";

/// Measures each request.
pub async fn measure<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let start = Instant::now();
    let response = next.call(request).await?;
    let route = response
        .request()
        .match_pattern()
        .unwrap_or_else(|| UNMATCHED.to_owned());
    metrics::histogram!(
        REQUEST_SECONDS,
        "method" => method(response.request().method().as_str()),
        "route" => route,
        "status" => response.status().as_u16().to_string(),
    )
    .record(start.elapsed());
    Ok(response)
}

/// The methods that routes have; any other is the caller's invention.
fn method(method: &str) -> &'static str {
    ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]
        .into_iter()
        .find(|known| *known == method)
        .unwrap_or("other")
}

/// The span around a request.
#[derive(Debug)]
pub struct RequestSpan;

impl RootSpanBuilder for RequestSpan {
    fn on_request_start(request: &ServiceRequest) -> Span {
        let id = request.extensions().get::<RequestId>().cloned();
        tracing::info_span!(
            "request",
            request_id = id.as_ref().map(RequestId::as_str),
            method = method(request.method().as_str()),
            route = request.match_pattern(),
            status = field::Empty,
        )
    }

    fn on_request_end<B: MessageBody>(span: Span, outcome: &Result<ServiceResponse<B>, Error>) {
        let _entered = span.enter();
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
