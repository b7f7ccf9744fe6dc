//! Which price at Stripe a plan is sold at: the row's, or where it has none the configuration's.

use diesel_async::AsyncPgConnection;

use super::plans::{self, Price};
use super::reference::PriceId;
use crate::app::AppState;
use crate::error::ApiError;

const MONTHLY: &str = "premium_monthly";
const YEARLY: &str = "premium_yearly";

/// All prices, as they are at one moment.
#[derive(Debug)]
pub struct Prices(Vec<Price>);

impl Prices {
    /// What rows name comes first. A configured price stays its plan's beside a row's: whoever bought at it has it
    /// yet.
    pub async fn load(
        state: &AppState,
        connection: &mut AsyncPgConnection,
    ) -> Result<Self, ApiError> {
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
        Ok(Self(all))
    }

    /// The plan that this is a price of.
    #[must_use]
    pub fn plan_of(&self, price: &PriceId) -> Option<&str> {
        let found = self.0.iter().find(|it| it.id == price.as_str());
        found.map(|it| it.plan.as_str())
    }

    /// The price that this plan is sold at; none where nobody can buy it.
    #[must_use]
    pub fn price_of(&self, plan: &str) -> Option<PriceId> {
        let found = self.0.iter().find(|it| it.plan == plan);
        found.and_then(|it| it.id.clone().try_into().ok())
    }
}
