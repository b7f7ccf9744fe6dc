//! Paying at Stripe's own page.

use super::claim::{Claimed, Wish, claim};
use super::offer::customer;
use super::order::{Order, Outcome, Purchase};
use super::settle::{of_checkout, settle_one};
use super::{give_up, store};
use crate::app::AppState;
use crate::billing::reference::CheckoutId;
use crate::billing::stripe::IdempotencyKey;
use crate::billing::stripe::checkouts::{Checkout, NewCheckout};
use crate::error::{ApiError, Code};

/// Sessions that may turn out to be over, one after the other.
const TRIES: usize = 3;

/// The address of the page.
pub(super) async fn begin(state: &AppState, wish: &Wish<'_>) -> Result<String, ApiError> {
    // Nothing may be left open for somebody whom Stripe cannot know.
    customer(state, wish.user).await?;
    for _ in 0..TRIES {
        let Claimed { purchase, is_new } = claim(state, wish).await?;
        let made = match make(state, &purchase).await {
            Ok(made) => made,
            Err(error) => return Err(give_up::unmade(state, &purchase, error).await),
        };
        // What a key gave before is how it was then.
        let now = if is_new {
            made
        } else {
            state.payments()?.stripe.checkout(&made.id).await?
        };
        match (of_checkout(&now), now.url) {
            (Outcome::Open, Some(url)) => return Ok(url),
            _ => drop(settle_one(state, &with_made(purchase, &now.id)).await?),
        }
    }
    Err(Code::PaymentsUnavailable.into())
}

/// The purchase's session. Made where nobody knows of one, as it was asked for at first.
pub(super) async fn make(state: &AppState, purchase: &Purchase) -> Result<Checkout, ApiError> {
    let Order::Checkout {
        price,
        trial_days,
        success_url,
        cancel_url,
    } = &purchase.order
    else {
        return Err(ApiError::internal("a purchase at no page"));
    };
    let stripe = &state.payments()?.stripe;
    if let Some(known) = &purchase.made {
        let id = CheckoutId::try_from(known.clone()).map_err(ApiError::internal)?;
        return Ok(stripe.checkout(&id).await?);
    }
    let customer = customer(state, purchase.user).await?;
    let new = NewCheckout {
        customer: &customer,
        user: purchase.user,
        price,
        success_url,
        cancel_url,
        trial_days: *trial_days,
    };
    let key = IdempotencyKey::of(purchase.id, "checkout");
    let made = stripe.create_checkout(&new, &key).await?;
    let mut connection = state.db().get().await?;
    store::keep_made(&mut connection, state.keys(), purchase, made.id.as_str()).await?;
    Ok(made)
}

fn with_made(purchase: Purchase, id: &CheckoutId) -> Purchase {
    Purchase {
        made: Some(id.as_str().to_owned()),
        ..purchase
    }
}
