//! `/admin/bans` and `/admin/rate-limits`.

use std::net::IpAddr;
use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, delete, get, post, web};
use chrono::{DateTime, Utc};
use diesel_async::AsyncConnection;
use garde::Validate;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};
use utoipa_actix_web::service_config::ServiceConfig;
use uuid::Uuid;

use super::bans::{Ban, Reason};
use super::group::Group;
use super::{Guard, Subject};
use crate::app::AppState;
use crate::audit::{self, Action, Actor, Event};
use crate::error::{ApiError, ErrorEnvelope};
use crate::http::number::whole_as;
use crate::http::permission::{ReadSecurity, WriteSecurity};
use crate::http::text::plain;
use crate::http::{Allowed, Page, PageQuery, RequestId, ValidJson, ValidQuery};

/// The shortest prefixes that can be banned: a slip of the finger shall not shut everybody out.
const WIDEST: (u8, u8) = (8, 16);

pub fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(list_bans)
        .service(impose_ban)
        .service(lift_ban)
        .service(show_rate_limits)
        .service(reset_rate_limits);
}

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
struct BanView {
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

/// One address without its prefix.
fn written(network: IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() {
        network.addr().to_string()
    } else {
        network.to_string()
    }
}

/// An address as limits and bans know it, or a network that is not too wide.
fn network(text: &str) -> Result<IpNet, ApiError> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Subject::of(address).network());
    }
    let network = text.parse::<IpNet>().ok().map(|network| network.trunc());
    let is_narrow = |network: &IpNet| match network {
        IpNet::V4(network) => network.prefix_len() >= WIDEST.0,
        IpNet::V6(network) => network.prefix_len() >= WIDEST.1,
    };
    network.filter(is_narrow).ok_or_else(|| {
        let takes = "Must be an address, or a network of at least /8 or, for IPv6, /16";
        ApiError::invalid("ip", takes)
    })
}

fn subject(text: &str) -> Result<Subject, ApiError> {
    let address = text.parse().map_err(|_| {
        ApiError::invalid(
            "ip",
            "Must be an address such as 203.0.113.9 or 2001:db8::1",
        )
    })?;
    Ok(Subject::of(address))
}

fn named(actor: &Actor) -> String {
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
async fn list_bans(
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
async fn impose_ban(
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
async fn lift_ban(
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

#[derive(Debug, Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
struct EndpointQuery {
    /// Only this group of endpoints, such as `auth_login`.
    #[garde(skip)]
    #[param(example = "auth_login")]
    endpoint: Option<String>,
}

impl EndpointQuery {
    fn groups(&self) -> Result<Vec<Group>, ApiError> {
        let Some(word) = &self.endpoint else {
            return Ok(Group::ALL.to_vec());
        };
        let group = word.parse().map_err(|()| {
            let words: Vec<_> = Group::ALL.iter().map(|group| group.as_str()).collect();
            ApiError::invalid("endpoint", format!("Must be one of {}", words.join(", ")))
        })?;
        Ok(vec![group])
    }
}

/// How an address stands with one group of endpoints.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RateLimitWindow)]
struct WindowView {
    #[schema(example = "auth_login")]
    endpoint: &'static str,
    /// How many pass in a window, its burst included.
    #[schema(example = 7)]
    limit: u32,
    #[schema(example = 2)]
    remaining: u32,
    #[schema(example = 300)]
    window_seconds: u64,
    /// Seconds until the next one passes; 0 where it does now.
    #[schema(example = 0)]
    retry_after: u64,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RateLimitStatus)]
struct StatusView {
    #[schema(example = "203.0.113.9")]
    ip: String,
    banned: bool,
    windows: Vec<WindowView>,
}

/// How an address stands with the limits, over all replicas. Asking counts nothing.
#[utoipa::path(
    tag = "administration",
    security(("bearer" = []), ("operator" = [])),
    params(("ip" = String, Path, description = "An address", example = "203.0.113.9"), EndpointQuery),
    responses((status = 200, description = "Its windows", body = StatusView)),
)]
#[get("/admin/rate-limits/status/{ip}")]
async fn show_rate_limits(
    state: web::Data<AppState>,
    _: Allowed<ReadSecurity>,
    path: web::Path<String>,
    ValidQuery(query): ValidQuery<EndpointQuery>,
) -> Result<web::Json<StatusView>, ApiError> {
    let (subject, groups) = (subject(&path)?, query.groups()?);
    let windows = state.guard().standing(subject, &groups).await;
    let windows = windows
        .into_iter()
        .map(|(group, limit, standing)| WindowView {
            endpoint: group.as_str(),
            limit: limit.capacity(),
            remaining: standing.remaining,
            window_seconds: limit.window.as_secs(),
            retry_after: standing.wait_ms.map_or(0, |wait| wait.div_ceil(1000)),
        });
    Ok(web::Json(StatusView {
        ip: written(subject.network()),
        banned: state.guard().bans.find(subject.network().addr()).is_some(),
        windows: windows.collect(),
    }))
}

/// Forgets what counts against an address, over all replicas.
#[utoipa::path(
    tag = "administration",
    security(("bearer" = []), ("operator" = [])),
    params(("ip" = String, Path, description = "An address", example = "203.0.113.9"), EndpointQuery),
    responses((status = 204, description = "Its windows are empty")),
)]
#[delete("/admin/rate-limits/reset/{ip}")]
async fn reset_rate_limits(
    state: web::Data<AppState>,
    allowed: Allowed<WriteSecurity>,
    request: RequestId,
    path: web::Path<String>,
    ValidQuery(query): ValidQuery<EndpointQuery>,
) -> Result<HttpResponse, ApiError> {
    let (subject, groups) = (subject(&path)?, query.groups()?);
    let event = Event::new(Action::ResetRateLimits, allowed.actor.clone())
        .change(Value::Null, json!({ "endpoint": query.endpoint }))
        .in_request(&request);
    audit::record(&mut *state.db().get().await?, &event).await?;
    state.guard().reset(subject, &groups).await?;
    Ok(HttpResponse::NoContent().finish())
}

impl Guard {
    /// Nothing that an address did counts against it any more.
    async fn forgive(&self, subject: Subject) {
        self.floods.forget(subject);
        self.failures.forget(subject);
        if self.reset(subject, Group::ALL).await.is_err() {
            tracing::debug!("guard.not_forgiven_in_redis");
        }
    }
}
