use actix_web::{get, web};

use super::{person, person_in_path};
use crate::accounts::people::views::PersonView;
use crate::app::AppState;
use crate::error::{ApiError, ErrorEnvelope};
use crate::http::Allowed;
use crate::http::permission::ReadUsers;

/// Somebody's account.
#[utoipa::path(
    tag = "administration",
    security(("bearer" = []), ("operator" = [])),
    params(("id" = String, Path, format = Uuid, description = "The person's id")),
    responses(
        (status = 200, description = "The account", body = PersonView),
        (status = 404, description = "USER_NOT_FOUND", body = ErrorEnvelope),
    ),
)]
#[get("/users/{id}")]
pub(super) async fn show_person(
    state: web::Data<AppState>,
    _: Allowed<ReadUsers>,
    path: web::Path<String>,
) -> Result<web::Json<PersonView>, ApiError> {
    Ok(web::Json(person(&state, person_in_path(&path)?).await?))
}
