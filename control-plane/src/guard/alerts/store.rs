//! The rows of the alerts.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_types::{Array, BigInt, Bool, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use shared::ids::UserId;
use uuid::Uuid;

use super::{Alert, AlertKind, Attack, Signs};
use crate::db::schema::security_alerts;
use crate::db::{self, statement};

/// The advisory lock of whoever writes alerts.
const WRITING: i64 = 0x7072_696d_6561_6c74;

/// Which alerts are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::guard) enum Filter {
    /// Those that nobody looked into.
    Open,
    All,
}

macro_rules! columns {
    () => {
        "id, kind, user_id, started_at, last_seen_at, ended_at, count, notified_at, acknowledged_at, acknowledged_by"
    };
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    user_id: Option<Uuid>,
    #[diesel(sql_type = Timestamptz)]
    started_at: DateTime<Utc>,
    #[diesel(sql_type = Timestamptz)]
    last_seen_at: DateTime<Utc>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    ended_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = BigInt)]
    count: i64,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    notified_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    acknowledged_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Text>)]
    acknowledged_by: Option<String>,
}

impl Row {
    fn alert(self) -> QueryResult<Alert> {
        Ok(Alert {
            id: self.id,
            kind: kind(&self.kind)?,
            user: self.user_id.map(UserId),
            started_at: self.started_at,
            last_seen_at: self.last_seen_at,
            ended_at: self.ended_at,
            count: u64::try_from(self.count).unwrap_or(0),
            notified_at: self.notified_at,
            acknowledged_at: self.acknowledged_at,
            acknowledged_by: self.acknowledged_by,
        })
    }
}

fn kind(word: &str) -> QueryResult<AlertKind> {
    let mut all = AlertKind::ALL.iter().copied();
    let kind = all.find(|kind| kind.as_str() == word);
    kind.ok_or_else(|| Error::DeserializationError("an alert's kind".into()))
}

/// Waits until nobody else writes alerts, and keeps it so until the commit.
pub(super) async fn lock(connection: &mut AsyncPgConnection) -> QueryResult<()> {
    const SQL: &str = "SELECT pg_advisory_xact_lock($1)";
    statement(SQL)
        .bind::<BigInt, _>(WRITING)
        .execute(connection)
        .await
        .map(drop)
}

/// Ends the attacks of which nothing was seen since a time.
pub(super) async fn end_quiet(
    connection: &mut AsyncPgConnection,
    since: DateTime<Utc>,
) -> QueryResult<()> {
    const SQL: &str = "
        UPDATE security_alerts SET ended_at = last_seen_at
         WHERE ended_at IS NULL AND last_seen_at < $1";
    statement(SQL)
        .bind::<Timestamptz, _>(since)
        .execute(connection)
        .await
        .map(drop)
}

/// Adds what was seen to the attacks that go on, and begins the others: those come back.
pub(super) async fn put(
    connection: &mut AsyncPgConnection,
    seen: &HashMap<Attack, Signs>,
) -> QueryResult<Vec<(Uuid, AlertKind)>> {
    const SQL: &str = "
        INSERT INTO security_alerts AS a (id, kind, user_id, started_at, last_seen_at, count)
        SELECT * FROM unnest($1, $2, $3, $4, $5, $6)
            ON CONFLICT (kind, coalesce(user_id, '00000000-0000-0000-0000-000000000000'))
                  WHERE ended_at IS NULL DO UPDATE
           SET started_at = least(a.started_at, excluded.started_at),
               last_seen_at = greatest(a.last_seen_at, excluded.last_seen_at),
               count = a.count + excluded.count
        RETURNING id, kind, xmax = 0 AS is_new";

    #[derive(QueryableByName)]
    struct Put {
        #[diesel(sql_type = SqlUuid)]
        id: Uuid,
        #[diesel(sql_type = Text)]
        kind: String,
        #[diesel(sql_type = Bool)]
        is_new: bool,
    }

    if seen.is_empty() {
        return Ok(Vec::new());
    }
    let of = |signs: &Signs| i64::try_from(signs.count).unwrap_or(i64::MAX);
    let words: Vec<_> = seen.keys().map(|it| it.0.as_str()).collect();
    let users: Vec<_> = seen.keys().map(|it| it.1.map(|user| user.0)).collect();
    let rows: Vec<Put> = statement(SQL)
        .bind::<Array<SqlUuid>, _>(seen.keys().map(|_| Uuid::now_v7()).collect::<Vec<_>>())
        .bind::<Array<Text>, _>(words)
        .bind::<Array<Nullable<SqlUuid>>, _>(users)
        .bind::<Array<Timestamptz>, _>(seen.values().map(|it| it.first).collect::<Vec<_>>())
        .bind::<Array<Timestamptz>, _>(seen.values().map(|it| it.last).collect::<Vec<_>>())
        .bind::<Array<BigInt>, _>(seen.values().map(of).collect::<Vec<_>>())
        .load(connection)
        .await?;
    let begun = rows.into_iter().filter(|row| row.is_new);
    begun.map(|row| Ok((row.id, kind(&row.kind)?))).collect()
}

