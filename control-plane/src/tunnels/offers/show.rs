//! An offer as its client is told of it.

use shared::ids::{ConnectionId, UserId};

use crate::app::AppState;
use crate::error::ApiError;
use crate::tunnels::connect::there;
use crate::tunnels::routes::ConnectView;

/// What connect would answer, for a connection of this user's that stands ready; none where it does
/// not any more.
pub async fn offered(
    state: &AppState,
    user: UserId,
    offer: ConnectionId,
) -> Result<Option<ConnectView>, ApiError> {
    let there = there(state, user, offer).await?;
    Ok(there.map(|made| ConnectView::new(&made, &state.config().vpn.dns)))
}
