use actix_web::{get, web};
use chrono::Utc;
use garde::Validate;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::views::ServerView;
use crate::accounts;
use crate::app::AppState;
use crate::error::{ApiError, Code, ErrorEnvelope};
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
    state: web::Data<AppState>,
    user: CurrentUser,
    wish: ValidQuery<Wish>,
) -> Result<web::Json<Recommendation>, ApiError> {
    let wish = wish.0;
    let tier = {
        let mut connection = state.db().get().await?;
        accounts::tier(&mut connection, user.id).await?
    };
    let criteria = Criteria {
        server: None,
        location: wish.location,
        tier: wish.tier.map_or(tier, |asked| asked.min(tier)),
        limits: false,
        features: wish.feature.into_iter().collect(),
    };
    let now = Utc::now();
    let ranked = rank(&state.fleet().view(), &criteria, now);
    let mut servers = ranked.iter().map(|server| ServerView::new(server, now));
    let server = servers.next().ok_or(Code::NoServerAvailable)?;
    let fallbacks = servers.take(FALLBACKS).collect();
    Ok(web::Json(Recommendation { server, fallbacks }))
}
