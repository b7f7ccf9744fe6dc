//! How a connection begins and ends in the database.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::sql_types::{
    Array, BigInt, Bool, Bytea, Date, Double, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel::{OptionalExtension, QueryableByName};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use shared::ids::{ConnectionId, DeviceId, PeerId, ServerId, UserId};
use shared::wireguard::PublicKey;
use uuid::Uuid;

use super::quota::{Rates, Stamp};
use crate::analytics::{gone_columns, roll_up};
use crate::db::statement;
use crate::tunnels::model::EndReason;
use crate::usage::ledger::to_row;

/// A connection to be asked of a node.
#[derive(Debug, Clone)]
pub(in crate::tunnels) struct NewConnection<'a> {
    pub(in crate::tunnels) id: ConnectionId,
    pub(in crate::tunnels) user: UserId,
    pub(in crate::tunnels) server: ServerId,
    pub(in crate::tunnels) device: Option<DeviceId>,
    pub(in crate::tunnels) public_key: PublicKey,
    pub(in crate::tunnels) idempotency_key: Option<&'a str>,
    /// The live connection whose place it takes.
    pub(in crate::tunnels) replaces: Option<ConnectionId>,
    pub(in crate::tunnels) expires_at: Option<DateTime<Utc>>,
    pub(in crate::tunnels) max_connections: i32,
    /// It only stands ready in place of the one it replaces, for so long.
    pub(in crate::tunnels) offered_for: Option<Duration>,
    pub(in crate::tunnels) sealed_psk: &'a [u8],
    pub(in crate::tunnels) rates: Rates,
    pub(in crate::tunnels) lease: Option<NewLease>,
}

/// What a new connection gets of a quota.
#[derive(Debug, Clone, Copy)]
pub(in crate::tunnels) struct NewLease {
    pub(in crate::tunnels) allowance: u64,
    pub(in crate::tunnels) share_at: u64,
    /// How the quota was shared when this was decided.
    pub(in crate::tunnels) stamp: Stamp,
}

/// What became of a new connection.
#[derive(Debug)]
pub(in crate::tunnels) enum Insertion {
    Inserted(DateTime<Utc>),
    /// No place is free.
    Full,
    /// Somebody shared the quota out meanwhile.
    Overtaken,
}

/// A connection that just ended.
#[derive(Debug, Clone, QueryableByName)]
pub(in crate::tunnels) struct Ended {
    #[diesel(sql_type = SqlUuid)]
    user_id: Uuid,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    server_id: Option<Uuid>,
    #[diesel(sql_type = Text)]
    pub(in crate::tunnels) end_reason: String,
}

impl Ended {
    pub(in crate::tunnels) fn user(&self) -> UserId {
        UserId(self.user_id)
    }

    /// The node that has to forget the peer.
    pub(in crate::tunnels) fn server(&self) -> Option<ServerId> {
        self.server_id.map(ServerId)
    }
}

