//! Guessing one account's password: which tries go on to the hash, and who is told.

use chrono::{DateTime, TimeDelta, Utc};
use diesel_async::AsyncConnection;
use shared::ids::UserId;
use uuid::Uuid;

use super::store::Credentials;
use super::{Email, places};
use crate::app::AppState;
use crate::audit::{self, Action, Actor, Event, Subject};
use crate::error::ApiError;
use crate::guard::{Account, Caller};
use crate::http::RequestId;
use crate::mail::{self, Letter};

/// The least time between two warnings of an owner.
const WARN_EVERY: TimeDelta = TimeDelta::days(1);

/// Counts a try, or refuses it: with the same answer whether anybody has the address or not.
pub(super) async fn admit(
    state: &AppState,
    found: Option<&Credentials>,
    email: &str,
    account: Account,
    caller: &Caller,
    now: DateTime<Utc>,
    request: &RequestId,
) -> Result<(), ApiError> {
    let guard = state.guard();
    let is_known = found.is_some_and(|found| {
        let place = guard.place(caller, found.profile.id);
        place.is_some_and(|place| found.knows(place))
    });
    let user = found.map(|found| found.profile.id);
    let tried = guard.try_password(caller, account, is_known).await;
    let is_attack = tried.map_or_else(|it| it.by_crowd, |it| it.is_last);
    if let Some(user) = user
        && is_attack
    {
        guard.guessed(user);
    }
    if tried?.is_last {
        warn(state, user, email, now, request).await?;
    }
    Ok(())
}

/// Tells the owner that somebody guesses, at most once a day. For an address that nobody has the same
/// statements run and a row is written, so that the time of the answer tells nothing.
async fn warn(
    state: &AppState,
    user: Option<UserId>,
    email: &str,
    now: DateTime<Utc>,
    request: &RequestId,
) -> Result<(), ApiError> {
    let Ok(email) = Email::parse(email) else {
        return Ok(());
    };
    let letter = Letter::PasswordTried;
    let mut event = Event::new(Action::WarnOfGuessing, Actor::System).in_request(request);
    if let Some(user) = user {
        event = event.on(Subject::User(user));
    }
    let user = user.unwrap_or(UserId(Uuid::nil()));
    let mut connection = state.db().get().await?;
    connection
        .transaction(async |connection| {
            if places::claim_warning(connection, user, now, now - WARN_EVERY).await? {
                mail::post(connection, state.keys(), &email, &letter).await?;
            } else {
                mail::pretend(connection, state.keys(), &email, &letter).await?;
                event = event.clone().refused();
            }
            audit::record(connection, &event).await?;
            Ok::<_, ApiError>(())
        })
        .await?;
    state.jobs().ring();
    Ok(())
}
