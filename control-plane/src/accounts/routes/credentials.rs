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
use crate::http::text::plain;

#[derive(Debug, Deserialize, Validate, ToSchema)]
#[schema(as = LoginRequest)]
pub(super) struct Credentials {
    #[garde(skip)]
    #[schema(example = "anna@example.org")]
    pub(super) email: String,
    #[garde(skip)]
    #[schema(value_type = String, format = Password)]
    pub(super) password: SecretString,
    /// A code of the authenticator or a recovery code, where a second factor is enabled.
    #[garde(skip)]
    #[schema(value_type = Option<String>, example = "492039")]
    pub(super) otp: Option<SecretString>,
    /// What the session is called in `GET /auth/sessions`. No control characters.
    #[garde(inner(length(chars, min = 1, max = 100), custom(plain)))]
    #[schema(
        example = "Anna's phone",
        min_length = 1,
        max_length = 100,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"
    )]
    pub(super) device_name: Option<String>,
}

/// The same as a form.
#[derive(Debug, Deserialize, Validate, ToSchema)]
pub(super) struct LoginForm {
    #[garde(skip)]
    #[schema(example = "anna@example.org")]
    username: String,
    #[garde(skip)]
    #[schema(value_type = String, format = Password)]
    password: SecretString,
    #[garde(skip)]
    #[schema(value_type = Option<String>, example = "492039", nullable = false)]
    otp: Option<SecretString>,
    #[garde(inner(length(chars, min = 1, max = 100), custom(plain)))]
    #[schema(
        example = "Anna's phone",
        min_length = 1,
        max_length = 100,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]+$",
        nullable = false
    )]
    device_name: Option<String>,
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
        device_name: form.device_name,
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case("Anna's phone", true)]
    #[case("Телефон", true)]
    #[case(&"ß".repeat(100), true)]
    #[case(&"ß".repeat(101), false)]
    #[case("", false)]
    #[case("two\nlines", false)]
    #[case("nul\0", false)]
    #[case("next\u{85}line", false)]
    fn a_device_has_a_printable_name(#[case] name: &str, #[case] is_taken: bool) {
        let body = json!({ "email": "a@example.org", "password": "x", "device_name": name });
        let json = input::parse::<Credentials>(body.to_string().as_bytes());
        assert_eq!(json.is_ok(), is_taken);
        let form = [("username", "a"), ("password", "x"), ("device_name", name)];
        let form = serde_urlencoded::to_string(form).unwrap();
        assert_eq!(from_form(form.as_bytes()).is_ok(), is_taken);
    }

    #[test]
    fn a_form_has_the_code_too() {
        let credentials = from_form(b"username=a&password=b&otp=123456").unwrap();
        let otp = credentials.otp.unwrap();
        assert_eq!(secrecy::ExposeSecret::expose_secret(&otp), "123456");
    }
}
