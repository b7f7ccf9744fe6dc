//! What operators do to the catalogue. Each change is audited in its commit, and reaches whoever is
//! connected under the plan after it.

use diesel_async::{AsyncConnection, AsyncPgConnection};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use uuid::Uuid;

use super::plan::{Plan, Terms};
use super::{prices, store};
use crate::app::AppState;
use crate::audit::{self, Action, Actor, Event, Subject};
use crate::error::{ApiError, Code};
use crate::http::RequestId;
use crate::tunnels;

/// Who does it.
#[derive(Debug, Clone, Copy)]
pub(super) struct By<'a> {
    pub(super) actor: &'a Actor,
    pub(super) request: &'a RequestId,
}

/// What becomes of a plan's price at Stripe.
#[derive(Debug)]
pub(super) enum PriceChange {
    Keep,
    Clear,
    Set(SecretString),
}

impl PriceChange {
    fn sealed(&self, state: &AppState, row: Uuid) -> Result<Option<Option<Vec<u8>>>, ApiError> {
        Ok(match self {
            Self::Keep => None,
            Self::Clear => Some(None),
            Self::Set(id) => Some(Some(prices::seal(state.keys(), row, id.expose_secret())?)),
        })
    }
}

pub(super) async fn create(
    state: &AppState,
    plan: &Plan,
    price: &PriceChange,
    by: By<'_>,
) -> Result<(), ApiError> {
    plan.check()?;
    let row = Uuid::now_v7();
    let sealed = price.sealed(state, row)?.flatten();
    let mut connection = state.db().get().await?;
    connection
        .transaction(async |connection| {
            if !store::insert(connection, plan, (row, sealed.as_deref())).await? {
                return Err(Code::PlanExists.into());
            }
            record(connection, Action::CreatePlan, None, plan, by).await
        })
        .await
}

/// `is_same` says whether the plan is the one that was meant.
pub(super) async fn edit(
    state: &AppState,
    id: &str,
    terms: Terms,
    price: &PriceChange,
    is_same: impl Fn(&Plan) -> Result<(), ApiError> + Sync,
    by: By<'_>,
) -> Result<Plan, ApiError> {
    let mut connection = state.db().get().await?;
    let changed = connection
        .transaction(async |connection| {
            let (before, row) = locked(connection, id).await?;
            is_same(&before)?;
            let after = Plan {
                terms: terms.clone(),
                has_price: match price {
                    PriceChange::Keep => before.has_price,
                    PriceChange::Clear => false,
                    PriceChange::Set(_) => true,
                },
                ..before.clone()
            };
            after.check()?;
            let sealed = price.sealed(state, row)?;
            let sealed = sealed.as_ref().map(Option::as_deref);
            store::update(connection, &after, sealed).await?;
            record(connection, Action::EditPlan, Some(&before), &after, by).await?;
            Ok::<_, ApiError>(after)
        })
        .await?;
    drop(connection);
    tunnels::limits_of_plan_changed(state, id).await?;
    Ok(changed)
}

pub(super) async fn withdraw(state: &AppState, id: &str, by: By<'_>) -> Result<(), ApiError> {
    let mut connection = state.db().get().await?;
    connection
        .transaction(async |connection| {
            let (before, _) = locked(connection, id).await?;
            let mut after = before.clone();
            after.terms.is_offered = false;
            after.check()?;
            if after == before {
                return Ok(());
            }
            store::update(connection, &after, None).await?;
            record(connection, Action::WithdrawPlan, Some(&before), &after, by).await
        })
        .await
}

async fn locked(connection: &mut AsyncPgConnection, id: &str) -> Result<(Plan, Uuid), ApiError> {
    let found = store::lock(connection, id).await?;
    Ok(found.ok_or(Code::PlanNotFound)?)
}

async fn record(
    connection: &mut AsyncPgConnection,
    action: Action,
    before: Option<&Plan>,
    after: &Plan,
    by: By<'_>,
) -> Result<(), ApiError> {
    let event = Event::new(action, by.actor.clone())
        .on(Subject::Plan(after.id.clone()))
        .change(before.map_or(Value::Null, Plan::told), after.told())
        .in_request(by.request);
    Ok(audit::record(connection, &event).await?)
}
