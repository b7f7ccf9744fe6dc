//! What becomes of a customer whose account is deleted: Stripe forgets them, and charges them no more.

use std::sync::Arc;

use async_trait::async_trait;
use diesel_async::AsyncPgConnection;
use serde::{Deserialize, Serialize};
use shared::ids::UserId;
use uuid::Uuid;

use crate::app::AppState;
use crate::billing::purchases::{self, Unpaid};
use crate::billing::reference::CustomerId;
use crate::error::ApiError;
use crate::jobs::{self, Failure, Handler};

const KIND: &str = "close_customer";

#[derive(Serialize, Deserialize)]
struct Closing {
    customer: CustomerId,
    /// What they could still pay.
    unpaid: Option<Unpaid>,
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
    let unpaid = purchases::unpaid(state, connection, user).await?;
    let closing = Closing { customer, unpaid };
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
        let payments = self.state.payments().map_err(|error| temporary(&error))?;
        let stripe = &payments.stripe;
        if let Some(unpaid) = &closing.unpaid {
            match unpaid.close(stripe).await {
                // What Stripe does not know nobody can pay.
                Err(error) if !purchases::is_refused(&error) => return Err(temporary(&error)),
                _ => {}
            }
        }
        match stripe.delete_customer(&closing.customer).await {
            Err(error) if !error.is_refusal() => Err(Failure::temporary(error.to_string())),
            _ => Ok(()),
        }
    }
}

fn temporary(error: &ApiError) -> Failure {
    Failure::temporary(error.to_string())
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