/// Takes one of the plan's places, or that of the connection it replaces, bumps the node's revision
/// and inserts the connection. A place, key or idempotency key that
/// somebody else takes at the same moment is a unique violation of the index of that name.
///
/// An offer takes no place, and leaves that of the connection it would replace, which has to be in
/// use: none when it is not.
pub(in crate::tunnels) async fn insert(
    conn: &mut AsyncPgConnection,
    new: &NewConnection<'_>,
) -> diesel::QueryResult<Insertion> {
    // `taken` joins `rev`, and so is done after it: the node's row is locked first. It reads the
    // place from the snapshot, for RETURNING shows only what was written.
    const SQL: &str = "
        WITH share AS (
            INSERT INTO quota_shares AS z (user_id, version, month, quota_bytes)
            SELECT $2, $15::bigint + 1, $16, $17 WHERE $13::bigint IS NOT NULL
                ON CONFLICT (user_id) DO UPDATE
               SET version = excluded.version, month = excluded.month, quota_bytes = excluded.quota_bytes
             WHERE z.version = excluded.version - 1
         RETURNING z.user_id
        ), free AS (
            SELECT min(n)::smallint AS slot FROM generate_series(1, $9) n
             WHERE NOT EXISTS (SELECT FROM connections c WHERE c.user_id = $2 AND c.user_slot = n
                                  AND c.status IN ('connecting', 'connected'))
        ), rev AS (
            UPDATE nodes SET desired_revision = desired_revision + 1
             WHERE server_id = $3 AND ($13::bigint IS NULL OR EXISTS (SELECT FROM share)) AND CASE
                   WHEN $18::float8 IS NULL THEN $7::uuid IS NOT NULL OR (SELECT slot FROM free) IS NOT NULL
                   ELSE EXISTS (SELECT FROM connections old WHERE old.id = $7 AND old.user_id = $2
                                   AND old.status = 'connected' AND old.user_slot IS NOT NULL) END
         RETURNING desired_revision
        ), taken AS (
            UPDATE connections c
               SET user_slot = NULL, idempotency_key = nullif(c.idempotency_key, $6), updated_at = now()
              FROM connections before, rev
             WHERE $18 IS NULL AND c.id = $7 AND before.id = c.id AND c.user_id = $2 AND c.user_slot IS NOT NULL
               AND c.status IN ('connecting', 'connected')
         RETURNING before.user_slot AS slot
        ), place AS (
            SELECT coalesce((SELECT slot FROM taken), (SELECT slot FROM free)) AS slot
             WHERE $18 IS NULL UNION ALL SELECT NULL WHERE $18 IS NOT NULL
        ), inserted AS (
            INSERT INTO connections (id, user_id, server_id, device_id, client_public_key, idempotency_key,
                                     supersedes, expires_at, peer_id, revision, user_slot, sealed_psk,
                                     download_bps, upload_bps, allowance, allowance_held, share_at, offered_until)
            SELECT $1, $2, $3, $4, $5, $6, $7, $8, rev.desired_revision, rev.desired_revision, place.slot, $10,
                   $11, $12, $13, $13, $14, now() + make_interval(secs => $18)
              FROM rev, place WHERE place.slot IS NOT NULL OR $18 IS NOT NULL
         RETURNING started_at
        )
        SELECT (SELECT started_at FROM inserted) AS started_at,
               $13::bigint IS NULL OR EXISTS (SELECT FROM share) AS is_shared";

    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = Nullable<Timestamptz>)]
        started_at: Option<DateTime<Utc>>,
        #[diesel(sql_type = Bool)]
        is_shared: bool,
    }

    let lease = new.lease.as_ref();
    let row: Row = statement(SQL)
        .bind::<SqlUuid, _>(new.id.0)
        .bind::<SqlUuid, _>(new.user.0)
        .bind::<SqlUuid, _>(new.server.0)
        .bind::<Nullable<SqlUuid>, _>(new.device.map(|device| device.0))
        .bind::<Text, _>(new.public_key.to_base64())
        .bind::<Nullable<Text>, _>(new.idempotency_key)
        .bind::<Nullable<SqlUuid>, _>(new.replaces.map(|old| old.0))
        .bind::<Nullable<Timestamptz>, _>(new.expires_at)
        .bind::<Integer, _>(new.max_connections)
        .bind::<Bytea, _>(new.sealed_psk)
        .bind::<Nullable<BigInt>, _>(new.rates.download.map(to_row))
        .bind::<Nullable<BigInt>, _>(new.rates.upload.map(to_row))
        .bind::<Nullable<BigInt>, _>(lease.map(|lease| to_row(lease.allowance)))
        .bind::<Nullable<BigInt>, _>(lease.map(|lease| to_row(lease.share_at)))
        .bind::<Nullable<BigInt>, _>(lease.map(|lease| lease.stamp.version))
        .bind::<Nullable<Date>, _>(lease.map(|lease| lease.stamp.month))
        .bind::<Nullable<BigInt>, _>(lease.map(|lease| to_row(lease.stamp.quota)))
        .bind::<Nullable<Double>, _>(new.offered_for.map(|life| life.as_secs_f64()))
        .get_result(conn)
        .await?;
    Ok(match row.started_at {
        Some(started_at) => Insertion::Inserted(started_at),
        None if row.is_shared => Insertion::Full,
        None => Insertion::Overtaken,
    })
}

