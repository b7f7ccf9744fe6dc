//! `/ws/*`, `/connection/events` and `/connection/ticket`.

use actix_web::{HttpRequest, HttpResponse, get, post, web};
use chrono::{DateTime, Utc};
use secrecy::ExposeSecret;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;

use super::event_stream;
use super::message::Message;
use super::metrics_socket;
use super::teller::Teller;
use super::tickets;
use super::viewer::{SocketQuery, TokenHolder, Viewer};
use crate::app::AppState;
use crate::error::{ApiError, ErrorEnvelope};
use crate::http::sse;
use crate::listener::websocket;

pub fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(connection_metrics)
        .service(connection_events)
        .service(connection_events_of)
        .service(connection_ticket)
        .service(connection_ticket_of);
}

/// What the first API had without a version in its path.
pub fn aliases(config: &mut ServiceConfig<'_>) {
    config.service(connection_metrics);
}

/// A WebSocket with the live metrics of a user's connections.
///
/// One message a second for each connection, and one when a connection begins or ends. When a server is
/// drained or falls silent the client is told, with a connection on another server that it can change
/// to without a gap; when a server's key changes it is told early and again when it happened. Of the
/// user themself, or of anybody for support. Closes with 4401 when the token is no longer valid and with
/// 4408 when messages are not taken.
#[utoipa::path(
    tag = "connections",
    security(("bearer" = []), ("operator" = [])),
    params(("user_id" = String, Path, format = Uuid, description = "Whose connections"), SocketQuery),
    responses(
        (status = 101, description = "The socket is open; its messages are:", body = Message),
        (status = 429, description = "RATE_LIMITED", body = ErrorEnvelope),
    ),
)]
#[get("/ws/connection/{user_id}")]
async fn connection_metrics(
    state: web::Data<AppState>,
    viewer: Viewer,
    http: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let teller = Teller::new(state, viewer)?;
    let tasks = teller.state().tasks().clone();
    websocket::accept(&http, metrics_socket::ROOM, move |socket| {
        tasks.track_future(metrics_socket::run(teller, socket))
    })
}

/// The live metrics of the caller's connections as server-sent events.
///
/// The messages of the WebSocket, each under its `type`, for clients that cannot open one; a comment now and
/// then shows that the stream is alive. When the token is no longer valid, events are not taken or the service
/// stops, the last event is `ended` and says why.
#[utoipa::path(
    tag = "connections",
    security(("bearer" = [])),
    params(SocketQuery),
    responses(
        (status = 200, description = "The stream; the data of its events are:",
         content_type = "text/event-stream", body = Message),
        (status = 429, description = "RATE_LIMITED", body = ErrorEnvelope),
    ),
)]
#[get("/connection/events")]
async fn connection_events(
    state: web::Data<AppState>,
    viewer: Viewer,
    http: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    stream(state, viewer, &http)
}

/// The same of any user's connections: of the caller's own, or of anybody's for support.
#[utoipa::path(
    tag = "connections",
    security(("bearer" = []), ("operator" = [])),
    params(("user_id" = String, Path, format = Uuid, description = "Whose connections"), SocketQuery),
    responses(
        (status = 200, description = "The stream; the data of its events are:",
         content_type = "text/event-stream", body = Message),
        (status = 429, description = "RATE_LIMITED", body = ErrorEnvelope),
    ),
)]
#[get("/connection/events/{user_id}")]
async fn connection_events_of(
    state: web::Data<AppState>,
    viewer: Viewer,
    http: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    stream(state, viewer, &http)
}

fn stream(
    state: web::Data<AppState>,
    viewer: Viewer,
    http: &HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let teller = Teller::new(state, viewer)?;
    let tasks = teller.state().tasks().clone();
    let (events, response) = sse::open(http);
    actix_web::rt::spawn(tasks.track_future(event_stream::run(teller, events)));
    Ok(response)
}

/// What opens one stream.
#[derive(Serialize, ToSchema)]
#[schema(as = StreamTicket)]
struct TicketView {
    /// For `?ticket=` of the WebSocket or of the events, once.
    #[schema(example = "q7RkEXz0m1nO5ghMQ1J4qT0o7hYV1cGmJk2s9yB3d8U")]
    ticket: String,
    /// It has to be used before.
    expires_at: DateTime<Utc>,
    /// Seconds.
    #[schema(example = 30)]
    expires_in: u64,
}

/// A ticket that opens one WebSocket or one stream of events about the caller's connections.
///
/// For browsers, which cannot send a header there: it works once, within thirty seconds, and for no longer
/// than the caller's session. A stream that it opened ends with the caller's access token.
#[utoipa::path(
    tag = "connections",
    security(("bearer" = [])),
    responses((status = 201, description = "The ticket", body = TicketView)),
)]
#[post("/connection/ticket")]
async fn connection_ticket(
    state: web::Data<AppState>,
    TokenHolder(viewer): TokenHolder,
) -> Result<HttpResponse, ApiError> {
    ticket(&state, &viewer).await
}

/// The same about any user's connections: about the caller's own, or about anybody's for support.
#[utoipa::path(
    tag = "connections",
    security(("bearer" = []), ("operator" = [])),
    params(("user_id" = String, Path, format = Uuid, description = "Whose connections")),
    responses((status = 201, description = "The ticket", body = TicketView)),
)]
#[post("/connection/ticket/{user_id}")]
async fn connection_ticket_of(
    state: web::Data<AppState>,
    TokenHolder(viewer): TokenHolder,
) -> Result<HttpResponse, ApiError> {
    ticket(&state, &viewer).await
}

async fn ticket(state: &AppState, viewer: &Viewer) -> Result<HttpResponse, ApiError> {
    let expires_at = Utc::now() + tickets::LIFE;
    let ticket = tickets::issue(state, &viewer.pass()).await?;
    Ok(HttpResponse::Created().json(TicketView {
        ticket: ticket.expose_secret().to_owned(),
        expires_at,
        expires_in: tickets::LIFE.as_secs(),
    }))
}
