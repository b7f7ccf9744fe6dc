//! Who does what kind of job.

use std::collections::HashMap;
use std::fmt;

use async_trait::async_trait;
use uuid::Uuid;

/// Does the jobs of one kind.
#[async_trait]
pub trait Handler: fmt::Debug + Send + Sync {
    /// What the jobs are enqueued as.
    fn kind(&self) -> &'static str;

    /// Does one job. May be called again for a job that it did already.
    async fn run(&self, job: Uuid, payload: &[u8]) -> Result<(), Failure>;
}

/// Why a job was not done. The reason is stored and logged: no address and no token may be in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Failure {
    reason: String,
    is_final: bool,
}

impl Failure {
    /// It may work later.
    #[must_use]
    pub fn temporary(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            is_final: false,
        }
    }

    /// It will never work.
    #[must_use]
    pub fn lasting(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            is_final: true,
        }
    }

    #[must_use]
    pub const fn is_final(&self) -> bool {
        self.is_final
    }
}

/// The handlers of this build. Jobs of other kinds are left to the replicas that know them.
#[derive(Debug)]
pub struct Handlers(HashMap<&'static str, Box<dyn Handler>>);

impl Handlers {
    #[must_use]
    pub fn new(handlers: Vec<Box<dyn Handler>>) -> Self {
        let by_kind = handlers
            .into_iter()
            .map(|handler| (handler.kind(), handler));
        Self(by_kind.collect())
    }

    pub(super) fn kinds(&self) -> Vec<&'static str> {
        self.0.keys().copied().collect()
    }

    pub(super) fn of(&self, kind: &str) -> Option<&dyn Handler> {
        self.0.get(kind).map(Box::as_ref)
    }
}
