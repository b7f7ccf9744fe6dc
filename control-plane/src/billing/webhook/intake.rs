//! Storing what Stripe tells.

use diesel_async::AsyncConnection;
use serde::Deserialize;
use uuid::Uuid;

use super::{job, store};
use crate::app::AppState;
use crate::billing::reference::EventId;
use crate::error::ApiError;
use crate::jobs;

/// What an event has to have to be one.
#[derive(Deserialize)]
struct Head {
    id: EventId,
    #[serde(rename = "type")]
    kind: String,
}

/// Commits the event and the job that acts on it, unless it is known. The body's signature was checked.
pub(super) async fn take(state: &AppState, body: &[u8]) -> Result<(), ApiError> {
    let Head { id, kind } = serde_json::from_slice(body)
        .map_err(|_| ApiError::invalid("body", "This is no event with an id and a type"))?;
    let kind: String = kind.chars().take(store::LONGEST_KIND).collect();
    let event = Uuid::now_v7();
    let mut connection = state.db().get().await?;
    let is_new = connection
        .transaction(async |connection| {
            let new = store::New {
                id: event,
                event: &id,
                kind: &kind,
                payload: body,
            };
            let is_new = store::insert(connection, state.keys(), &new).await?;
            if is_new {
                jobs::enqueue(connection, state.keys(), job::KIND, &event).await?;
            }
            Ok::<_, ApiError>(is_new)
        })
        .await?;
    if is_new {
        state.jobs().ring();
    }
    let outcome = if is_new { "new" } else { "known" };
    metrics::counter!("stripe_events_received_total", "outcome" => outcome).increment(1);
    tracing::info!(%event, kind, outcome, "stripe.event");
    Ok(())
}
