//! Words and rules that the bodies share.

use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Array, ArrayBuilder, ObjectBuilder, SchemaType, Type};

use crate::fleet::enrolment::is_hostname;
use crate::fleet::view::ServerStatus;

/// The operator's word on a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = AdminServerStatus)]
pub(super) enum StatusWord {
    /// Takes clients.
    Active,
    /// Takes no new clients for now.
    Maintenance,
    Offline,
}

impl From<StatusWord> for ServerStatus {
    fn from(word: StatusWord) -> Self {
        match word {
            StatusWord::Active => Self::Active,
            StatusWord::Maintenance => Self::Maintenance,
            StatusWord::Offline => Self::Offline,
        }
    }
}

impl From<ServerStatus> for StatusWord {
    fn from(status: ServerStatus) -> Self {
        match status {
            ServerStatus::Active => Self::Active,
            ServerStatus::Maintenance => Self::Maintenance,
            ServerStatus::Offline => Self::Offline,
        }
    }
}

/// A rule for garde.
pub(super) fn hostname(text: &str, (): &()) -> garde::Result {
    if is_hostname(text) {
        return Ok(());
    }
    Err(garde::Error::new(
        "must be a host name such as fra1.example.net",
    ))
}

/// A rule for garde: ISO 3166-1 alpha-2.
pub(super) fn country_code(text: &str, (): &()) -> garde::Result {
    if text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return Ok(());
    }
    Err(garde::Error::new("must be two letters, such as DE"))
}

/// A rule for garde: something that can be read, as [`NAME`] says it.
pub(super) fn name(text: &str, (): &()) -> garde::Result {
    let length = text.chars().count();
    let is_bare = text.trim() == text && !text.chars().any(char::is_control);
    if (1..=100).contains(&length) && is_bare {
        return Ok(());
    }
    Err(garde::Error::new(
        "must have 1 to 100 characters and no space around them",
    ))
}

/// A rule for garde: labels such as `p2p`, at most fifty.
pub(super) fn labels(labels: &[String], (): &()) -> garde::Result {
    if labels.len() > 50 {
        return Err(garde::Error::new("must be at most 50"));
    }
    labels.iter().try_for_each(|label| name(label, &()))
}

pub(super) fn trimmed(text: &str) -> String {
    text.trim().to_owned()
}

/// What [`name`] takes, for the document.
const NAME: &str = r"^[^\s\u0000-\u001f\u007f-\u009f]([^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f])?$";

/// What [`labels`] takes, for the document.
pub(super) fn label_list() -> Array {
    let label = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(100))
        .pattern(Some(NAME))
        .build();
    ArrayBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Array, Type::Null]))
        .items(label)
        .max_items(Some(50))
        .examples([json!(["p2p"])])
        .build()
}
