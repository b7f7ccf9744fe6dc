//! A connection's configuration in the forms that clients import. The private key is not in them:
//! only the client has it.

use actix_web::http::header::{ContentDisposition, ContentType, DispositionParam, DispositionType};
use actix_web::{HttpResponse, get, web};
use chrono::{DateTime, Utc};
use serde::Serialize;
use shared::ids::{ConnectionId, UserId};
use utoipa::ToSchema;
use uuid::Uuid;

use super::input::connection_in_path;
use super::views::next_key;
use crate::app::AppState;
use crate::error::{ApiError, Code, ErrorEnvelope};
use crate::http::CurrentUser;
use crate::tunnels::client_config::ClientConfig;
use crate::tunnels::model::{Connection, ServerSummary};
use crate::tunnels::{psk, qr, store};

#[derive(Serialize, ToSchema)]
#[schema(as = ConnectionConfig)]
struct ConfigView {
    connection_id: Uuid,
    /// What `wg-quick` takes, once the private key is put where the comment says.
    #[schema(example = "[Interface]\n# PrivateKey = …\nAddress = 10.8.0.2/32\n")]
    wg_config: String,
    /// The key that the server will have, where it is going to change.
    #[schema(example = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=")]
    next_public_key: Option<String>,
    key_changes_at: Option<DateTime<Utc>>,
}

/// The configuration of a live connection.
#[utoipa::path(
    tag = "connections",
    security(("bearer" = [])),
    params(("connection_id" = String, Path, format = Uuid, description = "The connection's id")),
    responses(
        (status = 200, description = "The configuration without the private key", body = ConfigView),
        (status = 404, description = "CONNECTION_NOT_FOUND", body = ErrorEnvelope),
    ),
)]
#[get("/connection/{connection_id}/config")]
pub(super) async fn config_text(
    state: web::Data<AppState>,
    user: CurrentUser,
    path: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let (row, server, wg_config) = rendered(&state, &user, &path).await?;
    let next_key = next_key(&state.fleet().view(), server.id);
    Ok(HttpResponse::Ok().json(ConfigView {
        connection_id: row.id.0,
        wg_config,
        next_public_key: next_key.map(|next| next.public_key.to_base64()),
        key_changes_at: next_key.map(|next| next.at),
    }))
}

/// The configuration of a live connection as a file.
#[utoipa::path(
    tag = "connections",
    security(("bearer" = [])),
    params(("connection_id" = String, Path, format = Uuid, description = "The connection's id")),
    responses(
        (status = 200, description = "The configuration without the private key", body = String, content_type = "text/plain"),
        (status = 404, description = "CONNECTION_NOT_FOUND", body = ErrorEnvelope),
    ),
)]
#[get("/connection/{connection_id}/config.conf")]
pub(super) async fn config_file(
    state: web::Data<AppState>,
    user: CurrentUser,
    path: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let (.., text) = rendered(&state, &user, &path).await?;
    // wg-quick makes the interface's name of the file's, of at most 15 characters.
    let file = DispositionParam::Filename("prime-vpn.conf".to_owned());
    Ok(HttpResponse::Ok()
        .insert_header(ContentType::plaintext())
        .insert_header(ContentDisposition {
            disposition: DispositionType::Attachment,
            parameters: vec![file],
        })
        .body(text))
}

/// The configuration of a live connection as a QR code.
#[utoipa::path(
    tag = "connections",
    security(("bearer" = [])),
    params(("connection_id" = String, Path, format = Uuid, description = "The connection's id")),
    responses(
        (status = 200, description = "A picture", body = String, content_type = "image/svg+xml"),
        (status = 404, description = "CONNECTION_NOT_FOUND", body = ErrorEnvelope),
    ),
)]
#[get("/connection/{connection_id}/qr.svg")]
pub(super) async fn qr_svg(
    state: web::Data<AppState>,
    user: CurrentUser,
    path: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let (.., text) = rendered(&state, &user, &path).await?;
    let picture = qr::as_svg(&text).map_err(ApiError::internal)?;
    Ok(HttpResponse::Ok()
        .content_type("image/svg+xml")
        .body(picture))
}

/// The configuration of a live connection as a QR code.
#[utoipa::path(
    tag = "connections",
    security(("bearer" = [])),
    params(("connection_id" = String, Path, format = Uuid, description = "The connection's id")),
    responses(
        (status = 200, description = "A picture", body = Vec<u8>, content_type = "image/png"),
        (status = 404, description = "CONNECTION_NOT_FOUND", body = ErrorEnvelope),
    ),
)]
#[get("/connection/{connection_id}/qr.png")]
pub(super) async fn qr_png(
    state: web::Data<AppState>,
    user: CurrentUser,
    path: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let (.., text) = rendered(&state, &user, &path).await?;
    let picture = qr::as_png(&text).map_err(ApiError::internal)?;
    Ok(HttpResponse::Ok()
        .content_type(ContentType::png())
        .body(picture))
}

/// The configuration of a live connection of this user's, in the form of `wg-quick` and without the
/// private key; none where there is no such connection.
pub async fn configuration(
    state: &AppState,
    user: UserId,
    connection: ConnectionId,
) -> Result<Option<String>, ApiError> {
    let found = found(state, user, connection).await?;
    Ok(found.map(|(.., text)| text))
}

async fn rendered(
    state: &AppState,
    user: &CurrentUser,
    path: &str,
) -> Result<(Connection, ServerSummary, String), ApiError> {
    let found = found(state, user.id, connection_in_path(path)?).await?;
    found.ok_or_else(|| Code::ConnectionNotFound.into())
}

async fn found(
    state: &AppState,
    user: UserId,
    connection: ConnectionId,
) -> Result<Option<(Connection, ServerSummary, String)>, ApiError> {
    let row = {
        let mut conn = state.db().get().await?;
        store::by_id(&mut conn, user, connection).await?
    };
    let row = row.filter(|row| row.status.is_live());
    let Some((row, server, addresses)) = row.and_then(|row| {
        let (server, addresses) = (row.server.clone()?, row.addresses?);
        Some((row, server, addresses))
    }) else {
        return Ok(None);
    };
    let sealed = row.sealed_psk.as_deref();
    let preshared_key = sealed
        .map(|sealed| psk::open(state.keys(), connection, sealed))
        .transpose()?;
    let config = ClientConfig {
        private_key: None,
        public_key: &row.public_key,
        addresses,
        dns: &state.config().vpn.dns,
        server_key: &server.public_key,
        preshared_key: preshared_key.as_ref(),
        endpoint: &server.endpoint,
    };
    let text = config.render().to_string();
    Ok(Some((row, server, text)))
}
