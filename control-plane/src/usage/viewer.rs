//! Who watches a user's connections, and for how long they may.

use std::future::Future;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};
use chrono::Utc;
use garde::Validate;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use shared::ids::UserId;
use utoipa::IntoParams;

use super::tickets::{self, Bearer, Pass};
use crate::app::AppState;
use crate::error::{ApiError, Code};
use crate::http::current_user::bearer;
use crate::http::input::parse_query;
use crate::http::permission::WatchConnections;
use crate::http::{Holder, Holding};

#[derive(Debug, Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct SocketQuery {
    /// The access token, where the client cannot send the `Authorization` header.
    #[garde(skip)]
    #[param(value_type = Option<String>, nullable = false)]
    token: Option<SecretString>,
    /// In place of a token: a ticket of `POST /connection/ticket`, good for one time.
    #[garde(skip)]
    #[param(value_type = Option<String>, nullable = false)]
    ticket: Option<SecretString>,
}

/// Whoever may watch the connections of `user`: the user themself, or somebody with
/// [`WatchConnections`].
#[derive(Debug)]
pub(super) struct Viewer {
    pub(super) user: UserId,
    pub(super) who: Holding<WatchConnections>,
}

/// A [`Viewer`] who shows a token in the `Authorization` header and nothing else: whoever asks for a
/// ticket.
#[derive(Debug)]
pub(super) struct TokenHolder(pub(super) Viewer);

impl Viewer {
    /// The bearer of a token, who wants to watch this user, or themself.
    async fn admit(state: &AppState, token: &str, user: Option<UserId>) -> Result<Self, ApiError> {
        let who = Holder::of(state, token).await?;
        let user = match (&who, user) {
            (_, Some(user)) => user,
            (Holder::Person(person), None) => person.id,
            // An operator has no connections.
            (Holder::Operator(_), None) => return Err(Code::Unauthorized.into()),
        };
        let viewer = Self::new(user, who);
        if !viewer.is_owner() {
            let resource = Some(user.0);
            let holder = &viewer.who.holder;
            holder.permit::<WatchConnections>(state, resource).await?;
        }
        Ok(viewer)
    }

    const fn new(user: UserId, who: Holder) -> Self {
        let who = Holding::new(who, Some(user.0));
        Self { user, who }
    }

    /// The bearer of a ticket. One for somebody else's connections is worth nothing, and is used up.
    async fn redeem(
        state: &AppState,
        ticket: &str,
        user: Option<UserId>,
    ) -> Result<Self, ApiError> {
        let pass = tickets::redeem(state, ticket).await?;
        let who = match pass.bearer {
            Bearer::Person(person) => Holder::Person(person),
            Bearer::Operator(token) => Holder::Operator(token.into()),
        };
        let viewer = Self::new(pass.user, who);
        let is_meant = user.is_none_or(|user| user == viewer.user);
        let ends = viewer.who.holder.expires_at();
        let has_time = ends.is_none_or(|at| at > Utc::now());
        if is_meant && has_time && viewer.who.is_admitted(state).await? {
            Ok(viewer)
        } else {
            Err(Code::Unauthorized.into())
        }
    }

    /// What a ticket of this viewer's stands for.
    pub(super) fn pass(&self) -> Pass {
        Pass {
            user: self.user,
            bearer: match &self.who.holder {
                Holder::Person(person) => Bearer::Person(person.clone()),
                Holder::Operator(token) => Bearer::Operator(token.expose_secret().to_owned()),
            },
        }
    }

    /// Whether the connections are the viewer's own.
    pub(super) fn is_owner(&self) -> bool {
        matches!(&self.who.holder, Holder::Person(person) if person.id == self.user)
    }
}

/// Of `/…/{user_id}`, or of a path without it, which is about the caller; with the token in the header or
/// the query, or a ticket in the query.
impl FromRequest for Viewer {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let state = state_of(&request)?;
            let query: SocketQuery = parse_query(request.query_string())?;
            let token = bearer(&request).or(query.token.as_ref().map(ExposeSecret::expose_secret));
            match (token, &query.ticket) {
                (Some(token), _) => Self::admit(state, token, user_of(&request)?).await,
                (None, Some(ticket)) => {
                    Self::redeem(state, ticket.expose_secret(), user_of(&request)?).await
                }
                (None, None) => Err(Code::Unauthorized.into()),
            }
        })
    }
}

impl FromRequest for TokenHolder {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let state = state_of(&request)?;
            let token = bearer(&request).ok_or(Code::Unauthorized)?;
            let viewer = Viewer::admit(state, token, user_of(&request)?).await?;
            Ok(Self(viewer))
        })
    }
}

fn state_of(request: &HttpRequest) -> Result<&AppState, ApiError> {
    let state = request.app_data::<web::Data<AppState>>();
    let state = state.ok_or_else(|| ApiError::internal("the application has no state"))?;
    Ok(state)
}

/// Whom the path names.
fn user_of(request: &HttpRequest) -> Result<Option<UserId>, ApiError> {
    let named = request.match_info().get("user_id");
    let user = named.map(str::parse).transpose();
    user.map_err(|_| ApiError::invalid("user_id", "Must be a UUID"))
}
