use std::time::Instant;

use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, get, web};
use chrono::Utc;
use garde::Validate;
use serde::{Deserialize, Serialize};
use shared::ids::UserId;
use utoipa::{IntoParams, ToSchema};

use super::views::{ServerView, page_response};
use crate::accounts;
use crate::app::AppState;
use crate::error::{ApiError, Code, ErrorEnvelope};
use crate::fleet::FleetView;
use crate::fleet::selection::{Criteria, rank};
use crate::http::{CurrentUser, ValidQuery};

/// How many servers stand behind the first.
const FALLBACKS: usize = 5;

#[derive(Debug, Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Wish {
    /// Location, country, ISO code or city.
    #[garde(inner(length(chars, max = 100)))]
    #[param(max_length = 100, nullable = false, example = "eu-central")]
    location: Option<String>,
    /// Something that the server has to have, such as `p2p`.
    #[garde(inner(length(chars, max = 100)))]
    #[param(max_length = 100, nullable = false)]
    feature: Option<String>,
    /// Ask as a plan of this tier would; not above one's own.
    #[garde(inner(range(min = 0)))]
    #[param(minimum = 0, maximum = 32_767, nullable = false)]
    tier: Option<i16>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Recommendation {
    /// Where connect would go now.
    server: ServerView,
    /// Where it would go next, best first.
    fallbacks: Vec<ServerView>,
}

/// The server that connect would choose, and what it would fall back to.
#[utoipa::path(
    tag = "servers",
    security(("bearer" = [])),
    params(Wish),
    responses(
        (status = 200, description = "The ranking", body = Recommendation),
        (status = 403, description = "ACCOUNT_SUSPENDED", body = ErrorEnvelope),
        (status = 503, description = "NO_SERVER_AVAILABLE, SERVICE_UNAVAILABLE", body = ErrorEnvelope),
    ),
)]
#[get("/servers/recommended")]
pub(super) async fn recommended(
    request: HttpRequest,
    state: web::Data<AppState>,
    user: CurrentUser,
    ValidQuery(wish): ValidQuery<Wish>,
) -> Result<HttpResponse, ApiError> {
    let own = tier(&state, user.id).await?;
    let tier = wish.tier.map_or(own, |asked| asked.min(own));
    let view = state.fleet().view();
    // Everybody of a tier who asks in the same words gets the same.
    let key = format!("{tier} {}?{}", request.path(), request.query_string());
    let page = view.pages().get(&key, Instant::now(), || {
        let found = recommendation(&view, wish, tier)?;
        serde_json::to_vec(&found)
            .map(Bytes::from)
            .map_err(ApiError::internal)
    })?;
    Ok(page_response(page))
}

fn recommendation(view: &FleetView, wish: Wish, tier: i16) -> Result<Recommendation, ApiError> {
    let criteria = Criteria {
        server: None,
        location: wish.location,
        tier,
        limits: false,
        features: wish.feature.into_iter().collect(),
    };
    let now = Utc::now();
    let mut servers = rank(view, &criteria, now).map(|server| ServerView::new(server, now));
    let server = servers.next().ok_or(Code::NoServerAvailable)?;
    let fallbacks = servers.take(FALLBACKS).collect();
    Ok(Recommendation { server, fallbacks })
}

/// The person's tier, from the database where it is not known.
async fn tier(state: &AppState, user: UserId) -> Result<i16, ApiError> {
    let tiers = state.fleet().tiers();
    if let Some(known) = tiers.get(user, Instant::now()) {
        return Ok(known);
    }
    let reading = tiers.reading();
    let read = accounts::tier(&mut *state.db().get().await?, user).await?;
    let left = read
        .ends_at
        .map(|at| (at - Utc::now()).to_std().unwrap_or_default());
    tiers.keep(reading, user, read.tier, left, Instant::now());
    Ok(read.tier)
}
