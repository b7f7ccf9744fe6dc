use actix_web::{HttpRequest, HttpResponse, get, web};
use chrono::Utc;
use shared::protocol::MAX_FRAME_BYTES;

use crate::app::AppState;
use crate::error::{ApiError, Code, ErrorEnvelope};
use crate::fleet::session::run;
use crate::fleet::store;
use crate::http::current_user::bearer;

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
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let fleet = state.fleet();
    let token = bearer(&request).ok_or(Code::Unauthorized)?;
    let node = fleet.identity().read_node(token, Utc::now())?;
    if fleet.is_stopping() {
        return Err(Code::Unavailable.into());
    }
    if store::token_epoch(state.db(), node.server).await? != Some(node.epoch) {
        let error = ApiError::new(Code::Unauthorized);
        return Err(error.with_message("This node's token was revoked; enrol it again"));
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
