//! A refund as the rules see it.

use chrono::{DateTime, Utc};
use shared::ids::UserId;
use uuid::Uuid;

use crate::billing::money::Money;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefundStatus {
    /// Stripe was not told, or did not answer yet.
    Requested,
    /// It is on its way.
    Pending,
    Succeeded,
    /// The money stays, or came back.
    Failed,
}

impl RefundStatus {
    pub const ALL: [Self; 4] = [
        Self::Requested,
        Self::Pending,
        Self::Succeeded,
        Self::Failed,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Pending => "pending",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == text)
    }

    /// What Stripe calls it. What this build does not know is on its way.
    #[must_use]
    pub fn of_stripe(word: Option<&str>) -> Self {
        match word {
            Some("succeeded") => Self::Succeeded,
            Some("failed" | "canceled") => Self::Failed,
            _ => Self::Pending,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refund {
    pub id: Uuid,
    pub payment: Uuid,
    pub amount: Money,
    pub reason: Option<String>,
    pub requested_by: Option<UserId>,
    pub status: RefundStatus,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(Some("succeeded"), RefundStatus::Succeeded)]
    #[case(Some("failed"), RefundStatus::Failed)]
    #[case(Some("canceled"), RefundStatus::Failed)]
    #[case(Some("pending"), RefundStatus::Pending)]
    #[case(Some("requires_action"), RefundStatus::Pending)]
    #[case(None, RefundStatus::Pending)]
    fn stripes_words_are_ours(#[case] word: Option<&str>, #[case] status: RefundStatus) {
        assert_eq!(RefundStatus::of_stripe(word), status);
        assert_eq!(RefundStatus::parse(status.as_str()), Some(status));
    }
}
