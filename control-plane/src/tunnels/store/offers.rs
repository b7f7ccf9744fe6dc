//! What is offered in place of which connection.

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::QueryableByName;
use diesel::sql_types::{
    Array, Bool, Double, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use shared::ids::{ConnectionId, DeviceId, ServerId, UserId};
use uuid::Uuid;

use super::key_from_row;
use super::lifecycle::{Ended, end_sql};
use crate::db::statement;
use crate::fleet::Trouble;
use crate::tunnels::offers::Candidate;

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    user_id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    server_id: Uuid,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    device_id: Option<Uuid>,
    #[diesel(sql_type = Text)]
    client_public_key: String,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    offer_tried_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Double>)]
    tried_ago: Option<f64>,
    #[diesel(sql_type = Nullable<Bool>)]
    offer_made: Option<bool>,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    offer: Option<Uuid>,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    offer_server: Option<Uuid>,
}

/// Of these connections, those that their clients use, in order.
pub(in crate::tunnels) async fn candidates(
    conn: &mut AsyncPgConnection,
    connections: &[ConnectionId],
) -> diesel::QueryResult<Vec<Candidate>> {
    const SQL: &str = "
        SELECT c.id, c.user_id, c.server_id, c.device_id, c.client_public_key, c.offer_tried_at,
               EXTRACT(EPOCH FROM now() - c.offer_tried_at)::float8 AS tried_ago, c.offer_made,
               offer.id AS offer, offer.server_id AS offer_server
          FROM connections c
          LEFT JOIN connections offer ON offer.supersedes = c.id AND offer.offered_until IS NOT NULL
                AND offer.status IN ('connecting', 'connected')
         WHERE c.id = ANY ($1) AND c.status = 'connected' AND c.server_id IS NOT NULL
           AND c.user_slot IS NOT NULL AND c.offered_until IS NULL
         ORDER BY c.id";
    let ids: Vec<_> = connections.iter().map(|connection| connection.0).collect();
    let rows: Vec<Row> = statement(SQL)
        .bind::<Array<SqlUuid>, _>(ids)
        .load(conn)
        .await?;
    rows.into_iter().map(candidate).collect()
}

fn candidate(row: Row) -> diesel::QueryResult<Candidate> {
    let offer_server = row.offer_server.map(ServerId);
    Ok(Candidate {
        id: ConnectionId(row.id),
        user: UserId(row.user_id),
        server: ServerId(row.server_id),
        device: row.device_id.map(DeviceId),
        public_key: key_from_row(&row.client_public_key)?,
        tried_at: row.offer_tried_at,
        tried_ago: Duration::try_from_secs_f64(row.tried_ago.unwrap_or_default().max(0.0))
            .unwrap_or(Duration::MAX),
        made: row.offer_made,
        offer: row.offer.map(|offer| (ConnectionId(offer), offer_server)),
    })
}

/// Takes the right to make offers for these connections; names those of which nobody else took it
/// since they were read.
pub(in crate::tunnels) async fn claim(
    conn: &mut AsyncPgConnection,
    claims: &[(&Candidate, Trouble)],
) -> diesel::QueryResult<HashSet<ConnectionId>> {
    const SQL: &str = "
        UPDATE connections c SET offer_tried_at = now(), offer_reason = claim.reason, offer_made = NULL
          FROM unnest($1, $2, $3) AS claim (id, seen, reason)
         WHERE c.id = claim.id AND c.offer_tried_at IS NOT DISTINCT FROM claim.seen
           AND c.status = 'connected' AND c.user_slot IS NOT NULL
        RETURNING c.id";

    #[derive(QueryableByName)]
    struct Claimed {
        #[diesel(sql_type = SqlUuid)]
        id: Uuid,
    }

    if claims.is_empty() {
        return Ok(HashSet::new());
    }
    let ids: Vec<_> = claims.iter().map(|(it, _)| it.id.0).collect();
    let seen: Vec<_> = claims.iter().map(|(it, _)| it.tried_at).collect();
    let reasons: Vec<_> = claims.iter().map(|(_, why)| why.as_str()).collect();
    let claimed: Vec<Claimed> = statement(SQL)
        .bind::<Array<SqlUuid>, _>(ids)
        .bind::<Array<Nullable<Timestamptz>>, _>(seen)
        .bind::<Array<Text>, _>(reasons)
        .load(conn)
        .await?;
    Ok(claimed.iter().map(|row| ConnectionId(row.id)).collect())
}

