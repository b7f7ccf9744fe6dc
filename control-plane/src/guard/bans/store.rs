//! The rows of the bans.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_types::{
    Array, BigInt, Bool, Cidr, Double, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use ipnet::IpNet;
use uuid::Uuid;

use super::{Ban, Reason};
use crate::db::schema::bans;
use crate::db::{self, statement};

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Cidr)]
    network: IpNet,
    #[diesel(sql_type = Text)]
    reason: String,
    #[diesel(sql_type = Nullable<Text>)]
    note: Option<String>,
    #[diesel(sql_type = Text)]
    made_by: String,
    #[diesel(sql_type = Timestamptz)]
    created_at: DateTime<Utc>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    expires_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Bool)]
    is_lifted: bool,
}

macro_rules! columns {
    () => {
        "id, network, reason, note, made_by, created_at, expires_at, ended_at IS NOT NULL AS is_lifted"
    };
}

/// A ban as it is now.
#[derive(Debug)]
pub(super) enum Change {
    InForce(Ban),
    Lifted(IpNet),
}

impl Row {
    fn ban(self) -> diesel::QueryResult<Ban> {
        let reason = Reason::parse(&self.reason)
            .ok_or_else(|| Error::DeserializationError("a ban's reason".into()))?;
        Ok(Ban {
            id: self.id,
            network: self.network,
            reason,
            note: self.note,
            made_by: self.made_by,
            created_at: self.created_at,
            expires_at: self.expires_at,
        })
    }
}

/// Stores bans, each of another network, or makes the one in force of its network last longer. What is
/// there then comes back.
pub(super) async fn put(
    conn: &mut AsyncPgConnection,
    bans: &[Ban],
) -> diesel::QueryResult<Vec<Ban>> {
    const SQL: &str = concat!(
        "INSERT INTO bans AS b (id, network, reason, note, made_by, created_at, expires_at)
         SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (network) WHERE ended_at IS NULL DO UPDATE
            SET reason = excluded.reason, note = excluded.note, made_by = excluded.made_by, changed_at = now(),
                created_at = CASE WHEN b.expires_at <= now() THEN excluded.created_at ELSE b.created_at END,
                expires_at = CASE WHEN b.expires_at IS NULL OR excluded.expires_at IS NULL THEN NULL
                                  ELSE greatest(b.expires_at, excluded.expires_at) END
         RETURNING ",
        columns!()
    );
    let rows: Vec<Row> = statement(SQL)
        .bind::<Array<SqlUuid>, _>(column(bans, |ban| ban.id))
        .bind::<Array<Cidr>, _>(column(bans, |ban| ban.network))
        .bind::<Array<Text>, _>(column(bans, |ban| ban.reason.as_str()))
        .bind::<Array<Nullable<Text>>, _>(column(bans, |ban| ban.note.clone()))
        .bind::<Array<Text>, _>(column(bans, |ban| ban.made_by.clone()))
        .bind::<Array<Timestamptz>, _>(column(bans, |ban| ban.created_at))
        .bind::<Array<Nullable<Timestamptz>>, _>(column(bans, |ban| ban.expires_at))
        .load(conn)
        .await?;
    rows.into_iter().map(Row::ban).collect()
}

fn column<T>(bans: &[Ban], of: impl Fn(&Ban) -> T) -> Vec<T> {
    bans.iter().map(of).collect()
}

/// Ends the ban of a network; none where none is in force.
pub(super) async fn lift(
    conn: &mut AsyncPgConnection,
    network: IpNet,
) -> diesel::QueryResult<Option<Ban>> {
    const SQL: &str = concat!(
        "UPDATE bans SET ended_at = now(), changed_at = now()
          WHERE network = $1 AND ended_at IS NULL AND (expires_at IS NULL OR expires_at > now()) RETURNING ",
        columns!()
    );
    let row: Option<Row> = statement(SQL)
        .bind::<Cidr, _>(network)
        .get_result(conn)
        .await
        .optional()?;
    row.map(Row::ban).transpose()
}

/// What changed within `window`; everything in force without one.
pub(super) async fn changes(
    conn: &mut AsyncPgConnection,
    window: Option<Duration>,
) -> diesel::QueryResult<Vec<Change>> {
    const SQL: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM bans
          WHERE CASE WHEN $1::float8 IS NULL THEN ended_at IS NULL AND (expires_at IS NULL OR expires_at > now())
                     ELSE changed_at > now() - make_interval(secs => $1) END
          ORDER BY changed_at"
    );
    let rows: Vec<Row> = statement(SQL)
        .bind::<Nullable<Double>, _>(window.map(|it| it.as_secs_f64()))
        .load(conn)
        .await?;
    rows.into_iter()
        .map(|row| {
            Ok(if row.is_lifted {
                Change::Lifted(row.network)
            } else {
                Change::InForce(row.ban()?)
            })
        })
        .collect()
}

/// One page of those in force, the newest first, and how many there are in all.
pub(super) async fn page(
    conn: &mut AsyncPgConnection,
    (offset, limit): (i64, i64),
) -> diesel::QueryResult<(Vec<Ban>, u64)> {
    const SQL: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM bans
          WHERE ended_at IS NULL AND (expires_at IS NULL OR expires_at > now())
          ORDER BY created_at DESC, id OFFSET $1 LIMIT $2"
    );
    let rows: Vec<Row> = statement(SQL)
        .bind::<BigInt, _>(offset)
        .bind::<BigInt, _>(limit)
        .load(conn)
        .await?;
    let in_force = bans::expires_at
        .is_null()
        .or(bans::expires_at.gt(diesel::dsl::now));
    let total: i64 = bans::table
        .filter(bans::ended_at.is_null().and(in_force))
        .count()
        .get_result(conn)
        .await?;
    let bans: Vec<_> = rows.into_iter().map(Row::ban).collect::<Result<_, _>>()?;
    Ok((bans, u64::try_from(total).unwrap_or(0)))
}

/// Deletes what ended or ran out before a time.
pub(super) async fn forget(
    conn: &mut AsyncPgConnection,
    before: DateTime<Utc>,
    limit: i64,
) -> diesel::QueryResult<usize> {
    const SQL: &str = "
        DELETE FROM bans WHERE id IN (
            SELECT id FROM bans WHERE least(ended_at, expires_at) < $1 LIMIT $2)";
    db::forget(conn, SQL, before, limit).await
}
