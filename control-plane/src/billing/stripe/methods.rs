//! Saved ways to pay.

use serde::Deserialize;

use super::{Expandable, Form, IdempotencyKey, Listed, Pages, Stripe, StripeError, or_default};
use crate::billing::reference::{CustomerId, MethodId};

const PATH: &str = "payment_methods";

#[derive(Debug, Clone, Deserialize)]
pub struct Method {
    pub id: MethodId,
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Whose it is, if anybody's.
    #[serde(default)]
    pub customer: Option<Expandable<CustomerId>>,
    #[serde(default)]
    pub card: Option<Card>,
}

/// What its owner knows a card by.
#[derive(Debug, Clone, Deserialize)]
pub struct Card {
    #[serde(default, deserialize_with = "or_default")]
    pub brand: String,
    #[serde(default, deserialize_with = "or_default")]
    pub last4: String,
    #[serde(default, deserialize_with = "or_default")]
    pub exp_month: u32,
    #[serde(default, deserialize_with = "or_default")]
    pub exp_year: u32,
}

impl Listed for Method {
    fn id(&self) -> &str {
        self.id.as_str()
    }
}

super::whole!(Method);

impl Stripe {
    pub async fn method(&self, id: &MethodId) -> Result<Method, StripeError> {
        self.get(&[PATH, id.as_str()], &Form::new()).await
    }

    pub fn methods(&self, customer: &CustomerId) -> Pages<'_, Method> {
        let query = Form::new().id("customer", customer).put("type", "card");
        Pages::new(self, &[PATH], query)
    }

    pub async fn attach_method(
        &self,
        id: &MethodId,
        customer: &CustomerId,
        key: &IdempotencyKey,
    ) -> Result<Method, StripeError> {
        let form = Form::new().id("customer", customer);
        self.post(&[PATH, id.as_str(), "attach"], &form, key).await
    }

    pub async fn detach_method(
        &self,
        id: &MethodId,
        key: &IdempotencyKey,
    ) -> Result<Method, StripeError> {
        self.post(&[PATH, id.as_str(), "detach"], &Form::new(), key)
            .await
    }
}
