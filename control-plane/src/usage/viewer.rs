//! Who watches a metrics socket, and for how long they may.

use std::future::Future;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};
use chrono::{DateTime, Utc};
use garde::Validate;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use shared::ids::UserId;
use utoipa::IntoParams;

use crate::accounts::sessions;
use crate::app::AppState;
use crate::error::{ApiError, Code};
use crate::http::current_user::{bearer, user_from_token};
use crate::http::input::parse_query;
use crate::http::permission::{WatchConnections, allowed_on};
use crate::http::{Allowed, CurrentUser};
use crate::operators;

#[derive(Debug, Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct SocketQuery {
    /// The access token, where the client cannot send the `Authorization` header.
    #[garde(skip)]
    #[param(value_type = Option<String>, nullable = false)]
    token: Option<SecretString>,
}

/// Whoever may watch the connections of `user`: the user themself, or somebody with
/// [`WatchConnections`].
#[derive(Debug)]
pub(super) struct Viewer {
    pub(super) user: UserId,
    who: Who,
}

#[derive(Debug)]
enum Who {
    Person(CurrentUser),
    Operator(SecretString),
}

impl Viewer {
    async fn admit(state: &AppState, token: &str, user: UserId) -> Result<Self, ApiError> {
        let who = if operators::is_operator_token(token) {
            allowed_on::<WatchConnections>(state, token, Some(user.0)).await?;
            Who::Operator(token.into())
        } else {
            let person = user_from_token(state, token).await?;
            if person.id != user {
                Allowed::<WatchConnections>::person(&person)?;
            }
            Who::Person(person)
        };
        Ok(Self { user, who })
    }

    /// Whether the connections are the viewer's own.
    pub(super) fn is_owner(&self) -> bool {
        matches!(&self.who, Who::Person(person) if person.id == self.user)
    }

    /// When the token ends, where it says so.
    pub(super) fn expires_at(&self) -> Option<DateTime<Utc>> {
        match &self.who {
            Who::Person(person) => Some(person.expires_at),
            Who::Operator(_) => None,
        }
    }

    /// Whether they are known to be out, without asking anybody.
    pub(super) fn is_out(&self, state: &AppState) -> bool {
        match &self.who {
            Who::Person(person) => state.revocations().is_revoked(person.session) == Some(true),
            Who::Operator(_) => false,
        }
    }

    /// Asks whoever knows; costs no query for a person while Redis tells of ended sessions.
    pub(super) async fn is_admitted(&self, state: &AppState) -> Result<bool, ApiError> {
        match &self.who {
            Who::Person(person) => match state.revocations().is_revoked(person.session) {
                Some(revoked) => Ok(!revoked),
                None => Ok(!sessions::has_ended(state, person.session).await?),
            },
            Who::Operator(token) => {
                let token = token.expose_secret();
                match allowed_on::<WatchConnections>(state, token, Some(self.user.0)).await {
                    Ok(_) => Ok(true),
                    Err(error) if error.code().status().is_client_error() => Ok(false),
                    Err(error) => Err(error),
                }
            }
        }
    }
}

/// Of `/…/{user_id}`, with the token in the header or the query.
impl FromRequest for Viewer {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let state = request
                .app_data::<web::Data<AppState>>()
                .ok_or_else(|| ApiError::internal("the application has no state"))?;
            let query: SocketQuery = parse_query(request.query_string())?;
            let token = bearer(&request).or(query.token.as_ref().map(ExposeSecret::expose_secret));
            let token = token.ok_or(Code::Unauthorized)?;
            let user = request.match_info().query("user_id").parse();
            let user = user.map_err(|_| ApiError::invalid("user_id", "Must be a UUID"))?;
            Self::admit(state, token, user).await
        })
    }
}
