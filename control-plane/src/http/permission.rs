//! What somebody may do beyond their own account: a type in the handler's signature.
//!
//! A handler that takes [`Allowed<ReadUsers>`](Allowed) is reached by people of that permission's
//! role or a higher one, and by operator tokens that hold its right.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};
use shared::ids::UserId;
use uuid::Uuid;

use super::current_user::{CurrentUser, bearer, user_from_token};
use crate::accounts::Role;
use crate::app::AppState;
use crate::audit::Actor;
use crate::error::{ApiError, Code};
use crate::operators;

/// One thing that may be allowed.
pub trait Permission: 'static {
    /// What an operator token calls it.
    const RIGHT: &'static str;
    /// The lowest role that has it.
    const ROLE: Role;
}

macro_rules! permissions {
    ($($(#[$doc:meta])* $name:ident = $right:literal, $role:ident;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug)]
            pub struct $name;

            impl Permission for $name {
                const RIGHT: &'static str = $right;
                const ROLE: Role = Role::$role;
            }
        )*

        /// Every right with the lowest role that has it.
        pub const RIGHTS: &[(&str, Role)] = &[$(($right, Role::$role),)*];
    };
}

permissions! {
    ReadUsers = "users:read", Support;
    /// Suspends and restores accounts.
    WriteUsers = "users:write", Admin;
    WriteRoles = "roles:write", Superuser;
    ReadAudit = "audit:read", Admin;
    /// Watches other people's live metrics.
    WatchConnections = "connections:read", Support;
    /// Sees what the fleet and its people used.
    ReadAnalytics = "analytics:read", Support;
    ReadServers = "servers:read", Support;
    WriteServers = "servers:write", Admin;
    /// Makes and takes back what hosts enrol with.
    EnrolNodes = "nodes:enrol", Admin;
    /// Sees who is banned and how an address stands with the limits.
    ReadSecurity = "security:read", Support;
    WriteSecurity = "security:write", Admin;
    ReadPlans = "plans:read", Support;
    WritePlans = "plans:write", Admin;
    /// Sees what the payment provider told, and what became of it.
    ReadBilling = "billing:read", Support;
    WriteBilling = "billing:write", Admin;
    /// Sees the whole at a glance.
    ReadOverview = "overview:read", Support;
    ReadJobs = "jobs:read", Support;
    WriteJobs = "jobs:write", Admin;
}

/// Somebody who has the permission.
#[derive(Debug)]
pub struct Allowed<P> {
    pub actor: Actor,
    /// What the actor may do at most: an operator token acts as an admin.
    pub role: Role,
    permission: PhantomData<P>,
}

impl<P: Permission> Allowed<P> {
    /// Whether this person has the permission.
    pub fn person(user: &CurrentUser) -> Result<Self, ApiError> {
        if user.role < P::ROLE {
            return Err(Code::Forbidden.into());
        }
        Ok(Self::new(Actor::User(user.id), user.role))
    }

    const fn new(actor: Actor, role: Role) -> Self {
        Self {
            actor,
            role,
            permission: PhantomData,
        }
    }
}

impl<P: Permission> FromRequest for Allowed<P> {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let state = request.app_data::<web::Data<AppState>>().cloned();
        let token = bearer(request).map(str::to_owned);
        let resource = resource(request);
        Box::pin(async move {
            let state = state.ok_or_else(|| ApiError::internal("the application has no state"))?;
            allowed_on(&state, &token.ok_or(Code::Unauthorized)?, resource).await
        })
    }
}

/// A person, about what is theirs, or whoever has the permission, about everybody's.
#[derive(Debug)]
pub enum OwnOr<P> {
    Own(UserId),
    Allowed(Allowed<P>),
}

impl<P> OwnOr<P> {
    /// Whether what is somebody's exists for the caller.
    #[must_use]
    pub fn sees(&self, owner: UserId) -> bool {
        match self {
            Self::Own(user) => *user == owner,
            Self::Allowed(_) => true,
        }
    }

    #[must_use]
    pub fn actor(&self) -> Actor {
        match self {
            Self::Own(user) => Actor::User(*user),
            Self::Allowed(allowed) => allowed.actor.clone(),
        }
    }
}

impl<P: Permission> FromRequest for OwnOr<P> {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        if bearer(request).is_some_and(operators::is_operator_token) {
            let allowed = Allowed::from_request(request, payload);
            return Box::pin(async move { allowed.await.map(Self::Allowed) });
        }
        let person = CurrentUser::from_request(request, payload);
        Box::pin(async move {
            let person = person.await?;
            Ok(Allowed::person(&person).map_or(Self::Own(person.id), Self::Allowed))
        })
    }
}

/// What the request is about: the `{id}` of its path. An operator token for one person reaches no
/// route without.
fn resource(request: &HttpRequest) -> Option<Uuid> {
    request.match_info().get("id")?.parse().ok()
}

/// Whether the bearer of this token, a person's or an operator's, has the permission over the
/// resource, such as a person or a server.
pub async fn allowed_on<P: Permission>(
    state: &AppState,
    token: &str,
    resource: Option<Uuid>,
) -> Result<Allowed<P>, ApiError> {
    if operators::is_operator_token(token) {
        let actor = operators::authorize(state, token, P::RIGHT, resource).await?;
        return Ok(Allowed::new(actor, Role::Admin));
    }
    Allowed::person(&user_from_token(state, token).await?)
}
