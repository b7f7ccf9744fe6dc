//! Links that prove an address: verification and password reset.

mod routes;

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use secrecy::ExposeSecret;
use shared::ids::UserId;

use super::Email;
use crate::db::schema::one_time_tokens;
use crate::jobs::JobError;
use crate::mail::{self, Letter};
use crate::secrets::{KeyRing, SecretToken};

pub use routes::routes;

/// Writes to an address that nobody has proved yet.
pub async fn send_verification(
    connection: &mut AsyncPgConnection,
    keys: &KeyRing,
    user: UserId,
    email: &Email,
    now: DateTime<Utc>,
    ttl: Duration,
) -> Result<(), JobError> {
    let token = SecretToken::generate();
    diesel::insert_into(one_time_tokens::table)
        .values((
            one_time_tokens::token_hash.eq(token.hash().as_bytes().as_slice()),
            one_time_tokens::user_id.eq(user.0),
            one_time_tokens::purpose.eq("verify_email"),
            one_time_tokens::email.eq(email.as_str()),
            one_time_tokens::expires_at.eq(now + ttl),
        ))
        .execute(connection)
        .await?;
    let letter = Letter::VerifyEmail {
        token: token.expose_secret().to_owned(),
    };
    mail::post(connection, keys, email, &letter).await
}
