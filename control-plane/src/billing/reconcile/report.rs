//! What a comparison found.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How many there were of one kind.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ReconciliationCount)]
pub struct Count {
    #[schema(example = 1200)]
    pub looked_at: u64,
    /// Were not as Stripe has them; in a dry run they are yet.
    #[schema(example = 1)]
    pub repaired: u64,
    /// Could not be read or written.
    #[schema(example = 0)]
    pub failed: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ReconciliationReport)]
pub struct Report {
    /// Purchases that somebody began and did not end.
    #[serde(default)]
    pub purchases: Count,
    pub subscriptions: Count,
    pub payments: Count,
    pub refunds: Count,
    /// Whether Stripe's lists were read to their ends.
    pub is_complete: bool,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            purchases: Count::default(),
            subscriptions: Count::default(),
            payments: Count::default(),
            refunds: Count::default(),
            is_complete: true,
        }
    }
}

impl Report {
    #[must_use]
    pub const fn kinds(&self) -> [(&'static str, Count); 4] {
        [
            ("purchases", self.purchases),
            ("subscriptions", self.subscriptions),
            ("payments", self.payments),
            ("refunds", self.refunds),
        ]
    }

    /// Whether everything could be compared, and repaired where it had to be.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.is_complete && self.kinds().iter().all(|(_, count)| count.failed == 0)
    }
}