/// Ends what `due` selects (id, server, place, status, reason, the client's claims): every row gets
/// a revision of its own, so that a piece of the log may be cut anywhere. Where a connection that
/// was never acknowledged had taken another's place, the other gets it back. Where something is offered
/// in a connection's stead, it inherits the place, and is no offer any more when its client uses it.
macro_rules! end_sql {
    ($due:expr) => {
        concat!(
            "WITH due AS (", $due, "), numbered AS (
                SELECT due.*, row_number() OVER (PARTITION BY server_id ORDER BY id) AS n FROM due
             ), rev AS (
                UPDATE nodes SET desired_revision = desired_revision + d.n
                  FROM (SELECT server_id, max(n) AS n FROM numbered GROUP BY server_id) d
                 WHERE nodes.server_id = d.server_id
             RETURNING nodes.server_id, nodes.desired_revision - d.n AS before
             ), ended AS (
                UPDATE connections c
                   SET status = CASE WHEN rev.server_id IS NULL THEN 'disconnected' ELSE 'disconnecting' END,
                       revision = coalesce(rev.before + d.n, c.revision), end_reason = d.reason,
                       user_slot = NULL, sealed_psk = NULL, ended_at = now(), updated_at = now(),
                       claimed_bytes_sent = d.claimed_sent, claimed_bytes_received = d.claimed_received
                  FROM numbered d LEFT JOIN rev ON rev.server_id = d.server_id
                 WHERE c.id = d.id AND c.status = d.was
             RETURNING c.id, c.user_id, c.server_id, c.end_reason, c.supersedes, c.client_public_key,
                       c.idempotency_key, d.was, d.slot
             ), returned AS (
                UPDATE connections old
                   SET user_slot = e.slot, updated_at = now(),
                       idempotency_key = CASE WHEN old.client_public_key <> e.client_public_key
                                              THEN e.idempotency_key ELSE old.idempotency_key END
                  FROM ended e
                 WHERE e.was = 'connecting' AND old.id = e.supersedes AND old.user_slot IS NULL
                   AND old.status IN ('connecting', 'connected') AND old.id NOT IN (SELECT id FROM due)
             ), inherited AS (
                UPDATE connections offer
                   SET user_slot = e.slot, updated_at = now(),
                       offered_until = CASE WHEN e.end_reason <> 'moved' AND offer.last_handshake_at IS NULL
                                            THEN offer.offered_until END
                  FROM ended e
                 WHERE e.slot IS NOT NULL AND offer.supersedes = e.id AND offer.offered_until IS NOT NULL
                   AND offer.status IN ('connecting', 'connected') AND offer.id NOT IN (SELECT id FROM due)
             )
             SELECT user_id, server_id, end_reason FROM ended"
        )
    };
}

pub(super) use end_sql;

/// Ends a live connection. None when it is not live.
pub(in crate::tunnels) async fn end(
    conn: &mut AsyncPgConnection,
    connection: ConnectionId,
    reason: EndReason,
    claimed: Option<(u64, u64)>,
) -> diesel::QueryResult<Option<Ended>> {
    const SQL: &str = end_sql!(
        "SELECT id, server_id, user_slot AS slot, status AS was, $2 AS reason,
                $3 AS claimed_sent, $4 AS claimed_received
           FROM connections WHERE id = $1 AND status IN ('connecting', 'connected')"
    );
    statement(SQL)
        .bind::<SqlUuid, _>(connection.0)
        .bind::<Text, _>(reason.as_str())
        .bind::<Nullable<BigInt>, _>(claimed.map(|(sent, _)| to_row(sent)))
        .bind::<Nullable<BigInt>, _>(claimed.map(|(_, received)| to_row(received)))
        .get_result(conn)
        .await
        .optional()
}

