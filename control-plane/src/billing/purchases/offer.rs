//! What somebody wants to buy, as far as it can be bought.

use diesel_async::AsyncPgConnection;
use shared::ids::UserId;

use crate::accounts;
use crate::app::AppState;
use crate::billing::money::Currency;
use crate::billing::plans::{self, Period, Plan};
use crate::billing::prices::Prices;
use crate::billing::reference::{CustomerId, PriceId};
use crate::billing::{customers, subscription};
use crate::error::{ApiError, Code};

/// What callers send.
const FIELD: &str = "plan_type";

/// What a plan is sold at.
#[derive(Debug, Clone)]
pub(super) struct Offer {
    pub(super) price: PriceId,
    /// Days before the first payment, for whoever never paid for a plan.
    pub(super) trial_days: u32,
}

/// What is meant: a plan's id, or how often it is paid, which means the cheapest that is paid so often.
pub(super) async fn plan(state: &AppState, wanted: &str) -> Result<Plan, ApiError> {
    let mut connection = state.db().get().await?;
    let offered = plans::offered(&mut connection).await?;
    let period = Period::parse(wanted);
    let named = offered.iter().find(|plan| plan.id == wanted);
    let meant = named.or_else(|| offered.iter().find(|plan| Some(plan.period) == period));
    let unknown = || ApiError::invalid(FIELD, "There is no such plan to be had");
    meant.cloned().ok_or_else(unknown)
}

/// The plan as it can be bought by this person. An amount is the plan's, in its currency alone.
pub(super) async fn offer(
    state: &AppState,
    user: UserId,
    plan: &Plan,
    currency: Option<Currency>,
) -> Result<Offer, ApiError> {
    if plan.is_free() {
        return Err(ApiError::invalid(FIELD, "This plan costs nothing"));
    }
    let own = plan.terms.price.currency;
    if currency.is_some_and(|currency| currency != own) {
        return Err(ApiError::invalid(
            "currency",
            format!("This plan is sold in {own}"),
        ));
    }
    let mut connection = state.db().get().await?;
    let prices = Prices::load(state, &mut connection).await?;
    let Some(price) = prices.price_of(&plan.id) else {
        return Err(ApiError::invalid(FIELD, "This plan is not sold here"));
    };
    let trial_days = trial(&mut connection, user, plan).await?;
    Ok(Offer { price, trial_days })
}

async fn trial(
    connection: &mut AsyncPgConnection,
    user: UserId,
    plan: &Plan,
) -> Result<u32, ApiError> {
    if plan.terms.trial_days == 0 || !subscription::is_new(connection, user).await? {
        return Ok(0);
    }
    Ok(u32::try_from(plan.terms.trial_days).unwrap_or_default())
}

/// Who the person is at Stripe, from now on.
pub(in crate::billing) async fn customer(
    state: &AppState,
    user: UserId,
) -> Result<CustomerId, ApiError> {
    let email = {
        let mut connection = state.db().get().await?;
        accounts::hold(&mut connection, user).await?
    };
    let email = email.ok_or(Code::Unauthorized)?;
    customers::ensure(state, user, email.as_str()).await
}
