//! A plan as the rules see it.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::accounts::registration::FREE_PLAN;
use crate::billing::money::Money;
use crate::error::{ApiError, Code};

/// How often a plan is paid: its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = PlanPeriod)]
pub enum Period {
    Free,
    Monthly,
    Yearly,
}

impl Period {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Free, Self::Monthly, Self::Yearly]
            .into_iter()
            .find(|period| period.as_str() == text)
    }
}

/// What can be changed of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    pub name: String,
    pub price: Money,
    pub features: Vec<String>,
    pub streaming_support: bool,
    pub max_devices: i32,
    pub max_connections: i32,
    /// Servers up to this tier.
    pub tier: i16,
    pub download_mbps: Option<i32>,
    pub upload_mbps: Option<i32>,
    /// A month's bytes in both directions together.
    pub quota_bytes: Option<i64>,
    pub trial_days: i32,
    /// Whether it can be bought.
    pub is_offered: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub id: String,
    pub period: Period,
    pub terms: Terms,
    /// Whether its row names a price at Stripe.
    pub has_price: bool,
}

impl Plan {
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.period == Period::Free
    }

    /// Whether it can be as it is; `has_price` says what will be.
    pub fn check(&self) -> Result<(), ApiError> {
        let terms = &self.terms;
        if terms.price.checked().is_err() {
            let wrong = "Must be an amount that the currency has";
            return Err(ApiError::invalid("price", wrong));
        }
        if self.is_free() && (terms.price.minor > 0 || terms.trial_days > 0 || self.has_price) {
            return Err(ApiError::new(Code::Conflict).with_message("A free plan has no price"));
        }
        if !self.is_free() && terms.price.minor == 0 {
            return Err(ApiError::invalid("price", "Must be more than zero"));
        }
        if self.id == FREE_PLAN && !terms.is_offered {
            let stays = "This plan is what everybody falls back to: it cannot be withdrawn";
            return Err(ApiError::new(Code::Conflict).with_message(stays));
        }
        Ok(())
    }

    /// As the log has it.
    #[must_use]
    pub fn told(&self) -> Value {
        let terms = &self.terms;
        json!({
            "name": terms.name,
            "price": terms.price.to_string(),
            "features": terms.features,
            "streaming_support": terms.streaming_support,
            "max_devices": terms.max_devices,
            "max_connections": terms.max_connections,
            "tier": terms.tier,
            "download_mbps": terms.download_mbps,
            "upload_mbps": terms.upload_mbps,
            "quota_bytes": terms.quota_bytes,
            "trial_days": terms.trial_days,
            "is_offered": terms.is_offered,
            "has_price": self.has_price,
        })
    }
}
