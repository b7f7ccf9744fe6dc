//! The queries about the log.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde_json::Value;
use shared::ids::UserId;
use uuid::Uuid;

use super::entry::{Entry, Filter};
use super::event::{Event, Subject};
use crate::db;
use crate::db::schema::audit_log;
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
    db::forget(connection, SQL, before, limit).await
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = audit_log, check_for_backend(diesel::pg::Pg))]
struct Row {
    id: Uuid,
    at: DateTime<Utc>,
    action: String,
    outcome: String,
    actor_kind: String,
    actor: Option<String>,
    subject_kind: Option<String>,
    subject: Option<String>,
    before: Option<Value>,
    after: Option<Value>,
    request_id: Option<String>,
}

/// The newest rows that a person is in, as who acted or as what was acted on.
pub async fn about(
    connection: &mut AsyncPgConnection,
    user: UserId,
    limit: i64,
) -> QueryResult<Vec<Entry>> {
    let user = user.to_string();
    let rows: Vec<Row> = audit_log::table
        .filter(audit_log::subject.eq(&user).or(audit_log::actor.eq(&user)))
        .order((audit_log::at.desc(), audit_log::id.desc()))
        .limit(limit)
        .select(Row::as_select())
        .load(connection)
        .await?;
    Ok(rows.into_iter().map(Entry::from).collect())
}

fn matching(filter: &Filter) -> audit_log::BoxedQuery<'_, diesel::pg::Pg> {
    let mut query = audit_log::table.into_boxed();
    if let Some(action) = &filter.action {
        query = query.filter(audit_log::action.eq(action));
    }
    if let Some(actor) = &filter.actor {
        query = query.filter(audit_log::actor.eq(actor));
    }
    if let Some(subject) = &filter.subject {
        query = query.filter(audit_log::subject.eq(subject));
    }
    if let Some(from) = filter.from {
        query = query.filter(audit_log::at.ge(from));
    }
    if let Some(to) = filter.to {
        query = query.filter(audit_log::at.lt(to));
    }
    query
}

/// The rows of one page, the newest first, and how many there are over all pages.
pub(super) async fn list(
    connection: &mut AsyncPgConnection,
    filter: &Filter,
    (offset, limit): (i64, i64),
) -> QueryResult<(Vec<Entry>, u64)> {
    let total: i64 = matching(filter).count().get_result(connection).await?;
    let rows: Vec<Row> = matching(filter)
        .order((audit_log::at.desc(), audit_log::id.desc()))
        .offset(offset)
        .limit(limit)
        .select(Row::as_select())
        .load(connection)
        .await?;
    let entries = rows.into_iter().map(Entry::from).collect();
    Ok((entries, u64::try_from(total).unwrap_or_default()))
}

impl From<Row> for Entry {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            at: row.at,
            action: row.action,
            outcome: row.outcome,
            actor_kind: row.actor_kind,
            actor: row.actor,
            subject_kind: row.subject_kind,
            subject: row.subject,
            before: row.before,
            after: row.after,
            request_id: row.request_id,
        }
    }
}
