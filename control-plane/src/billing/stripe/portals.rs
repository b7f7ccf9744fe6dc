//! Stripe's own page for cards and invoices.

use serde::Deserialize;

use super::{Form, IdempotencyKey, Stripe, StripeError};
use crate::billing::reference::{CustomerId, PortalId};

#[derive(Clone, Deserialize)]
pub struct Portal {
    pub id: PortalId,
    /// Lets its bearer in, for a short time.
    pub url: String,
}

impl std::fmt::Debug for Portal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Portal").finish_non_exhaustive()
    }
}

impl Stripe {
    pub async fn create_portal(
        &self,
        customer: &CustomerId,
        return_url: &str,
        key: &IdempotencyKey,
    ) -> Result<Portal, StripeError> {
        let form = Form::new()
            .id("customer", customer)
            .put("return_url", return_url);
        self.post(&["billing_portal", "sessions"], &form, key).await
    }
}