/// Stores whether an offer was made for each of these.
pub(in crate::tunnels) async fn conclude(
    conn: &mut AsyncPgConnection,
    made: &[(ConnectionId, bool)],
) -> diesel::QueryResult<()> {
    const SQL: &str = "
        UPDATE connections c SET offer_made = outcome.made
          FROM unnest($1, $2) AS outcome (id, made) WHERE c.id = outcome.id";
    let (ids, made): (Vec<_>, Vec<_>) = made.iter().map(|(it, made)| (it.0, *made)).unzip();
    statement(SQL)
        .bind::<Array<SqlUuid>, _>(ids)
        .bind::<Array<Bool>, _>(made)
        .execute(conn)
        .await?;
    Ok(())
}

/// Whether any client shook hands with what was offered to it.
pub(in crate::tunnels) async fn offers_are_used(
    conn: &mut AsyncPgConnection,
) -> diesel::QueryResult<bool> {
    const SQL: &str = "
        SELECT EXISTS (SELECT FROM connections
                        WHERE offered_until IS NOT NULL AND status IN ('connecting', 'connected')
                          AND last_handshake_at IS NOT NULL) AS used";

    #[derive(QueryableByName)]
    struct Used {
        #[diesel(sql_type = Bool)]
        used: bool,
    }

    let row: Used = statement(SQL).get_result(conn).await?;
    Ok(row.used)
}

/// Ends the connections whose client went over to what was offered to it, which takes over the place.
/// Does nothing while another replica does it. One whose place is just being taken by a connect has
/// to wait for that.
pub(in crate::tunnels) async fn end_moved(
    conn: &mut AsyncPgConnection,
    limit: i32,
) -> diesel::QueryResult<Vec<Ended>> {
    const SQL: &str = end_sql!(
        "SELECT old.id, old.server_id, old.user_slot AS slot, old.status AS was, 'moved' AS reason,
                NULL::bigint AS claimed_sent, NULL::bigint AS claimed_received
           FROM connections offer JOIN connections old ON old.id = offer.supersedes
          WHERE offer.offered_until IS NOT NULL AND offer.status IN ('connecting', 'connected')
            AND offer.last_handshake_at IS NOT NULL
            AND old.status IN ('connecting', 'connected') AND old.user_slot IS NOT NULL
            AND (SELECT pg_try_advisory_xact_lock(7305790187410063478)) LIMIT $1"
    );
    statement(SQL).bind::<Integer, _>(limit).load(conn).await
}

/// What was offered and has its place already is no offer any more once it is used. Names the users.
pub(in crate::tunnels) async fn keep_used(
    conn: &mut AsyncPgConnection,
) -> diesel::QueryResult<Vec<UserId>> {
    const SQL: &str = "
        UPDATE connections SET offered_until = NULL
         WHERE offered_until IS NOT NULL AND status IN ('connecting', 'connected')
           AND last_handshake_at IS NOT NULL AND user_slot IS NOT NULL
        RETURNING user_id";

    #[derive(QueryableByName)]
    struct Kept {
        #[diesel(sql_type = SqlUuid)]
        user_id: Uuid,
    }

    let kept: Vec<Kept> = statement(SQL).load(conn).await?;
    Ok(kept.iter().map(|row| UserId(row.user_id)).collect())
}

/// The client connected to the offer. False where it has no place.
pub(in crate::tunnels) async fn accept(
    conn: &mut AsyncPgConnection,
    offer: ConnectionId,
) -> diesel::QueryResult<bool> {
    const SQL: &str = "
        UPDATE connections SET offered_until = NULL
         WHERE id = $1 AND status IN ('connecting', 'connected') AND user_slot IS NOT NULL";
    let accepted = statement(SQL)
        .bind::<SqlUuid, _>(offer.0)
        .execute(conn)
        .await?;
    Ok(accepted > 0)
}
