//! `/admin/servers` and `/admin/nodes`.

mod create;
mod drain;
mod edit;
mod key_rotation;
mod list;
mod remove;
mod revoke;
mod show;
mod status;
mod tokens;
mod views;
mod wire;

use actix_web::web;
use shared::ids::ServerId;
use utoipa_actix_web::service_config::ServiceConfig;

use self::views::ManagedView;
use crate::app::AppState;
use crate::audit::Actor;
use crate::error::{ApiError, Code};
use crate::fleet::admin::{By, Change};
use crate::http::RequestId;

pub(super) fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(list::list_managed)
        .service(create::create_server)
        .service(show::show_managed)
        .service(edit::edit_server)
        .service(remove::remove_server)
        .service(status::change_server_status)
        .service(drain::drain_server)
        .service(drain::undrain_server)
        .service(key_rotation::plan_key_rotation)
        .service(key_rotation::cancel_key_rotation)
        .service(revoke::revoke_node)
        .service(tokens::list_enrolment_tokens)
        .service(tokens::make_enrolment_token)
        .service(tokens::delete_enrolment_token);
}

/// The id in a path. What is no id is no server either.
fn server_in_path(text: &str) -> Result<ServerId, ApiError> {
    text.parse().map_err(|_| Code::ServerNotFound.into())
}

const fn by<'a>(actor: &'a Actor, request: &'a RequestId) -> By<'a> {
    By {
        actor,
        request: Some(request),
    }
}

/// Makes the change and shows the server as it is then.
async fn changed(
    state: &AppState,
    path: &str,
    change: Change,
    by: By<'_>,
) -> Result<web::Json<ManagedView>, ApiError> {
    let server = server_in_path(path)?;
    state.fleet().change(server, change, by).await?;
    shown(state, server).await
}

async fn shown(state: &AppState, server: ServerId) -> Result<web::Json<ManagedView>, ApiError> {
    let fleet = state.fleet();
    let managed = fleet.managed(server).await?;
    let expected = fleet.expected_hash(&managed).await?;
    Ok(web::Json(ManagedView::whole(managed, expected)))
}
