//! Days that are over, and what is looked at once a minute.

use chrono::NaiveDate;
use diesel::sql_types::{Array, Bool, Date, Double, Integer, Uuid as SqlUuid};
use diesel::{QueryResult, QueryableByName};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::db::statement;

/// Whether this transaction, and no other, now keeps the rollups.
pub(in crate::analytics) async fn lock(connection: &mut AsyncPgConnection) -> QueryResult<bool> {
    const SQL: &str = "
        SELECT pg_try_advisory_xact_lock(8243117906651092037) AS locked
          FROM set_config('lock_timeout', '5s', true)";

    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = Bool)]
        locked: bool,
    }

    let row: Row = statement(SQL).get_result(connection).await?;
    Ok(row.locked)
}

/// The first day that is not closed.
pub(in crate::analytics) async fn closed_until(
    connection: &mut AsyncPgConnection,
) -> QueryResult<NaiveDate> {
    const SQL: &str = "SELECT closed_until FROM rollup_state";

    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = Date)]
        closed_until: NaiveDate,
    }

    let row: Row = statement(SQL).get_result(connection).await?;
    Ok(row.closed_until)
}

/// Sums up the first day that is not closed. Call it in a transaction that holds the lock, once nobody writes
/// the day any more.
pub(in crate::analytics) async fn close_day(
    connection: &mut AsyncPgConnection,
    day: NaiveDate,
) -> QueryResult<()> {
    const CLOSE: &str = "UPDATE rollup_state SET closed_until = $1 + 1 WHERE closed_until = $1";
    const USERS: &str = "
        INSERT INTO usage_days (user_id, day, server_id, bytes_sent, bytes_received, peak_bytes_per_second,
                                connects, ends, connected_seconds)
        SELECT user_id, $1, server_id, sum(bytes_sent), sum(bytes_received), max(peak_bytes_per_second),
               sum(connects), sum(ends), sum(connected_seconds)
          FROM usage_hours
         WHERE hour >= $1::timestamp AT TIME ZONE 'UTC' AND hour < ($1 + 1)::timestamp AT TIME ZONE 'UTC'
         GROUP BY user_id, server_id";
    const SERVERS: &str = "
        INSERT INTO server_days (server_id, day, bytes_sent, bytes_received, peak_bytes_per_second, connects,
                                 ends, connected_seconds, samples, load_sum, load_peak, peers_sum, peers_peak)
        SELECT server_id, $1, sum(bytes_sent), sum(bytes_received), max(peak_bytes_per_second), sum(connects),
               sum(ends), sum(connected_seconds), sum(samples), sum(load_sum), max(load_peak), sum(peers_sum),
               max(peers_peak)
          FROM server_hours
         WHERE hour >= $1::timestamp AT TIME ZONE 'UTC' AND hour < ($1 + 1)::timestamp AT TIME ZONE 'UTC'
         GROUP BY server_id";
    // First, so that whoever deletes a user in the meantime waits.
    for sql in [CLOSE, USERS, SERVERS] {
        statement(sql)
            .bind::<Date, _>(day)
            .execute(connection)
            .await?;
    }
    Ok(())
}

/// Takes down how much these servers have to do (server, load, peers), unless somebody did within the last
/// minute.
pub(in crate::analytics) async fn sample(
    connection: &mut AsyncPgConnection,
    servers: &[(Uuid, f64, u32)],
) -> QueryResult<()> {
    const SQL: &str = "
        WITH due AS (
            UPDATE rollup_state SET sampled_at = now()
             WHERE sampled_at < now() - interval '50 seconds' RETURNING id
        )
        INSERT INTO server_hours AS h (server_id, hour, bytes_sent, bytes_received, peak_bytes_per_second, connects,
                                       ends, connected_seconds, samples, load_sum, load_peak, peers_sum, peers_peak)
        SELECT s.id, date_trunc('hour', now(), 'UTC'), 0, 0, 0, 0, 0, 0, 1, s.load, s.load, s.peers, s.peers
          FROM due, unnest($1, $2, $3) AS s (id, load, peers) ORDER BY s.id
            ON CONFLICT (server_id, hour) DO UPDATE
           SET samples = h.samples + 1, load_sum = h.load_sum + excluded.load_sum,
               load_peak = greatest(h.load_peak, excluded.load_peak),
               peers_sum = h.peers_sum + excluded.peers_sum, peers_peak = greatest(h.peers_peak, excluded.peers_peak)";
    let ids: Vec<_> = servers.iter().map(|(id, ..)| *id).collect();
    let loads: Vec<_> = servers.iter().map(|(_, load, _)| *load).collect();
    let peers = servers.iter().map(|(.., peers)| i32::try_from(*peers));
    let peers: Vec<_> = peers.map(|peers| peers.unwrap_or(i32::MAX)).collect();
    statement(SQL)
        .bind::<Array<SqlUuid>, _>(ids)
        .bind::<Array<Double>, _>(loads)
        .bind::<Array<Integer>, _>(peers)
        .execute(connection)
        .await
        .map(drop)
}
