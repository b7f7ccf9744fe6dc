//! Everything that is stored about a person, for that person.

mod store;
mod views;

use chrono::{DateTime, Utc};
use shared::ids::UserId;

use super::store::profile;
use crate::analytics;
use crate::app::AppState;
use crate::audit::{self, Action, Event};
use crate::error::{ApiError, Code};
use crate::http::RequestId;
use crate::tunnels;

pub(super) use views::ExportView;
use views::UsageView;

/// The newest of what grows without end.
const LIMIT: i64 = 10_000;

/// Puts it together and takes note of it.
pub(super) async fn gather(
    state: &AppState,
    user: UserId,
    request: &RequestId,
    now: DateTime<Utc>,
) -> Result<ExportView, ApiError> {
    let mut connection = state.db().get().await?;
    let account = profile(&mut connection, user)
        .await?
        .ok_or(Code::Unauthorized)?
        .active()?;
    let subscriptions = store::subscriptions(&mut connection, user).await?;
    let sessions = store::sessions(&mut connection, user, LIMIT).await?;
    let second_factor = store::has_second_factor(&mut connection, user).await?;
    let connections = tunnels::history(&mut connection, user, LIMIT).await?;
    let usage = analytics::history(&mut connection, user, now, LIMIT).await?;
    let activity = audit::about(&mut connection, user, LIMIT).await?;
    let event = Event::own(Action::Export, user).in_request(request);
    audit::record(&mut connection, &event).await?;
    Ok(ExportView {
        exported_at: now,
        account: account.into(),
        second_factor,
        subscriptions: subscriptions.into_iter().map(Into::into).collect(),
        sessions,
        connections: connections.into_iter().map(Into::into).collect(),
        usage: usage
            .iter()
            .map(|day| UsageView::new(day, &state.fleet().view()))
            .collect(),
        activity: activity.into_iter().map(Into::into).collect(),
    })
}
