use actix_web::{HttpResponse, post, web};
use chrono::Utc;
use shared::ids::ConnectionId;

use super::input::{DisconnectBody, connection_in_path};
use super::views::DisconnectView;
use crate::app::AppState;
use crate::error::{ApiError, ErrorEnvelope};
use crate::http::{CurrentUser, OptionalJson};
use crate::tunnels::disconnect::disconnect;

/// Ends a connection.
///
/// Without a `connection_id` the only live one ends, and several are a conflict. The answer has the
/// node's final counters; where the node does not answer within two seconds, those known so far.
/// Repeating it changes nothing.
#[utoipa::path(
    tag = "connections",
    security(("bearer" = [])),
    request_body = Option<DisconnectBody>,
    responses(
        (status = 200, description = "Ended", body = DisconnectView),
        (status = 404, description = "CONNECTION_NOT_FOUND", body = ErrorEnvelope),
        (status = 409, description = "CONFLICT", body = ErrorEnvelope),
    ),
)]
#[post("/vpn/disconnect")]
pub(super) async fn vpn_disconnect(
    state: web::Data<AppState>,
    user: CurrentUser,
    OptionalJson(body): OptionalJson<DisconnectBody>,
) -> Result<HttpResponse, ApiError> {
    answer(&state, &user, body.connection()?, &body).await
}

/// Ends this connection; an ended one is answered as it ended.
#[utoipa::path(
    tag = "connections",
    security(("bearer" = [])),
    params(("connection_id" = String, Path, format = Uuid, description = "The connection's id")),
    request_body = Option<DisconnectBody>,
    responses(
        (status = 200, description = "Ended", body = DisconnectView),
        (status = 404, description = "CONNECTION_NOT_FOUND", body = ErrorEnvelope),
    ),
)]
#[post("/vpn/disconnect/{connection_id}")]
pub(super) async fn vpn_disconnect_one(
    state: web::Data<AppState>,
    user: CurrentUser,
    path: web::Path<String>,
    OptionalJson(body): OptionalJson<DisconnectBody>,
) -> Result<HttpResponse, ApiError> {
    let connection = connection_in_path(&path)?;
    answer(&state, &user, Some(connection), &body).await
}

/// The same as `POST /vpn/disconnect`.
#[utoipa::path(
    tag = "connections",
    security(("bearer" = [])),
    request_body = Option<DisconnectBody>,
    responses(
        (status = 200, description = "Ended", body = DisconnectView),
        (status = 404, description = "CONNECTION_NOT_FOUND", body = ErrorEnvelope),
        (status = 409, description = "CONFLICT", body = ErrorEnvelope),
    ),
)]
#[post("/connection/disconnect")]
pub(super) async fn connection_disconnect(
    state: web::Data<AppState>,
    user: CurrentUser,
    OptionalJson(body): OptionalJson<DisconnectBody>,
) -> Result<HttpResponse, ApiError> {
    answer(&state, &user, body.connection()?, &body).await
}

async fn answer(
    state: &AppState,
    user: &CurrentUser,
    connection: Option<ConnectionId>,
    body: &DisconnectBody,
) -> Result<HttpResponse, ApiError> {
    let ended = disconnect(state, user.id, connection, body.claimed()).await?;
    let view = DisconnectView::new(&ended, state.live(), Utc::now());
    Ok(HttpResponse::Ok().json(view))
}
