use actix_web::{get, web};

use super::views::UserView;
use crate::accounts::store;
use crate::app::AppState;
use crate::error::{ApiError, Code};
use crate::http::CurrentUser;

/// The caller's own account.
#[utoipa::path(
    tag = "accounts",
    security(("bearer" = [])),
    responses((status = 200, description = "The account", body = UserView)),
)]
#[get("/users/me")]
pub(super) async fn me(
    state: web::Data<AppState>,
    user: CurrentUser,
) -> Result<web::Json<UserView>, ApiError> {
    let mut connection = state.db().get().await?;
    let profile = store::profile(&mut connection, user.id)
        .await?
        .ok_or(Code::Unauthorized)?
        .active()?;
    Ok(web::Json(profile.into()))
}
