//! The queries about comparisons.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::result::Error;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde_json::Value;
use uuid::Uuid;

use super::report::Report;
use crate::db::schema::billing_reconciliations as table;

/// The advisory lock of whoever compares.
const COMPARING: i64 = 0x7072_696d_6572_6563;

diesel::define_sql_function! {
    /// Whether this connection now holds the lock.
    fn pg_try_advisory_lock(key: diesel::sql_types::BigInt) -> diesel::sql_types::Bool;
}

pub(super) async fn lock(connection: &mut AsyncPgConnection) -> QueryResult<bool> {
    diesel::select(pg_try_advisory_lock(COMPARING))
        .get_result(connection)
        .await
}

/// A comparison that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) started_at: DateTime<Utc>,
    pub(super) ended_at: DateTime<Utc>,
    pub(super) is_dry_run: bool,
    pub(super) report: Report,
}

pub(super) async fn insert(connection: &mut AsyncPgConnection, ended: &Ended) -> QueryResult<()> {
    let report = serde_json::to_value(&ended.report)
        .map_err(|error| Error::SerializationError(Box::new(error)))?;
    diesel::insert_into(table::table)
        .values((
            table::id.eq(Uuid::now_v7()),
            table::started_at.eq(ended.started_at),
            table::ended_at.eq(ended.ended_at),
            table::is_dry_run.eq(ended.is_dry_run),
            table::is_complete.eq(ended.report.is_complete),
            table::report.eq(report),
        ))
        .execute(connection)
        .await
        .map(drop)
}

/// The latest one.
pub(super) async fn last(connection: &mut AsyncPgConnection) -> QueryResult<Option<Ended>> {
    let row: Option<(DateTime<Utc>, DateTime<Utc>, bool, Value)> = table::table
        .order((table::started_at.desc(), table::id.desc()))
        .select((
            table::started_at,
            table::ended_at,
            table::is_dry_run,
            table::report,
        ))
        .first(connection)
        .await
        .optional()?;
    row.map(|(started_at, ended_at, is_dry_run, report)| {
        let report = serde_json::from_value(report)
            .map_err(|error| Error::DeserializationError(Box::new(error)))?;
        Ok(Ended {
            started_at,
            ended_at,
            is_dry_run,
            report,
        })
    })
    .transpose()
}

/// How the latest one ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latest {
    pub started_at: DateTime<Utc>,
    pub ended_at: DateTime<Utc>,
    /// It repaired nothing.
    pub is_dry_run: bool,
    /// It read everything.
    pub is_complete: bool,
    /// It left nothing that it could not read or write.
    pub is_clean: bool,
}

/// How the latest one ended.
pub async fn latest(connection: &mut AsyncPgConnection) -> QueryResult<Option<Latest>> {
    let ended = last(connection).await?;
    Ok(ended.map(|ended| Latest {
        started_at: ended.started_at,
        ended_at: ended.ended_at,
        is_dry_run: ended.is_dry_run,
        is_complete: ended.report.is_complete,
        is_clean: ended.report.is_clean(),
    }))
}

/// When the latest began that read everything and repaired what it found.
pub(super) async fn last_complete(
    connection: &mut AsyncPgConnection,
) -> QueryResult<Option<DateTime<Utc>>> {
    table::table
        .filter(table::is_complete)
        .filter(table::is_dry_run.eq(false))
        .select(diesel::dsl::max(table::started_at))
        .first(connection)
        .await
}
