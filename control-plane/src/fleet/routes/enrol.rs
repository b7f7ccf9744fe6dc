use actix_web::{HttpResponse, post, web};
use serde::Serialize;
use shared::protocol::enrolment::{EnrolRequest, EnrolResponse};
use utoipa::ToSchema;

use super::caller::EnrolmentToken;
use crate::app::AppState;
use crate::error::{ApiError, ErrorEnvelope};
use crate::http::input::JsonBytes;

/// The body, for the document.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "shared's type has no schema; this one describes it"
)]
struct EnrolBody {
    #[schema(example = "fra1.example.net")]
    hostname: String,
    #[schema(example = "0.1.0")]
    agent_version: String,
    /// The interface's WireGuard public key.
    #[schema(
        example = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
        pattern = "^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$"
    )]
    public_key: String,
    /// Where clients reach WireGuard.
    #[schema(example = "203.0.113.10:51820")]
    endpoint: String,
    #[schema(example = "10.8.0.0/16")]
    subnet: String,
    #[schema(example = "fd00:8::/64")]
    subnet_v6: Option<String>,
    capacity: u32,
}

/// The answer, for the document.
#[derive(Serialize, ToSchema)]
struct EnrolAnswer {
    server_id: uuid::Uuid,
    /// Opens sessions until it expires; renewed in a session.
    #[schema(example = "En0KEwoEZGVtbxgDIgkKBwgKEgMYgAgSJAgAEiA")]
    token: String,
    expires_at: chrono::DateTime<chrono::Utc>,
}

/// Trades a single-use enrolment token for a node's identity.
///
/// A host that enrols again keeps its server; its earlier tokens and session end.
#[utoipa::path(
    tag = "node",
    security(("enrolment" = [])),
    request_body = EnrolBody,
    responses(
        (status = 201, description = "The node's identity", body = EnrolAnswer),
        (status = 401, description = "ENROLMENT_TOKEN_INVALID, ENROLMENT_TOKEN_EXPIRED, ENROLMENT_TOKEN_USED", body = ErrorEnvelope),
    ),
)]
#[post("/node/v1/enrol")]
pub(super) async fn enrol(
    state: web::Data<AppState>,
    EnrolmentToken(enrolment): EnrolmentToken,
    JsonBytes(body): JsonBytes,
) -> Result<HttpResponse, ApiError> {
    let request: EnrolRequest = serde_json::from_slice(&body)
        .map_err(|error| ApiError::invalid("body", error.to_string()))?;
    let identity: EnrolResponse = state.fleet().enrol(&enrolment, &request).await?;
    Ok(HttpResponse::Created().json(identity))
}
