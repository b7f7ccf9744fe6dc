//! The queries about jobs.

use async_trait::async_trait;
use diesel::prelude::*;
use diesel::sql_types::{Array, Bytea, Int8, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde::Serialize;
use uuid::Uuid;

use crate::db::schema::jobs;
use crate::db::statement;
use crate::error::ApiError;
use crate::secrets::{KeyRing, Place, Resealed, SealError, SealedColumn, SealedRow};

const COLUMN: &str = "jobs.sealed";

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
    let id = Uuid::now_v7();
    let place = Place {
        column: COLUMN,
        row: id,
    };
    let sealed = keys.seal(place, &serde_json::to_vec(payload)?)?;
    diesel::insert_into(jobs::table)
        .values((
            jobs::id.eq(id),
            jobs::kind.eq(kind),
            jobs::sealed.eq(sealed),
        ))
        .execute(connection)
        .await?;
    Ok(())
}

/// The payloads of jobs that wait, for whoever changes the key. Those of ended jobs are empty.
#[derive(Debug)]
pub struct SealedPayloads;

#[async_trait]
impl SealedColumn for SealedPayloads {
    fn name(&self) -> &'static str {
        COLUMN
    }

    async fn stale(
        &self,
        connection: &mut AsyncPgConnection,
        prefix: &[u8],
        after: Uuid,
        limit: i64,
    ) -> QueryResult<Vec<SealedRow>> {
        const SQL: &str = "
            SELECT id, sealed FROM jobs
            WHERE status = 'waiting' AND id > $2
                AND substring(sealed FOR octet_length($1)) <> $1
            ORDER BY id LIMIT $3";
        statement(SQL)
            .bind::<Bytea, _>(prefix)
            .bind::<SqlUuid, _>(after)
            .bind::<Int8, _>(limit)
            .load(connection)
            .await
    }

    async fn replace(
        &self,
        connection: &mut AsyncPgConnection,
        rows: &Resealed,
    ) -> QueryResult<usize> {
        const SQL: &str = "
            UPDATE jobs SET sealed = changed.new
            FROM unnest($1, $2, $3) AS changed (id, old, new)
            WHERE jobs.id = changed.id AND jobs.sealed = changed.old";
        statement(SQL)
            .bind::<Array<SqlUuid>, _>(&rows.ids)
            .bind::<Array<Bytea>, _>(&rows.old)
            .bind::<Array<Bytea>, _>(&rows.new)
            .execute(connection)
            .await
    }
}