/// The same for a peer of a node.
pub(in crate::tunnels) async fn end_peer(
    conn: &mut AsyncPgConnection,
    server: ServerId,
    peer: PeerId,
    reason: EndReason,
) -> diesel::QueryResult<Option<Ended>> {
    const SQL: &str = end_sql!(
        "SELECT id, server_id, user_slot AS slot, status AS was, $3 AS reason,
                NULL::bigint AS claimed_sent, NULL::bigint AS claimed_received
           FROM connections WHERE server_id = $1 AND peer_id = $2 AND status IN ('connecting', 'connected')"
    );
    statement(SQL)
        .bind::<SqlUuid, _>(server.0)
        .bind::<BigInt, _>(to_row(peer.0))
        .bind::<Text, _>(reason.as_str())
        .get_result(conn)
        .await
        .optional()
}

/// The same for all of a person, or all with this key.
pub(in crate::tunnels) async fn end_of(
    conn: &mut AsyncPgConnection,
    user: UserId,
    key: Option<PublicKey>,
    reason: EndReason,
) -> diesel::QueryResult<Vec<Ended>> {
    const SQL: &str = end_sql!(
        "SELECT id, server_id, user_slot AS slot, status AS was, $3 AS reason,
                NULL::bigint AS claimed_sent, NULL::bigint AS claimed_received
           FROM connections
          WHERE user_id = $1 AND ($2::text IS NULL OR client_public_key = $2)
            AND status IN ('connecting', 'connected')"
    );
    statement(SQL)
        .bind::<SqlUuid, _>(user.0)
        .bind::<Nullable<Text>, _>(key.map(|key| key.to_base64()))
        .bind::<Text, _>(reason.as_str())
        .load(conn)
        .await
}

/// The same for at most `limit` of a server.
pub(in crate::tunnels) async fn end_on(
    conn: &mut AsyncPgConnection,
    server: ServerId,
    reason: EndReason,
    limit: i32,
) -> diesel::QueryResult<Vec<Ended>> {
    const SQL: &str = end_sql!(
        "SELECT id, server_id, user_slot AS slot, status AS was, $2 AS reason,
                NULL::bigint AS claimed_sent, NULL::bigint AS claimed_received
           FROM connections WHERE server_id = $1 AND status IN ('connecting', 'connected') LIMIT $3"
    );
    statement(SQL)
        .bind::<SqlUuid, _>(server.0)
        .bind::<Text, _>(reason.as_str())
        .bind::<Integer, _>(limit)
        .load(conn)
        .await
}

/// Ends the connections that share these used-up quotas, unless somebody shared them out meanwhile.
pub(in crate::tunnels) async fn end_used_up(
    conn: &mut AsyncPgConnection,
    of: &[(UserId, Stamp)],
) -> diesel::QueryResult<Vec<Ended>> {
    const SQL: &str = end_sql!(
        "SELECT c.id, c.server_id, c.user_slot AS slot, c.status AS was, $3 AS reason,
                NULL::bigint AS claimed_sent, NULL::bigint AS claimed_received
           FROM unnest($1, $2) AS u (user_id, version)
           JOIN connections c ON c.user_id = u.user_id AND c.status IN ('connecting', 'connected')
           LEFT JOIN quota_shares z ON z.user_id = u.user_id
          WHERE coalesce(z.version, 0) = u.version AND c.allowance < 9223372036854775807"
    );
    let users: Vec<Uuid> = of.iter().map(|(user, _)| user.0).collect();
    let versions: Vec<i64> = of.iter().map(|(_, stamp)| stamp.version).collect();
    statement(SQL)
        .bind::<Array<SqlUuid>, _>(users)
        .bind::<Array<BigInt>, _>(versions)
        .bind::<Text, _>(EndReason::Quota.as_str())
        .load(conn)
        .await
}

