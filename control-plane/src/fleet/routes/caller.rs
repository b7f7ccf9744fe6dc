//! Who calls: a host that wants to enrol, or a node.

use std::future::{Future, Ready, ready};
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};
use chrono::Utc;

use crate::app::AppState;
use crate::error::{ApiError, Code};
use crate::fleet::identity::{Enrolment, NodeIdentity};
use crate::fleet::store;
use crate::http::current_user::bearer;

/// An enrolment token of ours that has not expired. It may still have been used.
#[derive(Debug)]
pub(super) struct EnrolmentToken(pub(super) Enrolment);

impl FromRequest for EnrolmentToken {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(admit(request).map(Self))
    }
}

fn admit(request: &HttpRequest) -> Result<Enrolment, ApiError> {
    let state = request
        .app_data::<web::Data<AppState>>()
        .ok_or_else(|| ApiError::internal("the application has no state"))?;
    let token = bearer(request).ok_or(Code::EnrolmentTokenInvalid)?;
    state.fleet().admit(token)
}

/// The node whose token this is, not expired and not revoked.
#[derive(Debug)]
pub(super) struct CurrentNode(pub(super) NodeIdentity);

impl FromRequest for CurrentNode {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let state = request.app_data::<web::Data<AppState>>().cloned();
        let token = bearer(request).map(str::to_owned);
        Box::pin(async move {
            let state = state.ok_or_else(|| ApiError::internal("the application has no state"))?;
            let token = token.ok_or(Code::Unauthorized)?;
            let node = state.fleet().identity().read_node(&token, Utc::now())?;
            if store::token_epoch(state.db(), node.server).await? != Some(node.epoch) {
                let error = ApiError::new(Code::Unauthorized);
                return Err(error.with_message("This node's token was revoked; enrol it again"));
            }
            Ok(Self(node))
        })
    }
}
