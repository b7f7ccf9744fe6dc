//! `/oauth/authorize`: the page on which a person lets an app in.

use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_SECURITY_POLICY, HeaderValue, LOCATION, RETRY_AFTER};
use actix_web::{HttpRequest, HttpResponse, get, post, web};
use askama::Template;
use chrono::Utc;
use garde::Validate;
use secrecy::SecretString;
use serde::Deserialize;
use utoipa::ToSchema;

use super::form::Form;
use crate::accounts::login::Proof;
use crate::app::AppState;
use crate::error::ApiError;
use crate::guard::Caller;
use crate::http::{RequestId, html, input};
use crate::oauth::authorization::{Parameters, Problem, Refusal, Request, check};
use crate::oauth::grant;

/// The parameters of the page once more, and who logs in.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[garde(allow_unvalidated)]
struct AuthorizeForm {
    #[serde(flatten)]
    parameters: Parameters,
    #[schema(example = "anna@example.org")]
    email: String,
    #[schema(value_type = String, format = Password)]
    password: SecretString,
    /// A code of the second factor or a recovery code, where one is enabled.
    #[schema(value_type = Option<String>, example = "492039")]
    otp: Option<SecretString>,
}

#[derive(Template)]
#[template(path = "oauth/authorize.html")]
struct LoginPage<'a> {
    service: &'a str,
    request: &'a Request,
    email: &'a str,
    problem: Option<&'a str>,
}

/// Shows the page on which a person logs in to let an app in.
///
/// A request whose client or redirect URI is not known ends on a page that says so. Whatever else is
/// wrong is told to the app: `error` and `error_description` in the query of its redirect URI.
#[utoipa::path(
    tag = "oauth",
    security(()),
    params(Parameters),
    responses(
        (status = 200, description = "The login page", body = String, content_type = "text/html"),
        (status = 303, description = "Back to the app, with `error`, `state` and `iss`"),
        (status = 400, description = "A page: the redirect URI is not the app's", body = String, content_type = "text/html"),
        (status = 404, description = "A page: there is no such app", body = String, content_type = "text/html"),
    ),
)]
#[get("/oauth/authorize")]
pub(super) async fn authorize_page(
    state: web::Data<AppState>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let Ok(parameters) = input::parse_query(request.query_string()) else {
        return problem_page(Problem::Unreadable);
    };
    match checked(&state, parameters).await? {
        Ok(request) => login_page(&state, StatusCode::OK, &request, "", None),
        Err(refusal) => refuse(refusal),
    }
}

/// Logs a person in and sends them back to the app with a code.
#[utoipa::path(
    tag = "oauth",
    security(()),
    request_body(content = AuthorizeForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 303, description = "Back to the app, with `code` or `error`, and `state` and `iss`"),
        (status = 400, description = "A page: the redirect URI is not the app's", body = String, content_type = "text/html"),
        (status = 401, description = "The login page: address, password or code are wrong", body = String, content_type = "text/html"),
        (status = 403, description = "The login page: the account is suspended", body = String, content_type = "text/html"),
        (status = 404, description = "A page: there is no such app", body = String, content_type = "text/html"),
        (status = 429, description = "The login page: too many tries or wrong codes", body = String, content_type = "text/html"),
    ),
)]
#[post("/oauth/authorize")]
pub(super) async fn authorize(
    state: web::Data<AppState>,
    caller: Caller,
    id: RequestId,
    form: Form,
) -> Result<HttpResponse, ApiError> {
    let Ok(form) = form.read::<AuthorizeForm>() else {
        return problem_page(Problem::Unreadable);
    };
    let AuthorizeForm {
        parameters,
        email,
        password,
        otp,
    } = form;
    let request = match checked(&state, parameters).await? {
        Ok(request) => request,
        Err(refusal) => return refuse(refusal),
    };
    let proof = Proof {
        email: email.clone(),
        password,
        otp,
    };
    match grant::authorize(&state, &request, proof, &caller, Utc::now(), &id).await {
        Ok(location) => redirect(&location),
        Err(error) if error.code().status().is_client_error() => {
            let (status, problem) = (error.code().status(), error.message());
            let mut page = login_page(&state, status, &request, &email, Some(problem))?;
            if let Some(seconds) = error.retry_after() {
                page.headers_mut().insert(RETRY_AFTER, seconds.into());
            }
            Ok(page)
        }
        Err(error) => Err(error),
    }
}

async fn checked(
    state: &AppState,
    parameters: Parameters,
) -> Result<Result<Request, Refusal>, ApiError> {
    let client = grant::client(state, &parameters.client_id).await?;
    Ok(check(parameters, client, &state.config().http.public_url))
}

fn refuse(refusal: Refusal) -> Result<HttpResponse, ApiError> {
    match refusal {
        Refusal::Person(problem) => problem_page(problem),
        Refusal::App(location) => redirect(&location),
    }
}

fn redirect(location: &str) -> Result<HttpResponse, ApiError> {
    let location = HeaderValue::from_str(location).map_err(ApiError::internal)?;
    Ok(HttpResponse::SeeOther()
        .insert_header((LOCATION, location))
        .finish())
}

/// Browsers hold the answer to a form to the policy of the form's page, so that it has to name the
/// app's place.
fn login_page(
    state: &AppState,
    status: StatusCode,
    request: &Request,
    email: &str,
    problem: Option<&str>,
) -> Result<HttpResponse, ApiError> {
    let page = LoginPage {
        service: &state.config().app.name,
        request,
        email,
        problem,
    };
    let source = request.answer.redirect_uri.csp_source();
    let policy = html::policy(&format!("'self' {source}"));
    let policy = HeaderValue::from_str(&policy).map_err(ApiError::internal)?;
    let mut response = html::page(status, &page)?;
    response
        .headers_mut()
        .insert(CONTENT_SECURITY_POLICY, policy);
    Ok(response)
}

fn problem_page(problem: Problem) -> Result<HttpResponse, ApiError> {
    let status = match problem {
        Problem::UnknownClient => StatusCode::NOT_FOUND,
        Problem::Unreadable | Problem::ForeignRedirectUri => StatusCode::BAD_REQUEST,
    };
    let text = problem.to_string();
    let page = html::Message {
        title: "This app cannot sign you in",
        text: &text,
    };
    html::page(status, &page)
}
