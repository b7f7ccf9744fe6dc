//! Connections that a smaller plan has no place for.

use diesel::sql_types::{Array, Integer, Text, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use shared::ids::{ConnectionId, UserId};
use uuid::Uuid;

use super::lifecycle::{Ended, end_sql};
use crate::db::statement;
use crate::tunnels::model::EndReason;

/// Takes every lock that a person's connections need, in the order in which all take them: several
/// statements may follow in the same transaction.
pub(in crate::tunnels) async fn hold(
    conn: &mut AsyncPgConnection,
    user: UserId,
) -> diesel::QueryResult<()> {
    const SHARES: &str = "SELECT FROM quota_shares WHERE user_id = $1 FOR NO KEY UPDATE";
    const NODES: &str = "
        SELECT FROM nodes
         WHERE server_id IN (SELECT server_id FROM connections
                              WHERE user_id = $1 AND status IN ('connecting', 'connected'))
         ORDER BY server_id FOR NO KEY UPDATE";
    for sql in [SHARES, NODES] {
        statement(sql)
            .bind::<SqlUuid, _>(user.0)
            .execute(conn)
            .await?;
    }
    Ok(())
}

/// Ends these of a person's connections.
pub(in crate::tunnels) async fn end_unfit(
    conn: &mut AsyncPgConnection,
    user: UserId,
    connections: &[ConnectionId],
) -> diesel::QueryResult<Vec<Ended>> {
    const SQL: &str = end_sql!(
        "SELECT id, server_id, user_slot AS slot, status AS was, $3 AS reason,
                NULL::bigint AS claimed_sent, NULL::bigint AS claimed_received
           FROM connections
          WHERE user_id = $1 AND id = ANY ($2) AND status IN ('connecting', 'connected')"
    );
    let connections: Vec<Uuid> = connections.iter().map(|connection| connection.0).collect();
    statement(SQL)
        .bind::<SqlUuid, _>(user.0)
        .bind::<Array<SqlUuid>, _>(connections)
        .bind::<Text, _>(EndReason::Plan.as_str())
        .load(conn)
        .await
}

/// Gives the connections in places beyond `places` the free ones below, so that the numbers go on to hold
/// the plan's limit.
pub(in crate::tunnels) async fn renumber(
    conn: &mut AsyncPgConnection,
    user: UserId,
    places: i32,
) -> diesel::QueryResult<()> {
    const SQL: &str = "
        WITH beyond AS (
            SELECT id, row_number() OVER (ORDER BY id) AS n FROM connections
             WHERE user_id = $1 AND status IN ('connecting', 'connected') AND user_slot > $2
        ), free AS (
            SELECT place::smallint, row_number() OVER (ORDER BY place) AS n FROM generate_series(1, $2) place
             WHERE NOT EXISTS (SELECT FROM connections c WHERE c.user_id = $1 AND c.user_slot = place
                                  AND c.status IN ('connecting', 'connected'))
        )
        UPDATE connections c SET user_slot = free.place
          FROM beyond JOIN free USING (n) WHERE c.id = beyond.id";
    statement(SQL)
        .bind::<SqlUuid, _>(user.0)
        .bind::<Integer, _>(places)
        .execute(conn)
        .await
        .map(drop)
}
