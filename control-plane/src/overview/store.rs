//! What replicas say of themselves.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Integer, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::pulse::Pulse;
use crate::db::schema::replica_reports;
use crate::db::statement;

/// Replicas that are listed.
const MOST: i64 = 100;

#[derive(Queryable, Selectable)]
#[diesel(table_name = replica_reports, check_for_backend(diesel::pg::Pg))]
struct Row {
    replica: Uuid,
    at: DateTime<Utc>,
    node_sessions: i32,
    viewers: i32,
    moving_peers: i32,
    upload_bps: i64,
    download_bps: i64,
}

/// Puts a replica's word in the place of its last, and deletes those of replicas that are gone.
pub(super) async fn put(
    connection: &mut AsyncPgConnection,
    replica: Uuid,
    pulse: &Pulse,
) -> QueryResult<()> {
    const SQL: &str = "
        WITH gone AS (
            DELETE FROM replica_reports WHERE at < now() - interval '1 minute' AND replica <> $1
        )
        INSERT INTO replica_reports (replica, at, node_sessions, viewers, moving_peers, upload_bps, download_bps)
        VALUES ($1, now(), $2, $3, $4, $5, $6)
            ON CONFLICT (replica) DO UPDATE
           SET at = excluded.at, node_sessions = excluded.node_sessions, viewers = excluded.viewers,
               moving_peers = excluded.moving_peers, upload_bps = excluded.upload_bps,
               download_bps = excluded.download_bps";
    let small = |count: u64| i32::try_from(count).unwrap_or(i32::MAX);
    let large = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    statement(SQL)
        .bind::<SqlUuid, _>(replica)
        .bind::<Integer, _>(small(pulse.node_sessions))
        .bind::<Integer, _>(small(pulse.viewers))
        .bind::<Integer, _>(small(pulse.moving_peers))
        .bind::<BigInt, _>(large(pulse.upload_bps))
        .bind::<BigInt, _>(large(pulse.download_bps))
        .execute(connection)
        .await
        .map(drop)
}

/// Forgets a replica that stops.
pub(super) async fn remove(connection: &mut AsyncPgConnection, replica: Uuid) -> QueryResult<()> {
    diesel::delete(replica_reports::table.find(replica))
        .execute(connection)
        .await
        .map(drop)
}

/// What was said in the last ten seconds.
pub(super) async fn recent(
    connection: &mut AsyncPgConnection,
) -> QueryResult<Vec<(Uuid, DateTime<Utc>, Pulse)>> {
    let rows: Vec<Row> = replica_reports::table
        .filter(diesel::dsl::sql::<diesel::sql_types::Bool>(
            "at > now() - interval '10 seconds'",
        ))
        .order(replica_reports::replica)
        .limit(MOST)
        .select(Row::as_select())
        .load(connection)
        .await?;
    Ok(rows.into_iter().map(Row::pulse).collect())
}

impl Row {
    fn pulse(self) -> (Uuid, DateTime<Utc>, Pulse) {
        let small = |count: i32| u64::try_from(count).unwrap_or(0);
        let large = |count: i64| u64::try_from(count).unwrap_or(0);
        let pulse = Pulse {
            node_sessions: small(self.node_sessions),
            viewers: small(self.viewers),
            moving_peers: small(self.moving_peers),
            upload_bps: large(self.upload_bps),
            download_bps: large(self.download_bps),
        };
        (self.replica, self.at, pulse)
    }
}
