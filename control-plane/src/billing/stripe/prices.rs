//! What plans cost at Stripe.

use serde::Deserialize;

use super::{Form, Listed, Pages, Stripe, StripeError, or_default};
use crate::billing::reference::PriceId;

const PATH: &str = "prices";

#[derive(Debug, Clone, Deserialize)]
pub struct Price {
    pub id: PriceId,
    #[serde(default, deserialize_with = "or_default")]
    pub active: bool,
    /// Lower case.
    #[serde(default, deserialize_with = "or_default")]
    pub currency: String,
    /// In the currency's smallest unit; none where the price is no whole number of them, or by tiers.
    #[serde(default)]
    pub unit_amount: Option<i64>,
    #[serde(default)]
    pub recurring: Option<Recurring>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Recurring {
    /// `day`, `week`, `month` or `year`.
    #[serde(default, deserialize_with = "or_default")]
    pub interval: String,
    #[serde(default = "one")]
    pub interval_count: u32,
}

const fn one() -> u32 {
    1
}

impl Listed for Price {
    fn id(&self) -> &str {
        self.id.as_str()
    }
}

super::whole!(Price);

impl Stripe {
    pub async fn price(&self, id: &PriceId) -> Result<Price, StripeError> {
        self.get(&[PATH, id.as_str()], &Form::new()).await
    }

    pub fn prices(&self) -> Pages<'_, Price> {
        Pages::new(self, &[PATH], Form::new().put("active", true))
    }
}
