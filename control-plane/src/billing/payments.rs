//! What there is where payments are configured.

use super::stripe::{Stripe, StripeSetupError};
use super::webhook::Verifier;
use crate::config::StripeConfig;

#[derive(Debug)]
pub struct Payments {
    pub stripe: Stripe,
    pub webhook: Verifier,
}

impl Payments {
    /// None without a key.
    pub fn new(config: &StripeConfig) -> Result<Option<Self>, StripeSetupError> {
        let payments = |key| {
            Ok(Self {
                stripe: Stripe::new(config, key)?,
                webhook: Verifier::new(&config.webhook_secrets, config.webhook_tolerance),
            })
        };
        config.secret_key.as_ref().map(payments).transpose()
    }
}
