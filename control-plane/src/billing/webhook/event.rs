//! An event as a row of ours.

use chrono::{DateTime, Utc};
use uuid::Uuid;

/// What has become of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventStatus {
    Waiting,
    Done,
    /// It failed for good, and waits for an operator.
    Parked,
}

impl EventStatus {
    pub const ALL: [Self; 3] = [Self::Waiting, Self::Done, Self::Parked];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Done => "done",
            Self::Parked => "parked",
        }
    }

    pub(super) fn read(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }
}

/// Without what it says.
#[derive(Debug, Clone)]
pub struct StoredEvent {
    pub id: Uuid,
    pub kind: String,
    pub status: EventStatus,
    pub attempts: i32,
    pub last_error: Option<String>,
    pub received_at: DateTime<Utc>,
    pub done_at: Option<DateTime<Utc>>,
}
