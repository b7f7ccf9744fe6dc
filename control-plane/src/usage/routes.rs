//! `/ws/*`.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, get, web};
use utoipa_actix_web::service_config::ServiceConfig;

use super::message::Message;
use super::metrics_socket::Socket;
use super::viewer::{SocketQuery, Viewer};
use crate::app::AppState;
use crate::error::{ApiError, Code, ErrorEnvelope};

/// Metrics sockets that may watch one user at once on one replica.
const MAX_SOCKETS_PER_USER: usize = 16;
/// Clients send nothing of size.
const MAX_CLIENT_FRAME: usize = 4 * 1024;

pub fn routes(config: &mut ServiceConfig<'_>) {
    config.service(connection_metrics);
}

/// What the first API had without a version in its path.
pub fn aliases(config: &mut ServiceConfig<'_>) {
    routes(config);
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
    security(("bearer" = [])),
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
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let changed = state.live().watch(viewer.user);
    if Arc::strong_count(&changed) > MAX_SOCKETS_PER_USER {
        return Err(Code::RateLimited.into());
    }
    let (response, session, incoming) = actix_ws::handle(&http, payload)
        .map_err(|error| ApiError::invalid("Upgrade", format!("Not a WebSocket: {error}")))?;
    let incoming = incoming
        .max_frame_size(MAX_CLIENT_FRAME)
        .aggregate_continuations()
        .max_continuation_size(MAX_CLIENT_FRAME);
    let tasks = state.tasks().clone();
    let seat = state.live().audience().seat(viewer.is_owner());
    let socket = Socket {
        state,
        viewer,
        session,
        changed,
        seat,
    };
    actix_web::rt::spawn(tasks.track_future(socket.run(incoming)));
    Ok(response)
}
