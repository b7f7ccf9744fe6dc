//! How long somebody may stay with an answer that outlives their request: until their token ends, and
//! while they are admitted.

use std::future::pending;
use std::pin::Pin;

use chrono::Utc;
use tokio::time::{Sleep, sleep};

use super::{Holding, Permission};
use crate::app::AppState;

/// Looks between two questions to whoever knows.
const ASK_EVERY: u32 = 3;

/// One viewer's stay.
#[derive(Debug)]
pub struct Stay {
    expiry: Option<Pin<Box<Sleep>>>,
    looks: u32,
}

impl Stay {
    #[must_use]
    pub fn of<P>(viewer: &Holding<P>) -> Self {
        let left = viewer.holder.expires_at().map(|at| at - Utc::now());
        Self {
            expiry: left.map(|left| Box::pin(sleep(left.to_std().unwrap_or_default()))),
            looks: 0,
        }
    }

    /// Waits for the end of the token. May be dropped at any point.
    pub async fn over(&mut self) {
        match &mut self.expiry {
            Some(expiry) => expiry.as_mut().await,
            None => pending().await,
        }
    }

    /// Whether it goes on; call it every few seconds. While nobody can be asked the viewer stays: it ends with
    /// the token.
    pub async fn goes_on<P: Permission>(&mut self, viewer: &Holding<P>, state: &AppState) -> bool {
        let asks = self.looks.is_multiple_of(ASK_EVERY);
        self.looks = self.looks.wrapping_add(1);
        if viewer.holder.is_out(state) {
            return false;
        }
        if !asks {
            return true;
        }
        // Boxed, or each of thousands of streams has the room that a query takes.
        let asked = Box::pin(viewer.is_admitted(state));
        asked.await.unwrap_or_else(|error| {
            tracing::debug!(%error, "http.viewer_check_failed");
            true
        })
    }
}
