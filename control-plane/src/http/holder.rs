//! Whoever holds a stream open, and whether they still may: for answers that outlive their request.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};
use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use super::current_user::{CurrentUser, bearer, user_from_token};
use super::permission::{Allowed, Permission, allowed_on};
use crate::accounts::sessions;
use crate::app::AppState;
use crate::error::{ApiError, Code};
use crate::operators;

/// A person with their session, or the bearer of an operator token.
#[derive(Debug)]
pub enum Holder {
    Person(CurrentUser),
    Operator(SecretString),
}

impl Holder {
    /// Whose token this is. An operator's is looked at only when it is to permit something.
    pub async fn of(state: &AppState, token: &str) -> Result<Self, ApiError> {
        if operators::is_operator_token(token) {
            return Ok(Self::Operator(token.into()));
        }
        user_from_token(state, token).await.map(Self::Person)
    }

    /// Whether they have the permission over the resource.
    pub async fn permit<P: Permission>(
        &self,
        state: &AppState,
        resource: Option<Uuid>,
    ) -> Result<(), ApiError> {
        match self {
            Self::Person(person) => Allowed::<P>::person(person).map(drop),
            Self::Operator(token) => {
                let token = token.expose_secret();
                allowed_on::<P>(state, token, resource).await.map(drop)
            }
        }
    }

    /// When the token ends, where it says so.
    #[must_use]
    pub const fn expires_at(&self) -> Option<DateTime<Utc>> {
        match self {
            Self::Person(person) => Some(person.expires_at),
            Self::Operator(_) => None,
        }
    }

    /// Whether they are known to be out, without asking anybody.
    #[must_use]
    pub fn is_out(&self, state: &AppState) -> bool {
        match self {
            Self::Person(person) => state.revocations().is_revoked(person.session) == Some(true),
            Self::Operator(_) => false,
        }
    }

    /// Whether who was permitted before still is. Asks whoever knows; costs no query for a person while
    /// Redis tells of ended sessions.
    pub async fn is_admitted<P: Permission>(
        &self,
        state: &AppState,
        resource: Option<Uuid>,
    ) -> Result<bool, ApiError> {
        match self {
            Self::Person(person) => match state.revocations().is_revoked(person.session) {
                Some(revoked) => Ok(!revoked),
                None => Ok(!sessions::has_ended(state, person.session).await?),
            },
            Self::Operator(_) => match self.permit::<P>(state, resource).await {
                Ok(()) => Ok(true),
                Err(error) if error.code().status().is_client_error() => Ok(false),
                Err(error) => Err(error),
            },
        }
    }
}

/// A [`Holder`] with the permission over a resource, or over everything.
#[derive(Debug)]
pub struct Holding<P> {
    pub holder: Holder,
    resource: Option<Uuid>,
    permission: PhantomData<P>,
}

impl<P: Permission> Holding<P> {
    /// Of a holder who has it.
    #[must_use]
    pub const fn new(holder: Holder, resource: Option<Uuid>) -> Self {
        Self {
            holder,
            resource,
            permission: PhantomData,
        }
    }

    /// Whether they still have it.
    pub async fn is_admitted(&self, state: &AppState) -> Result<bool, ApiError> {
        self.holder.is_admitted::<P>(state, self.resource).await
    }
}

impl<P: Permission> FromRequest for Holding<P> {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let state = request.app_data::<web::Data<AppState>>().cloned();
        let token = bearer(request).map(str::to_owned);
        Box::pin(async move {
            let state = state.ok_or_else(|| ApiError::internal("the application has no state"))?;
            let holder = Holder::of(&state, &token.ok_or(Code::Unauthorized)?).await?;
            holder.permit::<P>(&state, None).await?;
            Ok(Self::new(holder, None))
        })
    }
}
