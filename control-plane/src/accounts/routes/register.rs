use actix_web::{HttpResponse, post, web};
use chrono::Utc;
use garde::Validate;
use secrecy::SecretString;
use serde::Deserialize;
use utoipa::ToSchema;

use super::views::UserView;
use crate::accounts::email::is_email;
use crate::accounts::passwords::check_new;
use crate::accounts::registration::{self, FREE_PLAN, Registrar, Registration};
use crate::accounts::{Email, Role};
use crate::app::AppState;
use crate::error::ApiError;
use crate::http::text::plain;
use crate::http::{RequestId, ValidJson};

#[derive(Debug, Deserialize, Validate, ToSchema)]
struct RegisterRequest {
    #[garde(custom(is_email))]
    #[schema(
        example = "anna@example.org",
        max_length = 254,
        pattern = r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$"
    )]
    email: String,
    /// 8 to 128 characters, not the address.
    #[garde(custom(is_password(&self.email)))]
    #[schema(value_type = String, format = Password, min_length = 8, max_length = 128)]
    password: SecretString,
    /// No control characters.
    #[garde(inner(length(chars, min = 1, max = 200), custom(plain)))]
    #[schema(
        example = "Anna Example",
        min_length = 1,
        max_length = 200,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"
    )]
    full_name: Option<String>,
}

fn is_password(email: &str) -> impl FnOnce(&SecretString, &()) -> garde::Result + '_ {
    move |password, ()| check_new(password, email).map_err(garde::Error::new)
}

/// Creates an account on the free plan and sends a mail that verifies its address.
#[utoipa::path(
    tag = "accounts",
    security(()),
    request_body = RegisterRequest,
    responses((status = 201, description = "The new account", body = UserView)),
)]
#[post("/auth/register")]
pub(super) async fn register(
    state: web::Data<AppState>,
    request_id: RequestId,
    ValidJson(request): ValidJson<RegisterRequest>,
) -> Result<HttpResponse, ApiError> {
    let registration = Registration {
        email: Email::parse(&request.email)?,
        password: request.password,
        full_name: request.full_name,
        role: Role::User,
        plan: FREE_PLAN.to_owned(),
        by: Registrar::Owner {
            keys: state.keys(),
            verification_ttl: state.config().accounts.verification_ttl,
            request: &request_id,
        },
    };
    let profile =
        registration::register(state.db(), state.passwords(), registration, Utc::now()).await?;
    state.jobs().ring();
    Ok(HttpResponse::Created().json(UserView::from(profile)))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::http::input::parse;

    fn refused(request: &serde_json::Value) -> Vec<String> {
        let error = parse::<RegisterRequest>(request.to_string().as_bytes()).unwrap_err();
        error
            .envelope("")
            .error
            .details
            .into_iter()
            .map(|detail| detail.field)
            .collect()
    }

    #[rstest]
    #[case(json!({"email": "anna@example.org", "password": "long enough"}))]
    #[case(json!({"email": " Anna@Example.org", "password": "12345678", "full_name": "Anna"}))]
    #[case(json!({"email": "anna@example.org", "password": "ß".repeat(128), "full_name": null}))]
    fn what_is_complete_is_accepted(#[case] request: serde_json::Value) {
        assert!(parse::<RegisterRequest>(request.to_string().as_bytes()).is_ok());
    }

    #[rstest]
    #[case(json!({"password": "long enough"}), &["email"])]
    #[case(json!({"email": "anna@example.org"}), &["password"])]
    #[case(json!({"email": "anna", "password": "short"}), &["email", "password"])]
    #[case(json!({"email": "anna@example.org", "password": "x".repeat(129)}), &["password"])]
    #[case(json!({"email": "anna@example.org", "password": "ANNA@example.org"}), &["password"])]
    #[case(json!({"email": "anna@example.org", "password": "long enough", "full_name": ""}), &["full_name"])]
    #[case(json!({"email": 5, "password": "long enough"}), &["email"])]
    fn what_is_wrong_is_named(#[case] request: serde_json::Value, #[case] fields: &[&str]) {
        assert_eq!(refused(&request), fields);
    }
}
