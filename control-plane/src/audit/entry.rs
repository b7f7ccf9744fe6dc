//! A row of the log as it is read.

use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub id: Uuid,
    pub at: DateTime<Utc>,
    pub action: String,
    pub outcome: String,
    pub actor_kind: String,
    pub actor: Option<String>,
    pub subject_kind: Option<String>,
    pub subject: Option<String>,
    pub before: Option<Value>,
    pub after: Option<Value>,
    pub request_id: Option<String>,
}

/// Which rows are asked for: all that is given has to hold.
#[derive(Debug, Clone, Default)]
pub(super) struct Filter {
    pub(super) action: Option<String>,
    pub(super) actor: Option<String>,
    pub(super) subject: Option<String>,
    pub(super) from: Option<DateTime<Utc>>,
    /// The first moment after the rows.
    pub(super) to: Option<DateTime<Utc>>,
}
