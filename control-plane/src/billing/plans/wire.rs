//! A plan as operators write it.

use garde::Validate;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use utoipa::ToSchema;

use super::catalogue::PriceChange;
use super::plan::{Period, Plan, Terms};
use crate::billing::money::{Currency, Money, MoneyError};
use crate::error::ApiError;
use crate::http::number::whole_as;
use crate::http::text::plain;

/// What a plan costs and allows. What is left out is no limit, or none of it.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[schema(as = PlanTerms)]
pub(super) struct PlanBody {
    /// Needed where the plan is new. Later it cannot be another.
    #[garde(inner(custom(plan_id)))]
    #[schema(
        example = "premium_monthly",
        max_length = 50,
        pattern = "^[a-z0-9_]{1,50}$"
    )]
    id: Option<String>,
    /// Needed where the plan is new. Later it cannot be another.
    #[garde(skip)]
    billing_period: Option<Period>,
    #[garde(length(chars, min = 1, max = 100), custom(plain))]
    #[schema(
        example = "Premium Monthly",
        min_length = 1,
        max_length = 100,
        pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$"
    )]
    name: String,
    /// With no more decimals than the currency has.
    #[garde(skip)]
    #[schema(example = 9.99, minimum = 0)]
    price: f64,
    #[garde(skip)]
    #[schema(example = "USD", pattern = "^[A-Za-z]{3}$")]
    currency: String,
    /// For people to read.
    #[garde(
        length(max = 50),
        inner(length(chars, min = 1, max = 100), custom(plain))
    )]
    #[schema(max_items = 50, example = json!(["unlimited_bandwidth"]))]
    #[serde(default)]
    features: Vec<String>,
    #[garde(skip)]
    #[serde(default)]
    streaming_support: bool,
    #[garde(required, inner(range(min = 1, max = 1000)))]
    #[schema(required, nullable = false, minimum = 1, maximum = 1000, example = 5)]
    #[serde(default, deserialize_with = "whole_as")]
    max_devices: Option<i32>,
    #[garde(required, inner(range(min = 1, max = 1000)))]
    #[schema(required, nullable = false, minimum = 1, maximum = 1000, example = 5)]
    #[serde(default, deserialize_with = "whole_as")]
    max_connections: Option<i32>,
    /// Servers up to this tier.
    #[garde(inner(range(min = 0)))]
    #[schema(minimum = 0, maximum = 32_767, example = 1)]
    #[serde(default, deserialize_with = "whole_as")]
    tier: Option<i16>,
    #[garde(inner(range(min = 1, max = 1_000_000)))]
    #[schema(minimum = 1, maximum = 1_000_000)]
    #[serde(default, deserialize_with = "whole_as")]
    download_mbps: Option<i32>,
    #[garde(inner(range(min = 1, max = 1_000_000)))]
    #[schema(minimum = 1, maximum = 1_000_000)]
    #[serde(default, deserialize_with = "whole_as")]
    upload_mbps: Option<i32>,
    /// Bytes a month in both directions together.
    #[garde(inner(range(min = 1, max = 1 << 60)))]
    #[schema(minimum = 1, maximum = 1_152_921_504_606_846_976_i64)]
    #[serde(default, deserialize_with = "whole_as")]
    quota_bytes: Option<i64>,
    /// Days before the first payment.
    #[garde(inner(range(min = 0, max = 730)))]
    #[schema(minimum = 0, maximum = 730, example = 0)]
    #[serde(default, deserialize_with = "whole_as")]
    trial_days: Option<i32>,
    /// True where it is missing.
    #[garde(skip)]
    is_offered: Option<bool>,
    /// The price's id at Stripe. Nobody reads it again.
    #[garde(custom(price_id))]
    #[schema(value_type = Option<String>, max_length = 255, example = "price_1MoBy5LkdIwHu7ixZhnattbh", pattern = "^[A-Za-z0-9_]*$")]
    stripe_price_id: Option<SecretString>,
}

impl PlanBody {
    /// Which plan it is where it is new.
    pub(super) fn identity(&self) -> Result<(String, Period), ApiError> {
        let missing = |field| ApiError::invalid(field, "Is needed for a new plan");
        let id = self.id.clone().ok_or_else(|| missing("id"))?;
        let period = self.billing_period;
        Ok((id, period.ok_or_else(|| missing("billing_period"))?))
    }

    /// Whether it can be meant of this plan.
    pub(super) fn is_of(&self, plan: &Plan) -> Result<(), ApiError> {
        let stays = |field| Err(ApiError::invalid(field, "Cannot be changed"));
        if self.id.as_ref().is_some_and(|id| *id != plan.id) {
            return stays("id");
        }
        if self.billing_period.is_some_and(|it| it != plan.period) {
            return stays("billing_period");
        }
        Ok(())
    }

    pub(super) fn terms(&self) -> Result<Terms, ApiError> {
        let invalid = |field, error: MoneyError| ApiError::invalid(field, error.sentence());
        let currency = self.currency.parse::<Currency>();
        let currency = currency.map_err(|error| invalid("currency", error))?;
        // The text of a number is the decimal that was written.
        let price = Money::parse(&self.price.to_string(), currency);
        Ok(Terms {
            name: self.name.clone(),
            price: price.map_err(|error| invalid("price", error))?,
            features: self.features.clone(),
            streaming_support: self.streaming_support,
            max_devices: self.max_devices.unwrap_or(1),
            max_connections: self.max_connections.unwrap_or(1),
            tier: self.tier.unwrap_or_default(),
            download_mbps: self.download_mbps,
            upload_mbps: self.upload_mbps,
            quota_bytes: self.quota_bytes,
            trial_days: self.trial_days.unwrap_or_default(),
            is_offered: self.is_offered.unwrap_or(true),
        })
    }

    pub(super) fn price_change(&self) -> PriceChange {
        match &self.stripe_price_id {
            None => PriceChange::Keep,
            Some(id) if id.expose_secret().is_empty() => PriceChange::Clear,
            Some(id) => PriceChange::Set(id.clone()),
        }
    }
}

fn plan_id(text: &str, (): &()) -> garde::Result {
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if (1..=50).contains(&text.len()) && text.bytes().all(is_letter) {
        return Ok(());
    }
    Err(garde::Error::new(
        "must be 1 to 50 lower-case letters, digits and underscores",
    ))
}

fn price_id(text: &Option<SecretString>, (): &()) -> garde::Result {
    let text = text.as_ref().map_or("", ExposeSecret::expose_secret);
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if text.len() <= 255 && text.bytes().all(is_letter) {
        return Ok(());
    }
    Err(garde::Error::new("must be the id of a price at Stripe"))
}
