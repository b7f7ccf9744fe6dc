//! Where the last round trips are kept.

use diesel::sql_types::{Array, BigInt, Integer, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::Measured;
use crate::db::statement;
use crate::usage::ledger::to_row;

/// Stores them with their connections. Rows that somebody is writing are passed over: the next one comes soon.
pub(super) async fn put(
    connection: &mut AsyncPgConnection,
    measured: &[Measured],
) -> diesel::QueryResult<()> {
    const SQL: &str = "
        WITH m AS (
            SELECT c.id, r.micros FROM unnest($1, $2, $3) AS r (server_id, peer_id, micros)
              JOIN connections c ON c.server_id = r.server_id AND c.peer_id = r.peer_id
             WHERE c.status IN ('connecting', 'connected')
               FOR NO KEY UPDATE OF c SKIP LOCKED
        )
        UPDATE connections c SET round_trip_us = m.micros FROM m WHERE c.id = m.id";
    let servers: Vec<Uuid> = measured.iter().map(|it| it.server.0).collect();
    let peers: Vec<i64> = measured.iter().map(|it| to_row(it.peer.0)).collect();
    let micros = |it: &Measured| i32::try_from(it.micros).unwrap_or(i32::MAX);
    statement(SQL)
        .bind::<Array<SqlUuid>, _>(servers)
        .bind::<Array<BigInt>, _>(peers)
        .bind::<Array<Integer>, _>(measured.iter().map(micros).collect::<Vec<_>>())
        .execute(connection)
        .await
        .map(drop)
}
