//! The queries about jobs.

use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde::Serialize;
use uuid::Uuid;

use crate::db::schema::jobs;
use crate::error::ApiError;
use crate::secrets::{KeyRing, Place, SealError};

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
