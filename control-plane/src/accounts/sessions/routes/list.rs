use actix_web::{HttpRequest, get, web};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::accounts::sessions::store::{self, Listed};
use crate::app::AppState;
use crate::error::ApiError;
use crate::http::{CurrentUser, Page, PageQuery, ValidQuery};

/// A login of one client that has not ended.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Session)]
struct SessionView {
    id: Uuid,
    /// What the client called itself.
    #[schema(example = "Anna's phone")]
    name: Option<String>,
    /// The app that holds it; null after a login with a password.
    #[schema(example = "Prime VPN for phones")]
    client: Option<String>,
    created_at: DateTime<Utc>,
    /// The login or the last refresh.
    last_used_at: DateTime<Utc>,
    /// When it ends unless it is refreshed.
    expires_at: DateTime<Utc>,
    /// Whether it is the one that asks.
    current: bool,
}

impl SessionView {
    fn new(session: Listed, asker: &CurrentUser) -> Self {
        Self {
            id: session.id,
            name: session.name,
            client: session.client,
            created_at: session.created_at,
            last_used_at: session.last_used_at,
            expires_at: session.expires_at,
            current: session.id == asker.session.0,
        }
    }
}

/// The caller's sessions, the last used first.
#[utoipa::path(
    tag = "sessions",
    security(("bearer" = [])),
    params(PageQuery),
    responses((status = 200, description = "One page of sessions", body = Page<SessionView>)),
)]
#[get("/auth/sessions")]
pub(super) async fn list_sessions(
    request: HttpRequest,
    state: web::Data<AppState>,
    user: CurrentUser,
    ValidQuery(asked): ValidQuery<PageQuery>,
) -> Result<web::Json<Page<SessionView>>, ApiError> {
    let mut connection = state.db().get().await?;
    let sessions = store::live_of(&mut connection, user.id, Utc::now()).await?;
    let total = u64::try_from(sessions.len()).unwrap_or(u64::MAX);
    let first = usize::try_from(asked.offset()).unwrap_or(usize::MAX);
    let count = usize::try_from(asked.per_page()).unwrap_or(usize::MAX);
    let of_page = sessions.into_iter().skip(first).take(count);
    let views = of_page.map(|session| SessionView::new(session, &user));
    Ok(web::Json(Page::new(
        views.collect(),
        total,
        asked,
        request.path(),
        request.query_string(),
    )))
}
