//! `/admin/nodes/enrolment-tokens`

use actix_web::{HttpRequest, HttpResponse, delete, get, post, web};
use chrono::{DateTime, Duration, Utc};
use garde::Validate;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::wire::{self, trimmed};
use super::{by, server_in_path};
use crate::app::AppState;
use crate::error::{ApiError, Code, ErrorEnvelope};
use crate::fleet::admin::{Made, Wish};
use crate::fleet::store::{Place, TokenRow, TokenState};
use crate::http::number::whole_as;
use crate::http::permission::EnrolNodes;
use crate::http::{Allowed, Page, PageQuery, RequestId, ValidJson, ValidQuery};

const USUAL_LIFE_SECONDS: u32 = 600;

/// The host that may enrol: one of a server of the catalogue by `server_id`, or a new one by all
/// else.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[schema(as = NewEnrolmentToken)]
pub(super) struct TokenBody {
    /// The server whose host enrols, for the first time or again. Nothing else is needed with it.
    #[garde(skip)]
    #[schema(format = Uuid)]
    server_id: Option<String>,
    #[garde(inner(custom(wire::hostname)))]
    #[schema(example = "fra2.example.net", max_length = 253)]
    hostname: Option<String>,
    #[garde(inner(custom(wire::name)))]
    #[schema(example = "Germany", max_length = 100)]
    country: Option<String>,
    /// ISO 3166-1 alpha-2.
    #[garde(inner(custom(wire::country_code)))]
    #[schema(example = "DE", pattern = "^[A-Za-z]{2}$")]
    country_code: Option<String>,
    #[garde(inner(custom(wire::name)))]
    #[schema(example = "Frankfurt", max_length = 100)]
    city: Option<String>,
    #[garde(inner(custom(wire::name)))]
    #[schema(example = "eu-central", max_length = 100)]
    location: Option<String>,
    #[garde(inner(range(min = 0)))]
    #[schema(minimum = 0, maximum = 32_767)]
    #[serde(default, deserialize_with = "whole_as")]
    tier: Option<i16>,
    /// How long the token is good for.
    #[garde(inner(range(min = 1, max = 86_400)))]
    #[schema(minimum = 1, maximum = 86_400, example = 600)]
    #[serde(default, deserialize_with = "whole_as")]
    ttl_seconds: Option<u32>,
}

impl TokenBody {
    fn wish(&self) -> Result<Wish, ApiError> {
        if let Some(server) = &self.server_id {
            return Ok(Wish::Of(server_in_path(server)?));
        }
        let mut missing = ApiError::new(Code::InvalidInput);
        let mut is_whole = true;
        let mut needed = |name: &str, value: &Option<String>| match value {
            Some(value) => value.clone(),
            None => {
                let error = std::mem::replace(&mut missing, Code::InvalidInput.into());
                missing = error.with_detail(name, "Is required without server_id");
                is_whole = false;
                String::new()
            }
        };
        let place = Place {
            hostname: needed("hostname", &self.hostname).to_lowercase(),
            country: trimmed(&needed("country", &self.country)),
            country_code: needed("country_code", &self.country_code).to_uppercase(),
            city: trimmed(&needed("city", &self.city)),
            location: trimmed(&needed("location", &self.location)),
            tier: self.tier.unwrap_or(0),
        };
        if is_whole {
            return Ok(Wish::At(place));
        }
        Err(missing)
    }
}

/// A new token. It is shown this once.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MadeEnrolmentToken)]
struct MadeView {
    id: Uuid,
    #[schema(example = "fra2.example.net")]
    hostname: String,
    #[schema(example = "En0KEwoEZGVtbxgDIgkKBwgKEgMYgAgSJAgAEiA")]
    token: String,
    expires_at: DateTime<Utc>,
    /// What to paste on the host.
    #[schema(
        example = "node-agent enroll --plane https://vpn.example.org --token En0KEwoEZGVtbxgD"
    )]
    command: String,
}

impl MadeView {
    fn new(made: Made, plane: &str) -> Self {
        Self {
            command: made.command(plane),
            id: made.id,
            hostname: made.hostname,
            token: made.token,
            expires_at: made.expires_at,
        }
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = EnrolmentTokenState)]
enum StateWord {
    Unused,
    Used,
    Expired,
}

impl From<StateWord> for TokenState {
    fn from(word: StateWord) -> Self {
        match word {
            StateWord::Unused => Self::Unused,
            StateWord::Used => Self::Used,
            StateWord::Expired => Self::Expired,
        }
    }
}

