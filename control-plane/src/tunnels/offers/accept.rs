//! A client that connects to what was offered to it takes it: no handshake is waited for.

use shared::ids::UserId;

use crate::app::AppState;
use crate::error::{ApiError, Code};
use crate::tunnels::end::end;
use crate::tunnels::model::EndReason;
use crate::tunnels::store::{self, Entitlement, LiveConnection};

/// Ends the connection that the offer supersedes, whose place goes to the offer.
pub(in crate::tunnels) async fn accept(
    state: &AppState,
    user: UserId,
    entitlement: &Entitlement,
    offer: &LiveConnection,
) -> Result<(), ApiError> {
    let mut live = entitlement.live.iter();
    let old = live.find(|live| Some(live.id) == offer.supersedes && live.holds_place);
    if let Some(old) = old {
        end(state, old.id, EndReason::Moved, None).await?;
    }
    let accepted = store::accept(&mut *state.db().get().await?, offer.id).await?;
    state.live().changed(user);
    if accepted {
        return Ok(());
    }
    // The old one was on its way elsewhere, and its place with it.
    Err(ApiError::new(Code::Conflict).with_message("The connection is being moved elsewhere"))
}
