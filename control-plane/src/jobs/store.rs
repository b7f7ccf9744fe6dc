//! The queries about jobs.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use diesel::sql_types::{
    Array, BigInt, Bool, Bytea, Integer, Interval, Nullable, Text, Uuid as SqlUuid,
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use secrecy::zeroize::Zeroizing;
use serde::Serialize;
use uuid::Uuid;

use crate::db::{self, statement};
use crate::error::ApiError;
use crate::secrets::{KeyRing, Place, SealError, SealedColumn};

const COLUMN: &str = "jobs.sealed";

/// The advisory lock of the upkeep.
const UPKEEP: i64 = 0x7072_696d_6573_7770;

diesel::define_sql_function! {
    /// Whether this transaction now holds the lock.
    fn pg_try_advisory_xact_lock(key: diesel::sql_types::BigInt) -> diesel::sql_types::Bool;
}

#[derive(Debug, thiserror::Error)]
pub enum JobError {
    #[error("the job's payload cannot be written")]
    Payload(#[from] serde_json::Error),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Database(#[from] diesel::result::Error),
}

impl From<JobError> for ApiError {
    fn from(error: JobError) -> Self {
        match error {
            JobError::Database(error) => error.into(),
            error => Self::internal(error),
        }
    }
}

/// Promises a job. Call it in the transaction that makes it due.
pub async fn enqueue(
    connection: &mut AsyncPgConnection,
    keys: &KeyRing,
    kind: &str,
    payload: &impl Serialize,
) -> Result<(), JobError> {
    insert(connection, keys, kind, payload, true).await
}

/// Costs what [`enqueue`] costs and promises nothing: for answers whose time must not tell whether
/// there was something to do.
pub async fn pretend(
    connection: &mut AsyncPgConnection,
    keys: &KeyRing,
    kind: &str,
    payload: &impl Serialize,
) -> Result<(), JobError> {
    insert(connection, keys, kind, payload, false).await
}

async fn insert(
    connection: &mut AsyncPgConnection,
    keys: &KeyRing,
    kind: &str,
    payload: &impl Serialize,
    is_meant: bool,
) -> Result<(), JobError> {
    const SQL: &str = "INSERT INTO jobs (id, kind, sealed) SELECT $1, $2, $3 WHERE $4";
    let id = Uuid::now_v7();
    let payload = Zeroizing::new(serde_json::to_vec(payload)?);
    let sealed = keys.seal(place(id), &payload)?;
    statement(SQL)
        .bind::<SqlUuid, _>(id)
        .bind::<Text, _>(kind)
        .bind::<Bytea, _>(sealed)
        .bind::<Bool, _>(is_meant)
        .execute(connection)
        .await?;
    Ok(())
}

/// Where a job's payload is sealed.
pub(super) const fn place(job: Uuid) -> Place {
    Place {
        column: COLUMN,
        row: job,
    }
}

/// A job in the hands of one worker.
#[derive(Debug, QueryableByName)]
pub(super) struct Claimed {
    #[diesel(sql_type = SqlUuid)]
    pub(super) id: Uuid,
    #[diesel(sql_type = Text)]
    pub(super) kind: String,
    #[diesel(sql_type = Bytea)]
    pub(super) sealed: Vec<u8>,
    /// This one included. Also says whose claim it is: the next worker has a higher number.
    #[diesel(sql_type = Integer)]
    pub(super) attempts: i32,
}

/// Takes at most `limit` due jobs. Until the lease ends nobody else takes them.
pub(super) async fn claim(
    connection: &mut AsyncPgConnection,
    kinds: &[&str],
    limit: i64,
    lease: Duration,
) -> QueryResult<Vec<Claimed>> {
    const SQL: &str = "
        WITH due AS MATERIALIZED (
            SELECT id FROM jobs
            WHERE status = 'waiting' AND run_at <= now() AND kind = ANY($1)
            ORDER BY run_at LIMIT $2
            FOR UPDATE SKIP LOCKED
        )
        UPDATE jobs SET attempts = attempts + 1, run_at = now() + $3
        FROM due WHERE jobs.id = due.id
        RETURNING jobs.id, jobs.kind, jobs.sealed, jobs.attempts";
    statement(SQL)
        .bind::<Array<Text>, _>(kinds)
        .bind::<BigInt, _>(limit)
        .bind::<Interval, _>(interval(lease))
        .load(connection)
        .await
}

/// Ends a job that this claim still holds, done or failed for this reason. One that failed keeps its payload:
/// an operator may have it tried again.
pub(super) async fn end(
    connection: &mut AsyncPgConnection,
    job: &Claimed,
    failure: Option<&str>,
) -> QueryResult<()> {
    const SQL: &str = "
        UPDATE jobs
        SET status = CASE WHEN $3 IS NULL THEN 'done' ELSE 'failed' END,
            sealed = CASE WHEN $3 IS NULL THEN '' ELSE sealed END,
            last_error = $3, ended_at = now()
        WHERE id = $1 AND attempts = $2 AND status = 'waiting'";
    statement(SQL)
        .bind::<SqlUuid, _>(job.id)
        .bind::<Integer, _>(job.attempts)
        .bind::<Nullable<Text>, _>(failure)
        .execute(connection)
        .await
        .map(drop)
}

/// Gives a job back that this claim still holds, to be taken again after the pause.
pub(super) async fn postpone(
    connection: &mut AsyncPgConnection,
    job: &Claimed,
    failure: &str,
    pause: Duration,
) -> QueryResult<()> {
    const SQL: &str = "
        UPDATE jobs SET run_at = now() + $3, last_error = $4
        WHERE id = $1 AND attempts = $2 AND status = 'waiting'";
    statement(SQL)
        .bind::<SqlUuid, _>(job.id)
        .bind::<Integer, _>(job.attempts)
        .bind::<Interval, _>(interval(pause))
        .bind::<Text, _>(failure)
        .execute(connection)
        .await
        .map(drop)
}

/// Deletes at most `limit` jobs that ended before this time.
pub async fn forget_ended(
    connection: &mut AsyncPgConnection,
    before: DateTime<Utc>,
    limit: i64,
) -> QueryResult<usize> {
    const SQL: &str = "
        DELETE FROM jobs WHERE id IN (
            SELECT id FROM jobs WHERE status <> 'waiting' AND ended_at < $1 LIMIT $2
        )";
    db::forget(connection, SQL, before, limit).await
}

fn interval(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

/// The payloads of jobs that wait or failed, for whoever changes the key. Those of done jobs are empty.
pub const SEALED_PAYLOADS: SealedColumn =
    SealedColumn::new(COLUMN).only("status <> 'done' AND sealed <> ''");

/// Whether this transaction, and no other, now does the upkeep.
pub(super) async fn lock_upkeep(connection: &mut AsyncPgConnection) -> QueryResult<bool> {
    diesel::select(pg_try_advisory_xact_lock(UPKEEP))
        .get_result(connection)
        .await
}
