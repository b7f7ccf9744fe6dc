//! The queries about the log.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::event::{Event, Subject};
use crate::db::schema::audit_log;
use crate::db::statement;
use crate::http::RequestId;

/// Writes the row. Call it in the transaction of the act.
pub async fn record(connection: &mut AsyncPgConnection, event: &Event) -> QueryResult<()> {
    diesel::insert_into(audit_log::table)
        .values((
            audit_log::id.eq(Uuid::now_v7()),
            audit_log::action.eq(event.action.as_str()),
            audit_log::outcome.eq(if event.refused { "refused" } else { "done" }),
            audit_log::actor_kind.eq(event.actor.kind()),
            audit_log::actor.eq(event.actor.name()),
            audit_log::subject_kind.eq(event.subject.as_ref().map(Subject::kind)),
            audit_log::subject.eq(event.subject.as_ref().map(Subject::id)),
            audit_log::before.eq(&event.before),
            audit_log::after.eq(&event.after),
            audit_log::request_id.eq(event.request.as_ref().map(RequestId::as_str)),
        ))
        .execute(connection)
        .await
        .map(drop)
}

/// Deletes at most `limit` rows of acts before this time.
pub async fn forget(
    connection: &mut AsyncPgConnection,
    before: DateTime<Utc>,
    limit: i64,
) -> QueryResult<usize> {
    const SQL: &str = "
        DELETE FROM audit_log WHERE id IN (SELECT id FROM audit_log WHERE at < $1 LIMIT $2)";
    statement(SQL)
        .bind::<Timestamptz, _>(before)
        .bind::<BigInt, _>(limit)
        .execute(connection)
        .await
}
