//! Address and password, as JSON or as the form of OAuth2's password grant.

use std::future::Future;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpMessage, HttpRequest};
use garde::Validate;
use secrecy::SecretString;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::error::{ApiError, Code};
use crate::http::input;

#[derive(Debug, Deserialize, Validate, ToSchema)]
#[schema(as = LoginRequest)]
pub(super) struct Credentials {
    #[garde(skip)]
    #[schema(example = "anna@example.org")]
    pub(super) email: String,
    #[garde(skip)]
    #[schema(value_type = String, format = Password)]
    pub(super) password: SecretString,
    /// A code of the second factor or a recovery code, where one is enabled.
    #[garde(skip)]
    #[schema(example = "492039")]
    pub(super) otp: Option<String>,
}

/// What a form calls them.
#[derive(Debug, Deserialize, Validate, ToSchema)]
pub(super) struct LoginForm {
    #[garde(skip)]
    #[schema(example = "anna@example.org")]
    username: String,
    #[garde(skip)]
    #[schema(value_type = String, format = Password)]
    password: SecretString,
    /// A code of the second factor or a recovery code, where one is enabled.
    #[garde(skip)]
    #[schema(example = "492039")]
    otp: Option<String>,
}

impl FromRequest for Credentials {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let content_type = request.content_type().to_ascii_lowercase();
        let body = input::body(request, payload);
        Box::pin(async move {
            match content_type.as_str() {
                "application/json" => input::parse(&body.await?),
                "application/x-www-form-urlencoded" => from_form(&body.await?),
                _ => Err(Code::UnsupportedMediaType.into()),
            }
        })
    }
}

fn from_form(body: &[u8]) -> Result<Credentials, ApiError> {
    let text = std::str::from_utf8(body).unwrap_or_default();
    let form: LoginForm = input::parse_query(text)?;
    Ok(Credentials {
        email: form.username,
        password: form.password,
        otp: form.otp,
    })
}
