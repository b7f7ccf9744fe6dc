use actix_web::{HttpRequest, HttpResponse, get, web};
use shared::protocol::MAX_FRAME_BYTES;

use super::caller::CurrentNode;
use crate::app::AppState;
use crate::error::{ApiError, Code, ErrorEnvelope};
use crate::fleet::session::run;

/// A node's session, as a WebSocket.
///
/// Text frames are JSON messages, binary frames are counters; the first message is the node's Hello.
#[utoipa::path(
    tag = "node",
    security(("node" = [])),
    responses(
        (status = 101, description = "The session is open"),
        (status = 400, description = "INVALID_INPUT: no WebSocket handshake", body = ErrorEnvelope),
    ),
)]
#[get("/node/v1/session")]
pub(super) async fn session(
    request: HttpRequest,
    state: web::Data<AppState>,
    CurrentNode(node): CurrentNode,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let fleet = state.fleet();
    if fleet.is_stopping() {
        return Err(Code::Unavailable.into());
    }
    let (response, socket, frames) = actix_ws::handle(&request, payload)
        .map_err(|_| ApiError::invalid("Upgrade", "A WebSocket handshake is needed"))?;
    let frames = frames
        .max_frame_size(MAX_FRAME_BYTES)
        .aggregate_continuations()
        .max_continuation_size(MAX_FRAME_BYTES);
    let running = run(fleet.clone(), node, socket, frames);
    actix_web::rt::spawn(state.tasks().track_future(running));
    Ok(response)
}
