use actix_web::{HttpRequest, HttpResponse, get, web};
use shared::protocol::MAX_FRAME_BYTES;

use super::caller::CurrentNode;
use crate::app::AppState;
use crate::error::{ApiError, Code, ErrorEnvelope};
use crate::fleet::session::run;
use crate::listener::websocket::{self, Room};

/// Most of what a node sends is counters, a frame a second.
const ROOM: Room = Room {
    message: MAX_FRAME_BYTES,
    buffer: 8 * 1024,
};

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
) -> Result<HttpResponse, ApiError> {
    let fleet = state.fleet();
    if fleet.is_stopping() {
        return Err(Code::Unavailable.into());
    }
    let (fleet, tasks) = (fleet.clone(), state.tasks().clone());
    websocket::accept(&request, ROOM, move |socket| {
        tasks.track_future(run(fleet, node, socket))
    })
}
