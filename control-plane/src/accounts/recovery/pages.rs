//! The pages behind the links, for people with a browser: any, without scripts or cookies.

use actix_web::http::StatusCode;
use actix_web::http::header::ALLOW;
use actix_web::{HttpResponse, web};
use askama::Template;
use chrono::Utc;
use garde::Validate;
use secrecy::SecretString;
use serde::Deserialize;

use super::{Purpose, reset, verification};
use crate::app::AppState;
use crate::error::{ApiError, Code};
use crate::guard::Caller;
use crate::http::html::{Message, failure, page};
use crate::http::{RequestId, ValidForm, ValidQuery};

/// Where links lead. Not part of the API's document.
pub fn pages(config: &mut web::ServiceConfig) {
    let verify_email = web::resource("/verify-email")
        .get(show_verify_email)
        .post(submit_verify_email);
    let reset_password = web::resource("/reset-password")
        .get(show_reset_password)
        .post(submit_reset_password);
    config
        .service(verify_email.default_service(web::to(other_method)))
        .service(reset_password.default_service(web::to(other_method)));
}

async fn other_method() -> HttpResponse {
    let mut response = HttpResponse::from_error(ApiError::new(Code::MethodNotAllowed));
    let methods = actix_web::http::header::HeaderValue::from_static("GET, POST");
    response.headers_mut().insert(ALLOW, methods);
    response
}

#[derive(Debug, Deserialize, Validate)]
struct Link {
    #[garde(length(bytes, max = 200))]
    #[serde(default)]
    token: String,
}

#[derive(Debug, Deserialize, Validate)]
struct NewPassword {
    #[garde(length(bytes, max = 200))]
    token: String,
    #[garde(skip)]
    password: SecretString,
}

#[derive(Template)]
#[template(path = "pages/verify_email.html")]
struct VerifyEmailPage<'a> {
    token: &'a str,
}

#[derive(Template)]
#[template(path = "pages/reset_password.html")]
struct ResetPasswordPage<'a> {
    token: &'a str,
    problem: Option<String>,
}

async fn show_verify_email(
    state: web::Data<AppState>,
    ValidQuery(link): ValidQuery<Link>,
) -> Result<HttpResponse, ApiError> {
    let token = &link.token;
    match verification::check(&state, Purpose::VerifyEmail, token, Utc::now()).await {
        Ok(()) => page(StatusCode::OK, &VerifyEmailPage { token }),
        Err(error) => failure(&error),
    }
}

async fn submit_verify_email(
    state: web::Data<AppState>,
    request_id: RequestId,
    ValidForm(link): ValidForm<Link>,
) -> Result<HttpResponse, ApiError> {
    match verification::verify(&state, &link.token, &request_id, Utc::now()).await {
        Ok(()) => done("Your address is confirmed", "You can close this page."),
        Err(error) => failure(&error),
    }
}

async fn show_reset_password(
    state: web::Data<AppState>,
    ValidQuery(link): ValidQuery<Link>,
) -> Result<HttpResponse, ApiError> {
    let token = &link.token;
    match verification::check(&state, Purpose::ResetPassword, token, Utc::now()).await {
        Ok(()) => ask_for_password(token, StatusCode::OK, None),
        Err(error) => failure(&error),
    }
}

async fn submit_reset_password(
    state: web::Data<AppState>,
    caller: Caller,
    request_id: RequestId,
    ValidForm(form): ValidForm<NewPassword>,
) -> Result<HttpResponse, ApiError> {
    let NewPassword { token, password } = form;
    match reset::reset(&state, &token, password, &caller, &request_id, Utc::now()).await {
        Ok(()) => done(
            "Your password is changed",
            "Log in with it. Every device was logged out.",
        ),
        Err(error) if error.code() == Code::InvalidInput => {
            let details = error.envelope("").error.details;
            let problem = details.into_iter().next().map(|detail| detail.message);
            ask_for_password(&token, StatusCode::BAD_REQUEST, problem)
        }
        Err(error) => failure(&error),
    }
}

fn ask_for_password(
    token: &str,
    status: StatusCode,
    problem: Option<String>,
) -> Result<HttpResponse, ApiError> {
    page(status, &ResetPasswordPage { token, problem })
}

fn done(title: &str, text: &str) -> Result<HttpResponse, ApiError> {
    page(StatusCode::OK, &Message { title, text })
}