/// How many connections of a server are live, and how many its node has not said to be gone.
pub(in crate::tunnels) async fn occupancy(
    conn: &mut AsyncPgConnection,
    server: ServerId,
) -> diesel::QueryResult<(i64, i64)> {
    const SQL: &str = "
        SELECT count(*) FILTER (WHERE status <> 'disconnecting') AS live,
               count(*) FILTER (WHERE status = 'disconnecting') AS leaving
          FROM connections
         WHERE server_id = $1 AND status IN ('connecting', 'connected', 'disconnecting')";

    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = BigInt)]
        live: i64,
        #[diesel(sql_type = BigInt)]
        leaving: i64,
    }

    let row: Row = statement(SQL)
        .bind::<SqlUuid, _>(server.0)
        .get_result(conn)
        .await?;
    Ok((row.live, row.leaving))
}

/// Ends whatever is left on a server whose node will say nothing more. Names the users.
pub(in crate::tunnels) async fn abandon(
    conn: &mut AsyncPgConnection,
    server: ServerId,
) -> diesel::QueryResult<Vec<UserId>> {
    const SQL: &str = concat!(
        "WITH abandoned AS (
            UPDATE connections c
               SET status = 'disconnected', end_reason = coalesce(end_reason, 'server_gone'),
                   user_slot = NULL, ended_at = coalesce(ended_at, now()), updated_at = now()
             WHERE server_id = $1 AND status IN ('connecting', 'connected', 'disconnecting')
         RETURNING c.user_id, c.server_id, 0::bigint AS sent_more, 0::bigint AS received_more,
                   0::bigint AS peak_now, 0 AS begun, ",
        gone_columns!("true"),
        "), ",
        roll_up!("abandoned"),
        " SELECT user_id FROM abandoned"
    );

    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = SqlUuid)]
        user_id: Uuid,
    }

    let rows: Vec<Row> = statement(SQL)
        .bind::<SqlUuid, _>(server.0)
        .load(conn)
        .await?;
    Ok(rows.into_iter().map(|row| UserId(row.user_id)).collect())
}

/// What makes a connection end by itself.
#[derive(Debug)]
pub(in crate::tunnels) struct Due {
    /// A node has this long to acknowledge a peer that nobody waits for before it is asked again.
    pub(in crate::tunnels) unanswered: Duration,
    /// After it was asked again it has this long, if it was there all the time.
    pub(in crate::tunnels) refused: Duration,
    /// Nodes that have been there for so long.
    pub(in crate::tunnels) answering: Vec<ServerId>,
    /// No handshake for this long.
    pub(in crate::tunnels) idle: Duration,
    /// Nodes that have reported long enough for their silence about a peer to mean something.
    pub(in crate::tunnels) reporting: Vec<ServerId>,
    pub(in crate::tunnels) limit: i32,
}

