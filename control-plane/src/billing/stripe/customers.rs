//! Who pays.

use serde::Deserialize;
use shared::ids::UserId;

use super::{Expandable, Form, IdempotencyKey, Stripe, StripeError, or_default};
use crate::billing::reference::{CustomerId, MethodId};

const PATH: &str = "customers";

#[derive(Debug, Clone, Deserialize)]
pub struct Customer {
    pub id: CustomerId,
    /// Only the id of a deleted one is known.
    #[serde(default, deserialize_with = "or_default")]
    pub deleted: bool,
    #[serde(default, deserialize_with = "or_default")]
    pub invoice_settings: InvoiceSettings,
    #[serde(default, deserialize_with = "or_default")]
    pub metadata: Metadata,
}

#[derive(Debug, Default, Clone, Deserialize)]
pub struct InvoiceSettings {
    /// What pays where a subscription names nothing else.
    #[serde(default)]
    pub default_payment_method: Option<Expandable<MethodId>>,
}

/// What we wrote beside it ourselves.
#[derive(Debug, Default, Clone, Deserialize)]
pub struct Metadata {
    #[serde(default)]
    pub user_id: Option<String>,
}

super::whole!(Customer);

impl Stripe {
    pub async fn create_customer(
        &self,
        user: UserId,
        email: &str,
        key: &IdempotencyKey,
    ) -> Result<Customer, StripeError> {
        let form = Form::new()
            .put("email", email)
            .put("metadata[user_id]", user);
        self.post(&[PATH], &form, key).await
    }

    pub async fn customer(&self, id: &CustomerId) -> Result<Customer, StripeError> {
        self.get(&[PATH, id.as_str()], &Form::new()).await
    }

    /// What pays from now on where a subscription names nothing else.
    pub async fn set_default_method(
        &self,
        id: &CustomerId,
        method: &MethodId,
        key: &IdempotencyKey,
    ) -> Result<Customer, StripeError> {
        let form = Form::new().id("invoice_settings[default_payment_method]", method);
        self.post(&[PATH, id.as_str()], &form, key).await
    }

    pub async fn set_customer_email(
        &self,
        id: &CustomerId,
        email: &str,
        key: &IdempotencyKey,
    ) -> Result<Customer, StripeError> {
        let form = Form::new().put("email", email);
        self.post(&[PATH, id.as_str()], &form, key).await
    }

    /// Also cancels what they subscribe to, at once.
    pub async fn delete_customer(&self, id: &CustomerId) -> Result<Customer, StripeError> {
        self.delete(&[PATH, id.as_str()], &Form::new()).await
    }
}
