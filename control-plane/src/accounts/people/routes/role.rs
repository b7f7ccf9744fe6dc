use actix_web::{put, web};
use garde::Validate;
use serde::Deserialize;
use utoipa::ToSchema;

use super::{person, person_in_path};
use crate::accounts::Role;
use crate::accounts::people::change::{Change, apply};
use crate::accounts::people::decision::Changer;
use crate::accounts::people::views::PersonView;
use crate::app::AppState;
use crate::error::{ApiError, ErrorEnvelope};
use crate::http::permission::WriteRoles;
use crate::http::{Allowed, RequestId, ValidJson};

#[derive(Debug, Deserialize, Validate, ToSchema)]
pub(super) struct RoleChange {
    #[garde(skip)]
    role: Role,
}

/// Gives somebody another role and ends their sessions.
#[utoipa::path(
    tag = "administration",
    security(("bearer" = []), ("operator" = [])),
    params(("id" = String, Path, format = Uuid, description = "The person's id")),
    request_body = RoleChange,
    responses(
        (status = 200, description = "The account as it is now", body = PersonView),
        (status = 404, description = "USER_NOT_FOUND", body = ErrorEnvelope),
    ),
)]
#[put("/users/{id}/role")]
pub(super) async fn change_role(
    state: web::Data<AppState>,
    allowed: Allowed<WriteRoles>,
    request: RequestId,
    path: web::Path<String>,
    ValidJson(body): ValidJson<RoleChange>,
) -> Result<web::Json<PersonView>, ApiError> {
    let user = person_in_path(&path)?;
    let changer = Changer {
        actor: &allowed.actor,
        role: allowed.role,
    };
    apply(&state, changer, user, Change::Role(body.role), &request).await?;
    Ok(web::Json(person(&state, user).await?))
}
