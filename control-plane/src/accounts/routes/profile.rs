use actix_web::{put, web};
use chrono::Utc;
use garde::Validate;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;

use super::views::UserView;
use crate::accounts::Email;
use crate::accounts::profile_change::{Wanted, change};
use crate::app::AppState;
use crate::error::{ApiError, ErrorEnvelope};
use crate::http::text::plain;
use crate::http::{CurrentUser, RequestId, ValidJson};

/// What is left out stays as it is.
#[derive(Debug, Deserialize, Validate, ToSchema)]
pub(super) struct ProfileUpdate {
    /// Null for none.
    #[serde(default, deserialize_with = "given")]
    #[garde(inner(inner(length(chars, min = 1, max = 200), custom(plain))))]
    #[schema(value_type = Option<String>, example = "Anna Example", min_length = 1, max_length = 200, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$")]
    full_name: Option<Option<String>>,
    /// Has to be verified anew.
    #[garde(skip)]
    #[schema(
        example = "anna@example.org",
        max_length = 254,
        pattern = r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$"
    )]
    email: Option<String>,
    /// Needed for another address.
    #[garde(skip)]
    #[schema(value_type = Option<String>, format = Password)]
    current_password: Option<SecretString>,
}

/// Tells null from nothing at all.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Changes the caller's name or address.
///
/// Another address takes effect at once, is not verified, and is told to the old one.
#[utoipa::path(
    tag = "accounts",
    security(("bearer" = [])),
    request_body = ProfileUpdate,
    responses(
        (status = 200, description = "The account as it is now", body = UserView),
        (status = 400, description = "INVALID_INPUT, WRONG_PASSWORD, EMAIL_TAKEN", body = ErrorEnvelope),
    ),
)]
#[put("/users/me")]
pub(super) async fn update_profile(
    state: web::Data<AppState>,
    user: CurrentUser,
    request: RequestId,
    ValidJson(body): ValidJson<ProfileUpdate>,
) -> Result<web::Json<UserView>, ApiError> {
    let email = body.email.as_deref().map(Email::parse).transpose()?;
    let wanted = Wanted {
        full_name: body.full_name,
        email,
        password: body.current_password,
    };
    let profile = change(&state, user.id, wanted, &request, Utc::now()).await?;
    Ok(web::Json(profile.into()))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::http::input::parse;

    #[rstest]
    #[case("{}", None)]
    #[case(r#"{"full_name":null}"#, Some(None))]
    #[case(r#"{"full_name":"Anna"}"#, Some(Some("Anna")))]
    fn null_is_not_nothing(#[case] body: &str, #[case] name: Option<Option<&str>>) {
        let wanted: ProfileUpdate = parse(body.as_bytes()).unwrap();
        assert_eq!(wanted.full_name.as_ref().map(Option::as_deref), name);
    }

    #[rstest]
    #[case(r#"{"full_name":""}"#)]
    #[case(r#"{"full_name":"a\u0000b"}"#)]
    #[case(r#"{"full_name":"a\nb"}"#)]
    fn a_name_is_plain_text(#[case] body: &str) {
        assert!(parse::<ProfileUpdate>(body.as_bytes()).is_err());
    }
}
