//! How a link comes to be and on its way.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use diesel_async::{AsyncConnection, AsyncPgConnection};
use shared::ids::UserId;
use tokio::time::{Instant, sleep_until};

use super::Purpose;
use super::store::{self, NewLink};
use crate::accounts::Email;
use crate::app::AppState;
use crate::audit::{self, Action, Actor, Event, Subject};
use crate::error::ApiError;
use crate::http::RequestId;
use crate::jobs::JobError;
use crate::mail;
use crate::secrets::{KeyRing, SecretToken};

/// The least time between two links that strangers may have us send to an account.
const PAUSE: TimeDelta = TimeDelta::minutes(1);
/// More than the work takes.
const ANSWER_AFTER: Duration = Duration::from_millis(150);

/// Sends the link that verifies a new address. Call it in the transaction that gives the account this
/// address; earlier links to verify one become worthless.
pub async fn send_verification(
    connection: &mut AsyncPgConnection,
    keys: &KeyRing,
    user: UserId,
    email: &Email,
    now: DateTime<Utc>,
    ttl: Duration,
) -> Result<(), JobError> {
    let purpose = Purpose::VerifyEmail;
    let token = SecretToken::generate();
    let link = NewLink {
        token: token.hash(),
        purpose,
        email,
        now,
        expires_at: now + ttl,
        // It answers a change by the owner: no pause.
        none_since: DateTime::<Utc>::MAX_UTC,
    };
    store::issue(connection, Some(user), &link).await?;
    mail::post(connection, keys, email, &purpose.letter(&token)).await
}

/// Sends a link to whoever has this address, at most one a minute. The answer says nothing, and comes
/// at the same time after the question whether anybody has it or not.
pub(super) async fn ask_for_link(
    state: &AppState,
    purpose: Purpose,
    email: &Email,
    request: &RequestId,
    now: DateTime<Utc>,
) -> Result<(), ApiError> {
    let answer_at = Instant::now() + ANSWER_AFTER;
    let result = offer_link(state, purpose, email, request, now).await;
    state.jobs().ring();
    sleep_until(answer_at).await;
    result
}

/// The same statements run for an address that nobody has, and a row is written, because a commit
/// without one is faster: under load the work may take longer than the answer waits.
async fn offer_link(
    state: &AppState,
    purpose: Purpose,
    email: &Email,
    request: &RequestId,
    now: DateTime<Utc>,
) -> Result<(), ApiError> {
    let token = SecretToken::generate();
    let letter = purpose.letter(&token);
    let link = NewLink {
        token: token.hash(),
        purpose,
        email,
        now,
        expires_at: now + purpose.ttl(state),
        none_since: now - PAUSE,
    };
    let mut connection = state.db().get().await?;
    connection
        .transaction(async |connection| {
            let recipient = store::lock_recipient(connection, email, purpose).await?;
            let is_sent = store::issue(connection, recipient, &link).await?;
            if is_sent {
                mail::post(connection, state.keys(), email, &letter).await?;
            } else {
                mail::pretend(connection, state.keys(), email, &letter).await?;
            }
            audit::record(connection, &event(purpose, recipient, is_sent, request)).await?;
            Ok(())
        })
        .await
}

fn event(purpose: Purpose, recipient: Option<UserId>, is_sent: bool, request: &RequestId) -> Event {
    let action = match purpose {
        Purpose::VerifyEmail => Action::RequestVerification,
        Purpose::ResetPassword => Action::RequestPasswordReset,
    };
    let mut event = Event::new(action, Actor::Anonymous).in_request(request);
    if let Some(user) = recipient {
        event = event.on(Subject::User(user));
    }
    if is_sent { event } else { event.refused() }
}

impl Purpose {
    fn ttl(self, state: &AppState) -> Duration {
        let accounts = &state.config().accounts;
        match self {
            Self::VerifyEmail => accounts.verification_ttl,
            Self::ResetPassword => accounts.password_reset_ttl,
        }
    }
}
