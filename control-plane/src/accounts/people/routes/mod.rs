//! `/users` and `/users/{id}`.

mod list;
mod role;
mod show;
mod status;

use shared::ids::UserId;
use utoipa_actix_web::service_config::ServiceConfig;

use super::views::PersonView;
use crate::accounts::store::profile;
use crate::app::AppState;
use crate::error::{ApiError, Code};

pub fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(list::list_people)
        .service(show::show_person)
        .service(status::change_status)
        .service(role::change_role);
}

/// The id in a path. What is no id is nobody either.
fn person_in_path(text: &str) -> Result<UserId, ApiError> {
    text.parse().map_err(|_| Code::UserNotFound.into())
}

async fn person(state: &AppState, user: UserId) -> Result<PersonView, ApiError> {
    let mut connection = state.db().get().await?;
    let profile = profile(&mut connection, user).await?;
    Ok(profile.ok_or(Code::UserNotFound)?.into())
}
