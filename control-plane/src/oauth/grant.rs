//! What apps are granted: a code for a person's login, tokens for a code or a refresh token.

use chrono::{DateTime, Utc};
use diesel_async::{AsyncConnection, AsyncPgConnection};
use secrecy::ExposeSecret;

use super::authorization::Request;
use super::client::{Client, is_client_id};
use super::code::{Code, LIFE, Presented, Verdict};
use super::refusal::{GrantError, Refusal};
use super::store;
use crate::accounts::Role;
use crate::accounts::login::{Authenticated, Proof, authenticate};
use crate::accounts::places;
use crate::accounts::sessions::{self, EndReason, Ended, NewSession, RefreshError, Tokens};
use crate::app::AppState;
use crate::audit::{self, Action, Actor, Event, Subject};
use crate::error::{self, ApiError};
use crate::guard::Caller;
use crate::http::RequestId;
use crate::secrets::{SecretToken, TokenHash};

/// The app of this id, if there is one.
pub(super) async fn client(state: &AppState, id: &str) -> Result<Option<Client>, ApiError> {
    if !is_client_id(id) {
        return Ok(None);
    }
    let mut connection = state.db().get().await?;
    Ok(store::client(&mut connection, id).await?)
}

/// Lets the app have a code, if the person who is asked logs in. Answers where they go with it.
pub(super) async fn authorize(
    state: &AppState,
    request: &Request,
    proof: Proof,
    caller: &Caller,
    now: DateTime<Utc>,
    id: &RequestId,
) -> Result<String, ApiError> {
    let Authenticated {
        profile,
        password_hash,
        place,
    } = authenticate(state, proof, caller, now, id).await?;
    let Request {
        client,
        challenge,
        answer,
    } = request;
    let token = SecretToken::generate();
    let event = Event::own(Action::Authorize, profile.id)
        .on(Subject::OauthClient(client.id.clone()))
        .in_request(id);
    let code = Code {
        client: client.id.clone(),
        user: profile.id,
        redirect_uri: answer.redirect_uri.as_str().to_owned(),
        challenge: challenge.clone(),
        expires_at: now + LIFE,
        is_used: false,
        session: None,
    };
    let mut connection = state.db().get().await?;
    connection
        .transaction(async |connection| {
            if !store::insert_code(connection, token.hash(), &code, &password_hash).await? {
                return Err(ApiError::new(error::Code::InvalidCredentials));
            }
            places::remember(connection, profile.id, place, now).await?;
            Ok(audit::record(connection, &event).await?)
        })
        .await?;
    Ok(answer.code(token.expose_secret()))
}

/// What came of a code.
enum Exchange {
    Opened(Tokens),
    Replayed(Ended),
    Refused,
}

/// Exchanges a code, once. One that comes again was copied, and what it was exchanged for ends.
pub(super) async fn exchange(
    state: &AppState,
    code: &str,
    presented: Presented<'_>,
    now: DateTime<Utc>,
    id: &RequestId,
) -> Result<Tokens, GrantError> {
    let hash = TokenHash::of(code);
    let outcome = {
        let mut connection = state.db().get().await?;
        connection
            .transaction(async |connection| {
                redeem(state, connection, hash, presented, now, id).await
            })
            .await?
    };
    match outcome {
        Exchange::Opened(tokens) => {
            sessions::announce(state, &tokens.displaced);
            Ok(tokens)
        }
        Exchange::Replayed(ended) => {
            sessions::announce(state, &ended);
            Err(Refusal::InvalidGrant.into())
        }
        Exchange::Refused => Err(Refusal::InvalidGrant.into()),
    }
}

async fn redeem(
    state: &AppState,
    connection: &mut AsyncPgConnection,
    hash: TokenHash,
    presented: Presented<'_>,
    now: DateTime<Utc>,
    id: &RequestId,
) -> Result<Exchange, ApiError> {
    let Some(code) = store::lock_code(connection, hash).await? else {
        return Ok(Exchange::Refused);
    };
    let (user, session) = (code.user, code.session);
    match code.judge(presented, now) {
        Verdict::Refused => Ok(Exchange::Refused),
        Verdict::Replayed => {
            let event = Event::new(Action::CodeReuse, Actor::Anonymous)
                .on(Subject::User(user))
                .in_request(id)
                .refused();
            audit::record(connection, &event).await?;
            let reason = EndReason::Reused;
            let ended = match session {
                Some(session) => sessions::end_one(connection, user, session, reason).await?,
                None => Ended::none(),
            };
            Ok(Exchange::Replayed(ended))
        }
        Verdict::Good => {
            let new = NewSession {
                user,
                role: Role::User,
                proved: None,
                client: Some(&code.client),
                name: None,
            };
            let tokens = match sessions::open(state, connection, new, now).await {
                // Whoever was suspended since has nothing that could be granted.
                Err(error) if error.code() == error::Code::AccountSuspended => {
                    return Ok(Exchange::Refused);
                }
                opened => opened?,
            };
            store::use_code(connection, hash, tokens.session, now).await?;
            Ok(Exchange::Opened(tokens))
        }
    }
}

/// Exchanges a refresh token of this app's.
pub(super) async fn refresh(
    state: &AppState,
    client: &str,
    token: &str,
    now: DateTime<Utc>,
    id: &RequestId,
) -> Result<Tokens, GrantError> {
    match sessions::refresh(state, token, Some(client), now, id).await {
        Ok(tokens) => Ok(tokens),
        Err(RefreshError::Other(error)) => Err(error.into()),
        Err(RefreshError::Invalid | RefreshError::Reused | RefreshError::Suspended) => {
            Err(Refusal::InvalidGrant.into())
        }
    }
}

/// Ends the session of a token of either kind. An access token is enough by itself, as it is for a
/// logout; a refresh token has to be the app's own. One that means nothing ends nothing, and its
/// holder is not told.
pub(super) async fn revoke(
    state: &AppState,
    client: &str,
    token: &str,
    id: &RequestId,
) -> Result<(), ApiError> {
    match state.tokens().verify(token) {
        Ok(claims) => {
            let reason = EndReason::LoggedOut;
            sessions::end(state, claims.user, claims.session, reason, id)
                .await
                .map(drop)
        }
        Err(_) => sessions::end_by_refresh_token(state, token, Some(client), id).await,
    }
}
