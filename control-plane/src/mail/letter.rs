//! What we write to people about.

use std::fmt;

use chrono::{DateTime, Utc};
use diesel_async::AsyncPgConnection;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};

use crate::accounts::Email;
use crate::guard::AlertKind;
use crate::jobs::{self, JobError};
use crate::secrets::{KeyRing, SecretToken};

/// The job that sends one.
pub(super) const KIND: &str = "mail";

/// A letter's subject and what it says. Tokens go into links when it is sent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "letter", rename_all = "snake_case")]
pub enum Letter {
    VerifyEmail {
        token: LinkToken,
    },
    ResetPassword {
        token: LinkToken,
    },
    PasswordChanged,
    /// Somebody tries passwords of the account.
    PasswordTried,
    /// To the address that the account had.
    EmailChanged,
    MfaEnabled,
    MfaDisabled,
    AccountDeleted,
    /// A renewal was not paid; the plan stays until then.
    PaymentFailed {
        until: DateTime<Utc>,
    },
    /// It was not paid in time.
    GraceEnded,
    /// What was paid for is over.
    SubscriptionEnded,
    /// To the operators.
    Attacked {
        kind: AlertKind,
    },
}

/// What a link carries. It goes into the sealed payload and the mail, and nowhere else.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct LinkToken(SecretString);

impl LinkToken {
    pub(super) fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl From<&SecretToken> for LinkToken {
    fn from(token: &SecretToken) -> Self {
        Self(token.expose_secret().into())
    }
}

impl Serialize for LinkToken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.expose())
    }
}

impl fmt::Debug for LinkToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkToken")
    }
}

#[derive(Serialize)]
struct Payload<'a> {
    to: &'a str,
    #[serde(flatten)]
    letter: &'a Letter,
}

/// The payload as the postman reads it.
#[derive(Deserialize)]
pub(super) struct Posted {
    pub(super) to: String,
    #[serde(flatten)]
    pub(super) letter: Letter,
}

/// Posts a letter: it leaves once the transaction is committed, and not without.
pub async fn post(
    connection: &mut AsyncPgConnection,
    keys: &KeyRing,
    to: &Email,
    letter: &Letter,
) -> Result<(), JobError> {
    let to = to.as_str();
    jobs::enqueue(connection, keys, KIND, &Payload { to, letter }).await
}

/// Takes as long as [`post`], and nothing leaves.
pub async fn pretend(
    connection: &mut AsyncPgConnection,
    keys: &KeyRing,
    to: &Email,
    letter: &Letter,
) -> Result<(), JobError> {
    let to = to.as_str();
    jobs::pretend(connection, keys, KIND, &Payload { to, letter }).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_survives_its_payload_and_does_not_show_its_token() {
        let token = SecretToken::generate();
        let letter = Letter::VerifyEmail {
            token: (&token).into(),
        };
        assert!(!format!("{letter:?}").contains(token.expose_secret()));
        let payload = Payload {
            to: "anna@example.org",
            letter: &letter,
        };
        let text = serde_json::to_string(&payload).unwrap();
        let posted: Posted = serde_json::from_str(&text).unwrap();
        assert_eq!(posted.to, "anna@example.org");
        let Letter::VerifyEmail { token: arrived } = posted.letter else {
            panic!("{text}");
        };
        assert_eq!(arrived.expose(), token.expose_secret());
    }
}