impl From<TokenState> for StateWord {
    fn from(state: TokenState) -> Self {
        match state {
            TokenState::Unused => Self::Unused,
            TokenState::Used => Self::Used,
            TokenState::Expired => Self::Expired,
        }
    }
}

/// What became of an enrolment token.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EnrolmentToken)]
struct TokenView {
    id: Uuid,
    state: StateWord,
    #[schema(example = "fra2.example.net")]
    hostname: String,
    #[schema(example = "DE")]
    country_code: String,
    #[schema(example = "Frankfurt")]
    city: String,
    #[schema(example = "eu-central")]
    location: String,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    used_at: Option<DateTime<Utc>>,
    /// The server that enrolled with it.
    server_id: Option<Uuid>,
}

impl TokenView {
    fn new(row: TokenRow, now: DateTime<Utc>) -> Self {
        Self {
            id: row.id,
            state: row.state(now).into(),
            hostname: row.place.hostname,
            country_code: row.place.country_code,
            city: row.place.city,
            location: row.place.location,
            created_at: row.created_at,
            expires_at: row.expires_at,
            used_at: row.used_at,
            server_id: row.server_id,
        }
    }
}

#[derive(Debug, Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct TokenQuery {
    /// Only tokens of which this became.
    #[garde(skip)]
    #[param(inline)]
    state: Option<StateWord>,
}

/// Enrolment tokens, the newest first, without what enrols.
#[utoipa::path(
    tag = "administration",
    security(("bearer" = []), ("operator" = [])),
    params(TokenQuery, PageQuery),
    responses((status = 200, description = "One page of tokens", body = Page<TokenView>)),
)]
#[get("/admin/nodes/enrolment-tokens")]
pub(super) async fn list_enrolment_tokens(
    request: HttpRequest,
    state: web::Data<AppState>,
    _: Allowed<EnrolNodes>,
    ValidQuery(query): ValidQuery<TokenQuery>,
    ValidQuery(asked): ValidQuery<PageQuery>,
) -> Result<web::Json<Page<TokenView>>, ApiError> {
    let page = (asked.offset(), asked.limit());
    let wanted = query.state.map(Into::into);
    let (tokens, total) = state.fleet().tokens(wanted, page).await?;
    let now = Utc::now();
    let data = tokens.into_iter().map(|token| TokenView::new(token, now));
    let (path, query) = (request.path(), request.query_string());
    Ok(web::Json(Page::new(
        data.collect(),
        total,
        asked,
        path,
        query,
    )))
}

/// Makes a token with which one host enrols once, and the line to paste there.
#[utoipa::path(
    tag = "administration",
    security(("bearer" = []), ("operator" = [])),
    request_body = TokenBody,
    responses(
        (status = 201, description = "The token, this once", body = MadeView),
        (status = 404, description = "SERVER_NOT_FOUND", body = ErrorEnvelope),
    ),
)]
#[post("/admin/nodes/enrolment-tokens")]
pub(super) async fn make_enrolment_token(
    state: web::Data<AppState>,
    allowed: Allowed<EnrolNodes>,
    request: RequestId,
    ValidJson(body): ValidJson<TokenBody>,
) -> Result<HttpResponse, ApiError> {
    let seconds = body.ttl_seconds.unwrap_or(USUAL_LIFE_SECONDS);
    let life = Duration::seconds(seconds.into());
    let by = by(&allowed.actor, &request);
    let made = state.fleet().make_token(body.wish()?, life, by).await?;
    let view = MadeView::new(made, &state.config().http.public_url);
    Ok(HttpResponse::Created().json(view))
}

/// Takes a token back that was not used.
#[utoipa::path(
    tag = "administration",
    security(("bearer" = []), ("operator" = [])),
    params(("id" = String, Path, format = Uuid, description = "The token's id")),
    responses(
        (status = 204, description = "The token is worth nothing"),
        (status = 404, description = "ENROLMENT_TOKEN_NOT_FOUND", body = ErrorEnvelope),
        (status = 409, description = "CONFLICT: it was used", body = ErrorEnvelope),
    ),
)]
#[delete("/admin/nodes/enrolment-tokens/{id}")]
pub(super) async fn delete_enrolment_token(
    state: web::Data<AppState>,
    allowed: Allowed<EnrolNodes>,
    request: RequestId,
    path: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let id = path.parse().map_err(|_| Code::EnrolmentTokenNotFound)?;
    let by = by(&allowed.actor, &request);
    state.fleet().delete_token(id, by).await?;
    Ok(HttpResponse::NoContent().finish())
}
