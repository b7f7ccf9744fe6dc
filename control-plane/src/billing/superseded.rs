//! Of two subscriptions of one person one gives rights. The other one is ended at Stripe, because it costs money and
//! gives nothing.

use serde_json::{Value, json};
use shared::ids::UserId;

use super::purchases;
use super::reference::SubscriptionId;
use super::sync::{self, SyncError, Synced};
use crate::app::AppState;
use crate::audit::{self, Action, Actor, Event, Subject};
use crate::error::ApiError;

/// What follows from a reading: what gives nothing ends, and a purchase that came to its end is closed.
pub async fn follow_up(state: &AppState, synced: Synced) -> Result<(), SyncError> {
    let Synced::Written { user, .. } = &synced else {
        return Ok(());
    };
    let user = *user;
    end(state, synced).await?;
    purchases::settle(state, user).await.map(drop)
}

/// Reads how the person's subscriptions stand, with what follows from it.
pub async fn refresh(state: &AppState, user: UserId) -> Result<(), SyncError> {
    if purchases::settle(state, user).await? {
        return Ok(());
    }
    end(state, sync::person(state, user).await?).await
}

/// Ends at Stripe what gives way to another subscription of the same person.
pub(super) async fn end(state: &AppState, synced: Synced) -> Result<(), SyncError> {
    let Synced::Written {
        user,
        superseded,
        has_superseded,
    } = synced
    else {
        return Ok(());
    };
    end_each(state, user, superseded).await?;
    if !has_superseded {
        return Ok(());
    }
    // Which one gave way is seen by reading all of them.
    match sync::person(state, user).await? {
        Synced::Written { superseded, .. } => end_each(state, user, superseded).await,
        Synced::Foreign => Ok(()),
    }
}

async fn end_each(
    state: &AppState,
    user: UserId,
    superseded: Vec<SubscriptionId>,
) -> Result<(), SyncError> {
    for id in superseded {
        match state.payments()?.stripe.cancel_subscription(&id).await {
            Ok(_) => {}
            // Somebody else was faster.
            Err(error) if error.is_missing() => continue,
            Err(error) => return Err(error.into()),
        }
        let event = Event::new(Action::EndSuperseded, Actor::System)
            .on(Subject::User(user))
            .change(Value::Null, json!({ "status": "canceled" }));
        let mut connection = state.db().get().await.map_err(ApiError::from)?;
        audit::record(&mut connection, &event).await?;
        tracing::warn!(%user, "billing.superseded_ended");
    }
    Ok(())
}
