use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, post, web};

use super::input::{ConnectBody, ConnectQuery};
use super::views::ConnectView;
use crate::app::AppState;
use crate::error::{ApiError, ErrorEnvelope};
use crate::http::idempotency_key::IdempotencyKey;
use crate::http::{CurrentUser, OptionalJson, ServerTiming, ValidQuery};
use crate::tunnels::connect::{Spent, connect};

/// Connects to the best server, or to the one that is asked for.
///
/// Answers once the server accepts the client's handshake. The same key on the same server again is
/// answered with the live connection; on another server the connection moves. With an
/// `Idempotency-Key` a repeated request makes no second connection.
#[utoipa::path(
    tag = "connections",
    security(("bearer" = [])),
    params(ConnectQuery, IdempotencyKey),
    request_body = Option<ConnectBody>,
    responses(
        (status = 200, description = "Connected", body = ConnectView),
        (status = 403, description = "ACCOUNT_SUSPENDED, PLAN_REQUIRED, CONNECTION_LIMIT, QUOTA_EXHAUSTED", body = ErrorEnvelope),
        (status = 404, description = "SERVER_NOT_FOUND, DEVICE_NOT_FOUND", body = ErrorEnvelope),
        (status = 409, description = "KEY_IN_USE, CONFLICT", body = ErrorEnvelope),
        (status = 503, description = "NO_SERVER_AVAILABLE, SERVICE_UNAVAILABLE", body = ErrorEnvelope),
    ),
)]
#[post("/vpn/connect")]
pub(super) async fn vpn_connect(
    state: web::Data<AppState>,
    user: CurrentUser,
    query: ValidQuery<ConnectQuery>,
    body: OptionalJson<ConnectBody>,
    http: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    answer(state, user, query, body, http).await
}

/// The same as `POST /vpn/connect`.
#[utoipa::path(
    tag = "connections",
    security(("bearer" = [])),
    params(ConnectQuery, IdempotencyKey),
    request_body = Option<ConnectBody>,
    responses(
        (status = 200, description = "Connected", body = ConnectView),
        (status = 403, description = "ACCOUNT_SUSPENDED, PLAN_REQUIRED, CONNECTION_LIMIT, QUOTA_EXHAUSTED", body = ErrorEnvelope),
        (status = 404, description = "SERVER_NOT_FOUND, DEVICE_NOT_FOUND", body = ErrorEnvelope),
        (status = 409, description = "KEY_IN_USE, CONFLICT", body = ErrorEnvelope),
        (status = 503, description = "NO_SERVER_AVAILABLE, SERVICE_UNAVAILABLE", body = ErrorEnvelope),
    ),
)]
#[post("/connection/connect")]
pub(super) async fn connection_connect(
    state: web::Data<AppState>,
    user: CurrentUser,
    query: ValidQuery<ConnectQuery>,
    body: OptionalJson<ConnectBody>,
    http: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    answer(state, user, query, body, http).await
}

async fn answer(
    state: web::Data<AppState>,
    user: CurrentUser,
    ValidQuery(query): ValidQuery<ConnectQuery>,
    OptionalJson(body): OptionalJson<ConnectBody>,
    http: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let request = body.into_request(query, &http)?;
    let made = connect(state.clone().into_inner(), user.id, request).await?;
    let view = ConnectView::new(&made, &state.config().vpn.dns);
    Ok(HttpResponse::Ok()
        .insert_header(timing(&made.spent))
        .json(view))
}

/// Shares that do not overlap: the round trip to the node without the agent's own time is the
/// session's, the agent's without its ledger and its interface is the agent's.
fn timing(spent: &Spent) -> ServerTiming {
    let micros = Duration::from_micros;
    let (node, agent) = (&spent.node, &spent.node.agent);
    let in_transit = node.round_trip_us.saturating_sub(agent.total_us);
    let in_agent = agent
        .total_us
        .saturating_sub(agent.ledger_us.saturating_add(agent.interface_us));
    let mut timing = ServerTiming::new();
    timing.add("db", spent.db + micros(node.store_us));
    timing.add("session", micros(node.queue_us.saturating_add(in_transit)));
    timing.add("agent", micros(in_agent));
    timing.add("ledger", micros(agent.ledger_us));
    timing.add("netlink", micros(agent.interface_us));
    timing.add("total", spent.total);
    timing
}
