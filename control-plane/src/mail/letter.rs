//! What we write to people about.

use diesel_async::AsyncPgConnection;
use serde::{Deserialize, Serialize};

use crate::accounts::Email;
use crate::jobs::{self, JobError};
use crate::secrets::KeyRing;

/// The job that sends one.
const KIND: &str = "mail";

/// A letter's subject and what it says. Tokens go into links when it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "letter", rename_all = "snake_case")]
pub enum Letter {
    VerifyEmail {
        token: String,
    },
    ResetPassword {
        token: String,
    },
    PasswordChanged,
    /// To the address that the account had.
    EmailChanged,
    MfaEnabled,
    MfaDisabled,
    AccountDeleted,
}

#[derive(Serialize)]
struct Payload<'a> {
    to: &'a str,
    #[serde(flatten)]
    letter: &'a Letter,
}

/// Posts a letter: it leaves once the transaction is committed, and not without.
pub async fn post(
    connection: &mut AsyncPgConnection,
    keys: &KeyRing,
    to: &Email,
    letter: &Letter,
) -> Result<(), JobError> {
    let payload = Payload {
        to: to.as_str(),
        letter,
    };
    jobs::enqueue(connection, keys, KIND, &payload).await
}
