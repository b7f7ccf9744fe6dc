//! `/admin/bans`

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, delete, get, post, web};
use chrono::{DateTime, Utc};
use diesel_async::AsyncConnection;
use garde::Validate;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{network, written};
use crate::app::AppState;
use crate::audit::{self, Action, Actor, Event};
use crate::error::{ApiError, ErrorEnvelope};
use crate::guard::Subject;
use crate::guard::bans::{Ban, Reason};
use crate::http::number::whole_as;
use crate::http::permission::{ReadSecurity, WriteSecurity};
use crate::http::text::plain;
use crate::http::{Allowed, Page, PageQuery, RequestId, ValidJson, ValidQuery};

/// Who is to be refused.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[schema(as = NewBan)]
struct BanBody {
    /// An address or a network. An IPv6 address stands for its /64.
    #[garde(length(chars, min = 1, max = 64))]
    #[schema(min_length = 1, max_length = 64, example = "203.0.113.9")]
    ip: String,
    /// For the other operators.
    #[garde(inner(length(chars, max = 200), custom(plain)))]
    #[schema(
        max_length = 200,
        pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$",
        example = "Credential stuffing"
    )]
    reason: Option<String>,
    /// Until it is lifted, where this is missing.
    #[garde(inner(range(min = 1, max = 31_536_000)))]
    #[schema(minimum = 1, maximum = 31_536_000, example = 3600)]
    #[serde(default, deserialize_with = "whole_as")]
    duration_seconds: Option<u32>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = BanCause)]
enum CauseWord {
    Flood,
    Suspicious,
    Manual,
}

impl From<Reason> for CauseWord {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Flood => Self::Flood,
            Reason::Suspicious => Self::Suspicious,
            Reason::Manual => Self::Manual,
        }
    }
}

/// A ban in force.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Ban)]
pub(super) struct BanView {
    id: Uuid,
    /// The address, or the network with its prefix.
    #[schema(example = "203.0.113.9")]
    ip: String,
    /// Whether protection imposed it, and for what, or an operator.
    cause: CauseWord,
    #[schema(example = "Credential stuffing")]
    reason: Option<String>,
    /// `system`, or the kind and the id of who imposed it.
    #[schema(example = "user:0190a0c8-0000-7000-8000-000000000001")]
    made_by: String,
    created_at: DateTime<Utc>,
    /// Null until it is lifted.
    expires_at: Option<DateTime<Utc>>,
}

impl From<Ban> for BanView {
    fn from(ban: Ban) -> Self {
        Self {
            id: ban.id,
            ip: written(ban.network),
            cause: ban.reason.into(),
            reason: ban.note,
            made_by: ban.made_by,
            created_at: ban.created_at,
            expires_at: ban.expires_at,
        }
    }
}

pub(super) fn named(actor: &Actor) -> String {
    match actor {
        Actor::User(user) => format!("user:{user}"),
        Actor::Operator { token, .. } => format!("operator:{token}"),
        Actor::Anonymous | Actor::Cli | Actor::System => "system".to_owned(),
    }
}

/// The bans in force, the newest first.
#[utoipa::path(
    tag = "administration",
    security(("bearer" = []), ("operator" = [])),
    params(PageQuery),
    responses((status = 200, description = "One page of bans", body = Page<BanView>)),
)]
#[get("/admin/bans")]
pub(super) async fn list_bans(
    request: HttpRequest,
    state: web::Data<AppState>,
    _: Allowed<ReadSecurity>,
    ValidQuery(asked): ValidQuery<PageQuery>,
) -> Result<web::Json<Page<BanView>>, ApiError> {
    let page = (asked.offset(), asked.limit());
    let (bans, total) = state.guard().bans.page(page).await?;
    let data = bans.into_iter().map(BanView::from).collect();
    let (path, query) = (request.path(), request.query_string());
    Ok(web::Json(Page::new(data, total, asked, path, query)))
}

/// Refuses an address or a network, on every replica within a second. One that is banned already stays so for
/// the longer time.
#[utoipa::path(
    tag = "administration",
    security(("bearer" = []), ("operator" = [])),
    request_body = BanBody,
    responses((status = 201, description = "The ban", body = BanView)),
)]
#[post("/admin/bans")]
pub(super) async fn impose_ban(
    state: web::Data<AppState>,
    allowed: Allowed<WriteSecurity>,
    request: RequestId,
    ValidJson(body): ValidJson<BanBody>,
) -> Result<HttpResponse, ApiError> {
    let network = network(&body.ip)?;
    let life = body
        .duration_seconds
        .map(|it| Duration::from_secs(it.into()));
    let guard = state.guard();
    let made_by = named(&allowed.actor);
    let ban = guard.ban_of(network, Reason::Manual, body.reason, made_by, life);
    let mut connection = state.db().get().await?;
    let stored = connection
        .transaction(async |connection| {
            let stored = guard.bans.put(connection, &ban).await?;
            let event = Event::new(Action::ImposeBan, allowed.actor.clone())
                .on(audit::Subject::Ban(stored.id))
                .change(Value::Null, json!({ "expires_at": stored.expires_at }))
                .in_request(&request);
            audit::record(connection, &event).await?;
            Ok::<_, ApiError>(stored)
        })
        .await?;
    drop(connection);
    guard.bans.tell(network, Some(stored.clone())).await;
    Ok(HttpResponse::Created().json(BanView::from(stored)))
}

/// Lifts a ban, and forgets what counted against the address.
#[utoipa::path(
    tag = "administration",
    security(("bearer" = []), ("operator" = [])),
    params(("ip" = String, Path, description = "The address or network, as the list has it", example = "203.0.113.9")),
    responses(
        (status = 204, description = "It is not banned any more"),
        (status = 404, description = "BAN_NOT_FOUND", body = ErrorEnvelope),
    ),
)]
#[delete("/admin/bans/{ip}")]
pub(super) async fn lift_ban(
    state: web::Data<AppState>,
    allowed: Allowed<WriteSecurity>,
    request: RequestId,
    path: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let network = network(&path)?;
    let guard = state.guard();
    let mut connection = state.db().get().await?;
    connection
        .transaction(async |connection| {
            let lifted = guard.bans.lift(connection, network).await?;
            let event = Event::new(Action::LiftBan, allowed.actor.clone())
                .on(audit::Subject::Ban(lifted.id))
                .change(json!({ "expires_at": lifted.expires_at }), Value::Null)
                .in_request(&request);
            audit::record(connection, &event).await?;
            Ok::<_, ApiError>(())
        })
        .await?;
    drop(connection);
    guard.bans.tell(network, None).await;
    guard.forgive(Subject::of(network.addr())).await;
    Ok(HttpResponse::NoContent().finish())
}
