//! What becomes of a customer whose account is deleted: Stripe forgets them, and charges them no more.

use std::sync::Arc;

use async_trait::async_trait;
use diesel_async::AsyncPgConnection;
use serde::{Deserialize, Serialize};
use shared::ids::UserId;
use uuid::Uuid;

use crate::app::AppState;
use crate::billing::purchases;
use crate::billing::reference::{CheckoutId, CustomerId};
use crate::billing::stripe::{IdempotencyKey, StripeError};
use crate::error::ApiError;
use crate::jobs::{self, Failure, Handler};

const KIND: &str = "close_customer";

#[derive(Serialize, Deserialize)]
struct Closing {
    customer: CustomerId,
    /// Where they could still pay.
    checkout: Option<CheckoutId>,
}

/// Promises it, in the transaction that deletes the account.
pub async fn close(
    state: &AppState,
    connection: &mut AsyncPgConnection,
    user: UserId,
) -> Result<(), ApiError> {
    let Some(customer) = super::of_user(state, connection, user).await? else {
        return Ok(());
    };
    let checkout = purchases::unpaid_checkout(connection, state.keys(), user).await?;
    let closing = Closing { customer, checkout };
    Ok(jobs::enqueue(connection, state.keys(), KIND, &closing).await?)
}

/// Ends what deleted accounts would go on paying for.
#[derive(Debug)]
pub struct ClosingJobs {
    state: Arc<AppState>,
}

impl ClosingJobs {
    #[must_use]
    pub const fn new(state: Arc<AppState>) -> Self {
        Self { state }
    }

    async fn close(&self, closing: &Closing) -> Result<(), Failure> {
        let payments = self.state.payments();
        let stripe = &payments
            .map_err(|error| Failure::temporary(error.to_string()))?
            .stripe;
        if let Some(checkout) = &closing.checkout {
            let key = IdempotencyKey::once("expire");
            done(stripe.expire_checkout(checkout, &key).await)?;
        }
        done(stripe.delete_customer(&closing.customer).await)
    }
}

#[async_trait]
impl Handler for ClosingJobs {
    fn kind(&self) -> &'static str {
        KIND
    }

    async fn run(&self, _: Uuid, payload: &[u8]) -> Result<(), Failure> {
        let closing = serde_json::from_slice(payload)
            .map_err(|_| Failure::lasting("whose it is cannot be read"))?;
        self.close(&closing).await
    }
}

/// What is refused is over already.
fn done<T>(result: Result<T, StripeError>) -> Result<(), Failure> {
    match result {
        Err(error) if !error.is_refusal() => Err(Failure::temporary(error.to_string())),
        _ => Ok(()),
    }
}
