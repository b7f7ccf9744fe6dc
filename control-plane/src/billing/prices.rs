//! Which price at Stripe a plan is sold at: the row's, or where it has none the configuration's.

use diesel_async::AsyncPgConnection;

use super::plans::{self, Price};
use super::reference::PriceId;
use crate::app::AppState;
use crate::error::ApiError;

const MONTHLY: &str = "premium_monthly";
const YEARLY: &str = "premium_yearly";

/// The plan that this is a price of.
pub async fn plan_of(
    state: &AppState,
    connection: &mut AsyncPgConnection,
    price: &PriceId,
) -> Result<Option<String>, ApiError> {
    let all = all(state, connection).await?;
    let mut found = all.into_iter().filter(|it| it.id == price.as_str());
    Ok(found.next().map(|it| it.plan))
}

/// The price that this plan is sold at; none where nobody can buy it.
pub async fn price_of(
    state: &AppState,
    connection: &mut AsyncPgConnection,
    plan: &str,
) -> Result<Option<PriceId>, ApiError> {
    let all = all(state, connection).await?;
    let mut found = all.into_iter().filter(|it| it.plan == plan);
    Ok(found.next().and_then(|it| it.id.try_into().ok()))
}

/// What rows name comes first. A configured price stays its plan's beside a row's: whoever bought at it has it yet.
async fn all(state: &AppState, connection: &mut AsyncPgConnection) -> Result<Vec<Price>, ApiError> {
    let mut all = plans::prices(connection, state.keys()).await?;
    let config = &state.config().stripe;
    let configured = [
        (MONTHLY, &config.monthly_price),
        (YEARLY, &config.yearly_price),
    ];
    for (plan, id) in configured {
        all.extend(id.clone().map(|id| Price {
            plan: plan.to_owned(),
            id,
        }));
    }
    Ok(all)
}
