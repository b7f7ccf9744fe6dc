//! What is shown, and for how long it is shown again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};

use super::store;
use super::views::{Counted, OverviewView, Parts};
use crate::accounts::{people, sessions};
use crate::app::AppState;
use crate::billing::{reconcile, subscription};
use crate::error::ApiError;
use crate::{guard, jobs, tunnels};

/// How long what moves is shown again.
const FRESH: Duration = Duration::from_secs(1);
/// The same of what is counted over whole tables.
const COUNTED: Duration = Duration::from_secs(5);
/// Streams at once on one replica.
const MAX_STREAMS: usize = 32;

/// What this replica shows.
#[derive(Debug)]
pub struct Overview {
    /// Whoever finds it old makes it anew, and the others wait for that.
    shown: Mutex<Shown>,
    streams: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Shown {
    view: Option<(Instant, Arc<OverviewView>)>,
    counted: Option<(Instant, Counted)>,
}

impl Default for Overview {
    fn default() -> Self {
        Self {
            shown: Mutex::default(),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
        }
    }
}

impl Overview {
    /// A place for one stream, if there is one.
    pub(super) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.streams).try_acquire_owned().ok()
    }

    /// The whole, no older than a second.
    pub(super) async fn glance(&self, state: &AppState) -> Result<Arc<OverviewView>, ApiError> {
        let mut shown = self.shown.lock().await;
        if let Some(view) = fresh(shown.view.as_ref(), FRESH) {
            return Ok(Arc::clone(view));
        }
        let counted = match fresh(shown.counted.as_ref(), COUNTED) {
            Some(counted) => counted.clone(),
            None => {
                let counted = count(state).await?;
                shown.counted.insert((Instant::now(), counted)).1.clone()
            }
        };
        let view = Arc::new(look(state, counted).await?);
        shown.view = Some((Instant::now(), Arc::clone(&view)));
        Ok(view)
    }
}

fn fresh<T>(kept: Option<&(Instant, T)>, life: Duration) -> Option<&T> {
    kept.filter(|(at, _)| at.elapsed() < life).map(|(_, it)| it)
}

async fn count(state: &AppState) -> Result<Counted, ApiError> {
    let mut connection = state.db().get().await?;
    Ok(Counted {
        users: people::count(&mut connection).await?,
        sessions: sessions::count(&mut connection).await?,
        subscriptions: subscription::count(&mut connection).await?,
        reconciliation: reconcile::latest(&mut connection).await?,
    })
}

async fn look(state: &AppState, counted: Counted) -> Result<OverviewView, ApiError> {
    let now = Utc::now();
    let mut connection = state.db().get().await?;
    Ok(OverviewView::new(Parts {
        now,
        nodes: state.fleet().states(now),
        connections: tunnels::count_live(&mut connection).await?,
        replicas: store::recent(&mut connection).await?,
        jobs: jobs::backlog(&mut connection).await?,
        alerts: guard::open_alerts(&mut connection).await?,
        counted,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_shown_for_its_time() {
        let kept = (Instant::now(), 1);
        assert_eq!(fresh(Some(&kept), Duration::from_secs(60)), Some(&1));
        assert_eq!(fresh(Some(&kept), Duration::ZERO), None);
        assert_eq!(fresh::<i32>(None, Duration::from_secs(60)), None);
    }

    #[test]
    fn streams_have_so_many_places() {
        let overview = Overview::default();
        let mut places: Vec<_> = (0..MAX_STREAMS).map(|_| overview.place()).collect();
        assert!(places.iter().all(Option::is_some) && overview.place().is_none());
        places.pop();
        assert!(overview.place().is_some());
    }
}
