//! The worker of a replica: claims what is due, a bounded number at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::backoff::{MAX_ATTEMPTS, pause};
use super::handler::{Failure, Handlers};
use super::store::{self, Claimed};
use crate::app::AppState;
use crate::error::ApiError;

/// How many jobs a replica does at a time.
const PLACES: usize = 8;
/// How often to look for jobs that other replicas enqueued, or whose pause is over.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// A job that takes longer is taken for lost.
const DEADLINE: Duration = Duration::from_secs(60);
/// How long a claim holds: longer than any job runs.
const LEASE: Duration = Duration::from_secs(90);

/// Rung after a commit that enqueued a job, so that it is done at once. Who forgets makes the job
/// wait for the next poll.
#[derive(Debug, Default)]
pub struct Bell(Notify);

impl Bell {
    pub fn ring(&self) {
        self.0.notify_one();
    }
}

/// Works until the service stops, and lets what was begun come to its end.
pub async fn run(state: Arc<AppState>, handlers: Handlers) {
    let handlers = Arc::new(handlers);
    let mut running = JoinSet::new();
    loop {
        let is_busy = fill(&state, &handlers, &mut running).await;
        tokio::select! {
            () = state.shutdown().cancelled() => break,
            // With free places nothing more was due: the end of a job is no reason to look.
            Some(ended) = running.join_next(), if is_busy => note(ended),
            () = state.jobs().0.notified(), if !is_busy => {}
            () = sleep(POLL_EVERY), if !is_busy => {}
        }
    }
    while let Some(ended) = running.join_next().await {
        note(ended);
    }
}

/// Claims a job for every free place. True when every place is taken.
async fn fill(state: &Arc<AppState>, handlers: &Arc<Handlers>, running: &mut JoinSet<()>) -> bool {
    while let Some(ended) = running.try_join_next() {
        note(ended);
    }
    let free = PLACES.saturating_sub(running.len());
    match claim(state, handlers, free).await {
        Ok(claimed) => {
            for job in claimed {
                let (state, handlers) = (Arc::clone(state), Arc::clone(handlers));
                running.spawn(async move { work(&state, &handlers, &job).await });
            }
        }
        Err(error) => tracing::warn!(%error, "jobs.claim_failed"),
    }
    running.len() >= PLACES
}

async fn claim(
    state: &AppState,
    handlers: &Handlers,
    free: usize,
) -> Result<Vec<Claimed>, ApiError> {
    let limit = i64::try_from(free).unwrap_or(0);
    let mut connection = state.db().get().await?;
    Ok(store::claim(&mut connection, &handlers.kinds(), limit, LEASE).await?)
}

/// A handler that panicked is tried again when its claim has run out.
fn note(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "jobs.panicked");
    }
}

async fn work(state: &AppState, handlers: &Handlers, job: &Claimed) {
    let result = attempt(state, handlers, job).await;
    if let Err(error) = conclude(state, job, &result).await {
        // It stays claimed, and is done once more when the claim has run out.
        tracing::warn!(job = %job.id, %error, "jobs.outcome_lost");
    }
    let outcome = match &result {
        Ok(()) => "done",
        Err(failure) if is_last(job, failure) => "failed",
        Err(_) => "postponed",
    };
    metrics::counter!("jobs_total", "kind" => job.kind.clone(), "outcome" => outcome).increment(1);
    if let Err(failure) = &result {
        tracing::warn!(job = %job.id, kind = job.kind, attempts = job.attempts, outcome, %failure, "jobs.attempt_failed");
    }
}

async fn attempt(state: &AppState, handlers: &Handlers, job: &Claimed) -> Result<(), Failure> {
    if job.attempts > MAX_ATTEMPTS {
        return Err(Failure::lasting("no attempt came to an end"));
    }
    let handler = handlers
        .of(&job.kind)
        .ok_or_else(|| Failure::temporary("this build has no handler for it"))?;
    let payload = state
        .keys()
        .open(store::place(job.id), &job.sealed)
        .map_err(|error| Failure::temporary(error.to_string()))?;
    timeout(DEADLINE, handler.run(job.id, &payload))
        .await
        .unwrap_or_else(|_| Err(Failure::temporary(format!("not done within {DEADLINE:?}"))))
}

async fn conclude(
    state: &AppState,
    job: &Claimed,
    result: &Result<(), Failure>,
) -> Result<(), ApiError> {
    let mut connection = state.db().get().await?;
    match result {
        Ok(()) => store::end(&mut connection, job, None).await?,
        Err(failure) if is_last(job, failure) => {
            store::end(&mut connection, job, Some(&failure.to_string())).await?;
        }
        Err(failure) => {
            let pause = pause(job.attempts, rand::random());
            store::postpone(&mut connection, job, &failure.to_string(), pause).await?;
        }
    }
    Ok(())
}

fn is_last(job: &Claimed, failure: &Failure) -> bool {
    failure.is_final() || job.attempts >= MAX_ATTEMPTS
}