/// Whether operators are to be told of an attack now: not if they were of one of its kind since a time.
pub(super) async fn claim_mail(
    connection: &mut AsyncPgConnection,
    alert: Uuid,
    kind: AlertKind,
    now: DateTime<Utc>,
    none_since: DateTime<Utc>,
) -> QueryResult<bool> {
    const SQL: &str = "
        UPDATE security_alerts SET notified_at = $3
         WHERE id = $1 AND NOT EXISTS (
            SELECT FROM security_alerts WHERE kind = $2 AND notified_at > $4)";
    statement(SQL)
        .bind::<SqlUuid, _>(alert)
        .bind::<Text, _>(kind.as_str())
        .bind::<Timestamptz, _>(now)
        .bind::<Timestamptz, _>(none_since)
        .execute(connection)
        .await
        .map(|changed| changed == 1)
}

/// One page, the newest first, and how many there are in all.
pub(super) async fn page(
    connection: &mut AsyncPgConnection,
    filter: Filter,
    (offset, limit): (i64, i64),
) -> QueryResult<(Vec<Alert>, u64)> {
    const SQL: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM security_alerts
          WHERE acknowledged_at IS NULL OR $1
          ORDER BY started_at DESC, id DESC OFFSET $2 LIMIT $3"
    );
    let all = filter == Filter::All;
    let total: i64 = security_alerts::table
        .filter(
            security_alerts::acknowledged_at
                .is_null()
                .or(all.into_sql::<Bool>()),
        )
        .count()
        .get_result(connection)
        .await?;
    let rows: Vec<Row> = statement(SQL)
        .bind::<Bool, _>(all)
        .bind::<BigInt, _>(offset)
        .bind::<BigInt, _>(limit)
        .load(connection)
        .await?;
    let alerts: Vec<_> = rows.into_iter().map(Row::alert).collect::<Result<_, _>>()?;
    Ok((alerts, u64::try_from(total).unwrap_or(0)))
}

pub(super) async fn find(
    connection: &mut AsyncPgConnection,
    id: Uuid,
) -> QueryResult<Option<Alert>> {
    const SQL: &str = concat!("SELECT ", columns!(), " FROM security_alerts WHERE id = $1");
    let row: Option<Row> = statement(SQL)
        .bind::<SqlUuid, _>(id)
        .get_result(connection)
        .await
        .optional()?;
    row.map(Row::alert).transpose()
}

/// Whether this was the first to look into it.
pub(super) async fn acknowledge(
    connection: &mut AsyncPgConnection,
    id: Uuid,
    by: &str,
) -> QueryResult<bool> {
    const SQL: &str = "
        UPDATE security_alerts SET acknowledged_at = now(), acknowledged_by = $2
         WHERE id = $1 AND acknowledged_at IS NULL";
    statement(SQL)
        .bind::<SqlUuid, _>(id)
        .bind::<Text, _>(by)
        .execute(connection)
        .await
        .map(|changed| changed == 1)
}

/// Attacks that somebody has to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpenAlerts {
    /// Nobody looked into them.
    pub(crate) open: u64,
    /// They go on.
    pub(crate) ongoing: u64,
}

/// How many there are of either.
pub(crate) async fn open_alerts(connection: &mut AsyncPgConnection) -> QueryResult<OpenAlerts> {
    const SQL: &str = "
        SELECT count(*) FILTER (WHERE acknowledged_at IS NULL) AS open,
               count(*) FILTER (WHERE ended_at IS NULL) AS ongoing
          FROM security_alerts WHERE acknowledged_at IS NULL OR ended_at IS NULL";

    #[derive(QueryableByName)]
    struct Counts {
        #[diesel(sql_type = BigInt)]
        open: i64,
        #[diesel(sql_type = BigInt)]
        ongoing: i64,
    }

    let counts: Counts = statement(SQL).get_result(connection).await?;
    let count = |number| u64::try_from(number).unwrap_or(0);
    Ok(OpenAlerts {
        open: count(counts.open),
        ongoing: count(counts.ongoing),
    })
}

/// Deletes the rows of attacks that ended before a time.
pub(crate) async fn forget(
    connection: &mut AsyncPgConnection,
    before: DateTime<Utc>,
    limit: i64,
) -> QueryResult<usize> {
    const SQL: &str = "
        DELETE FROM security_alerts WHERE id IN (
            SELECT id FROM security_alerts WHERE ended_at < $1 LIMIT $2)";
    db::forget(connection, SQL, before, limit).await
}
