//! Acting on an event: reading what it is about from Stripe.

use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;

use super::about::About;
use super::money::{self, Payment};
use super::{EventStatus, store};
use crate::app::AppState;
use crate::billing::invoices;
use crate::billing::stripe::events::Event;
use crate::billing::superseded;
use crate::billing::sync::{self, Mode, SyncError};
use crate::error::ApiError;
use crate::jobs::{Failure, Handler};

pub(super) const KIND: &str = "stripe_event";

/// With the pauses between them these take hours; a job itself has one more.
const ATTEMPTS: i32 = 19;

/// Acts on what Stripe told.
#[derive(Debug)]
pub struct EventJobs {
    state: Arc<AppState>,
}

impl EventJobs {
    #[must_use]
    pub const fn new(state: Arc<AppState>) -> Self {
        Self { state }
    }

    /// One attempt. What fails for good is parked, and the job has done what it could.
    async fn act(&self, id: Uuid) -> Result<(), Failure> {
        let begun = {
            let mut connection = self
                .state
                .db()
                .get()
                .await
                .map_err(|it| unwritten(&it.into()))?;
            let begun = store::begin(&mut connection, id).await;
            begun.map_err(|error| unwritten(&error.into()))?
        };
        let Some(begun) = begun else {
            return Ok(());
        };
        let result = if begun.attempts > ATTEMPTS {
            Err(Failure::lasting("no attempt came to an end"))
        } else {
            self.attempt(id, &begun).await
        };
        let (status, failure) = match result {
            Ok(()) => (EventStatus::Done, None),
            Err(failure) if failure.is_final() || begun.attempts >= ATTEMPTS => {
                (EventStatus::Parked, Some(failure))
            }
            Err(failure) => (EventStatus::Waiting, Some(failure)),
        };
        self.conclude(id, status, failure.as_ref()).await?;
        match failure {
            Some(failure) if status == EventStatus::Waiting => Err(failure),
            _ => Ok(()),
        }
    }

    async fn attempt(&self, id: Uuid, begun: &store::Begun) -> Result<(), Failure> {
        let payload = self
            .state
            .keys()
            .open(store::place(id), &begun.sealed_payload)
            .map_err(|error| Failure::temporary(error.to_string()))?;
        let event: Event = serde_json::from_slice(&payload)
            .map_err(|_| Failure::lasting("the event cannot be read"))?;
        let about = About::of(&event).map_err(|error| Failure::lasting(error.to_string()))?;
        self.read_subscription(about).await?;
        self.read_payment(&event).await
    }

    async fn read_subscription(&self, about: About) -> Result<(), Failure> {
        let About::Subscription(id, customer) = about else {
            return Ok(());
        };
        let read = sync::subscription(&self.state, &id, customer.as_ref()).await;
        let followed = superseded::follow_up(&self.state, read.map_err(failure)?).await;
        followed.map_err(failure)
    }

    /// After the subscription, which it belongs to.
    async fn read_payment(&self, event: &Event) -> Result<(), Failure> {
        if money::is_new_dispute(event) {
            self.state.guard().disputed();
        }
        let payment = Payment::of(event).map_err(|error| Failure::lasting(error.to_string()))?;
        let (state, mode) = (&*self.state, Mode::Write);
        let read = match payment {
            None => return Ok(()),
            Some(Payment::Invoice(id, customer)) => {
                Box::pin(invoices::invoice(state, &id, customer.as_ref(), mode)).await
            }
            Some(Payment::Intent(id)) => Box::pin(invoices::intent(state, &id, mode)).await,
        };
        read.map(drop).map_err(failure)
    }

    async fn conclude(
        &self,
        event: Uuid,
        status: EventStatus,
        failure: Option<&Failure>,
    ) -> Result<(), Failure> {
        let reason = failure.map(ToString::to_string);
        let mut connection = self
            .state
            .db()
            .get()
            .await
            .map_err(|it| unwritten(&it.into()))?;
        store::end(&mut connection, event, status, reason.as_deref())
            .await
            .map_err(|error| unwritten(&error.into()))?;
        metrics::counter!("stripe_events_total", "outcome" => status.as_str()).increment(1);
        if status == EventStatus::Parked {
            tracing::error!(%event, reason, "stripe.event_parked");
        }
        Ok(())
    }
}

#[async_trait]
impl Handler for EventJobs {
    fn kind(&self) -> &'static str {
        KIND
    }

    async fn run(&self, _: Uuid, payload: &[u8]) -> Result<(), Failure> {
        let id = serde_json::from_slice(payload)
            .map_err(|_| Failure::lasting("the event's id cannot be read"))?;
        self.act(id).await
    }
}

fn failure(error: SyncError) -> Failure {
    let reason = error.to_string();
    if error.is_recoverable() {
        Failure::temporary(reason)
    } else {
        Failure::lasting(reason)
    }
}

fn unwritten(error: &ApiError) -> Failure {
    Failure::temporary(error.to_string())
}