/// Asks the nodes again about connections that nobody waits for any more: the request's process or
/// the acknowledgement was lost. Once for each; then it is [`end_due`]'s. Names the nodes.
pub(in crate::tunnels) async fn ask_again(
    conn: &mut AsyncPgConnection,
    due: &Due,
) -> diesel::QueryResult<Vec<ServerId>> {
    const SQL: &str = "
        WITH due AS (
            SELECT id, server_id, row_number() OVER (PARTITION BY server_id ORDER BY id) AS n
              FROM (SELECT id, server_id FROM connections
                     WHERE status = 'connecting' AND revision = peer_id AND server_id IS NOT NULL
                       AND updated_at < now() - make_interval(secs => $1)
                       AND (SELECT pg_try_advisory_xact_lock(7305790187410063478)) LIMIT $2) found
        ), rev AS (
            UPDATE nodes SET desired_revision = desired_revision + d.n
              FROM (SELECT server_id, max(n) AS n FROM due GROUP BY server_id) d
             WHERE nodes.server_id = d.server_id
         RETURNING nodes.server_id, nodes.desired_revision - d.n AS before
        ), asked AS (
            UPDATE connections c SET revision = rev.before + due.n, updated_at = now()
              FROM due JOIN rev USING (server_id)
             WHERE c.id = due.id AND c.status = 'connecting'
         RETURNING c.server_id
        )
        SELECT DISTINCT server_id FROM asked";

    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = SqlUuid)]
        server_id: Uuid,
    }

    let rows: Vec<Row> = statement(SQL)
        .bind::<Double, _>(due.unanswered.as_secs_f64())
        .bind::<Integer, _>(due.limit)
        .load(conn)
        .await?;
    Ok(rows
        .into_iter()
        .map(|row| ServerId(row.server_id))
        .collect())
}

/// Ends whatever is due. Does nothing while another replica does it.
///
/// A connection without an acknowledgement may be in use: the database may have lost what its node said. While
/// the node is away that cannot be known, so only one that showed no life either ends, as an idle one would.
pub(in crate::tunnels) async fn end_due(
    conn: &mut AsyncPgConnection,
    due: &Due,
) -> diesel::QueryResult<Vec<Ended>> {
    const SQL: &str = end_sql!(
        "SELECT * FROM (
            SELECT c.id, c.server_id, c.user_slot AS slot, c.status AS was, CASE
                    WHEN NOT u.is_active THEN 'suspended'
                    WHEN c.server_id IS NULL THEN 'server_gone'
                    WHEN c.expires_at <= now() THEN 'expired'
                    WHEN c.status = 'connecting' AND c.revision > c.peer_id
                     AND (c.server_id = ANY ($5) AND c.updated_at < now() - make_interval(secs => $1)
                          OR c.last_handshake_at IS NULL AND c.updated_at < now() - make_interval(secs => $2))
                    THEN 'no_answer'
                    WHEN c.status = 'connected' AND c.server_id = ANY ($3)
                     AND greatest(c.last_handshake_at, c.connected_at) < now() - make_interval(secs => $2) THEN 'idle'
                    WHEN c.user_slot IS NULL AND EXISTS (SELECT FROM connections next
                            WHERE next.user_id = c.user_id AND next.supersedes = c.id AND next.status = 'connected'
                              AND next.offered_until IS NULL) THEN 'moved'
                    WHEN c.offered_until < now() - interval '3 seconds' AND c.last_handshake_at IS NULL THEN 'unused'
                    WHEN c.offered_until IS NOT NULL AND c.user_slot IS NULL AND NOT EXISTS (SELECT FROM connections old
                            WHERE old.id = c.supersedes AND old.status IN ('connecting', 'connected')) THEN 'withdrawn'
                   END AS reason,
                   NULL::bigint AS claimed_sent, NULL::bigint AS claimed_received
              FROM connections c JOIN users u ON u.id = c.user_id
             WHERE c.status IN ('connecting', 'connected')
         ) found
         WHERE reason IS NOT NULL AND (SELECT pg_try_advisory_xact_lock(7305790187410063478)) LIMIT $4"
    );
    let uuids = |servers: &[ServerId]| servers.iter().map(|server| server.0).collect();
    let (reporting, answering): (Vec<Uuid>, Vec<Uuid>) =
        (uuids(&due.reporting), uuids(&due.answering));
    statement(SQL)
        .bind::<Double, _>(due.refused.as_secs_f64())
        .bind::<Double, _>(due.idle.as_secs_f64())
        .bind::<Array<SqlUuid>, _>(reporting)
        .bind::<Integer, _>(due.limit)
        .bind::<Array<SqlUuid>, _>(answering)
        .load(conn)
        .await
}
