use actix_web::{put, web};
use garde::Validate;
use serde::Deserialize;
use utoipa::ToSchema;

use super::{person, person_in_path};
use crate::accounts::people::change::{Change, apply};
use crate::accounts::people::decision::Changer;
use crate::accounts::people::views::PersonView;
use crate::app::AppState;
use crate::error::{ApiError, ErrorEnvelope};
use crate::http::permission::WriteUsers;
use crate::http::text::plain;
use crate::http::{Allowed, RequestId, ValidJson};

#[derive(Debug, Deserialize, Validate, ToSchema)]
pub(super) struct StatusChange {
    /// False suspends the account.
    #[garde(skip)]
    is_active: bool,
    /// Why, for the record.
    #[garde(inner(length(chars, max = 500), custom(plain)))]
    #[schema(
        example = "Reported for spam",
        max_length = 500,
        pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$"
    )]
    reason: Option<String>,
}

/// Suspends somebody's account or restores it.
///
/// A suspended person's sessions and tunnels end at once.
#[utoipa::path(
    tag = "administration",
    security(("bearer" = []), ("operator" = [])),
    params(("id" = String, Path, format = Uuid, description = "The person's id")),
    request_body = StatusChange,
    responses(
        (status = 200, description = "The account as it is now", body = PersonView),
        (status = 404, description = "USER_NOT_FOUND", body = ErrorEnvelope),
    ),
)]
#[put("/users/{id}/status")]
pub(super) async fn change_status(
    state: web::Data<AppState>,
    allowed: Allowed<WriteUsers>,
    request: RequestId,
    path: web::Path<String>,
    ValidJson(body): ValidJson<StatusChange>,
) -> Result<web::Json<PersonView>, ApiError> {
    let user = person_in_path(&path)?;
    let changer = Changer {
        actor: &allowed.actor,
        role: allowed.role,
    };
    let change = Change::Status(body.is_active, body.reason);
    apply(&state, changer, user, change, &request).await?;
    Ok(web::Json(person(&state, user).await?))
}
