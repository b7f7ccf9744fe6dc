//! The job that a refund's commit promises.

use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;

use super::carry::carry_out;
use crate::app::AppState;
use crate::jobs::{Failure, Handler};

pub(super) const KIND: &str = "refund";

/// Sees refunds through that nobody else did.
#[derive(Debug)]
pub struct RefundJobs {
    state: Arc<AppState>,
}

impl RefundJobs {
    #[must_use]
    pub const fn new(state: Arc<AppState>) -> Self {
        Self { state }
    }
}

#[async_trait]
impl Handler for RefundJobs {
    fn kind(&self) -> &'static str {
        KIND
    }

    async fn run(&self, _: Uuid, payload: &[u8]) -> Result<(), Failure> {
        let id = serde_json::from_slice(payload)
            .map_err(|_| Failure::lasting("the refund's id cannot be read"))?;
        let carried = carry_out(&self.state, id, false).await;
        carried.map_err(|error| {
            let reason = error.to_string();
            if error.is_recoverable() {
                Failure::temporary(reason)
            } else {
                Failure::lasting(reason)
            }
        })
    }
}
