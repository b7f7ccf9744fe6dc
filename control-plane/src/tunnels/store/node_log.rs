//! A node's desired peers, read by revision, and what the node said about them.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use diesel::QueryableByName;
use diesel::result::Error;
use diesel::sql_types::{
    Array, BigInt, Bool, Bytea, Inet, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use ipnet::IpNet;
use shared::ids::{ConnectionId, PeerId, Revision, ServerId, UserId};
use shared::protocol::{Change, Limits, Outcome, Peer, PeerResult, StateHash};
use uuid::Uuid;

use super::{addresses_from_row, corrupt, key_from_row};
use crate::analytics::{gone_columns, roll_up};
use crate::db::statement;
use crate::fleet::desired::{Changes, Fence, Snapshot};
use crate::secrets::KeyRing;
use crate::tunnels::model::{Status, failure_word};
use crate::tunnels::psk;
use crate::usage::handshake_time;
use crate::usage::ledger::{charge_quota, fold_counters, from_row, to_row};

/// One row of the log. The node's revision comes with each, from the same snapshot; the rest is null
/// where the node has no row.
#[derive(QueryableByName)]
struct LogRow {
    #[diesel(sql_type = BigInt)]
    desired_revision: i64,
    #[diesel(sql_type = Nullable<BigInt>)]
    revision: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    peer_id: Option<i64>,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    id: Option<Uuid>,
    #[diesel(sql_type = Nullable<Text>)]
    status: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    client_public_key: Option<String>,
    #[diesel(sql_type = Nullable<Inet>)]
    client_ip: Option<IpNet>,
    #[diesel(sql_type = Nullable<Inet>)]
    client_ipv6: Option<IpNet>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    expires_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Bytea>)]
    sealed_psk: Option<Vec<u8>>,
    #[diesel(sql_type = Nullable<BigInt>)]
    download_bps: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    upload_bps: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    allowance: Option<i64>,
}

macro_rules! log_sql {
    ($which:literal) => {
        concat!(
            "SELECT n.desired_revision, c.revision, c.peer_id, c.id, c.status, c.client_public_key,
                    c.client_ip, c.client_ipv6, c.expires_at, c.sealed_psk, c.download_bps, c.upload_bps,
                    c.allowance
               FROM nodes n LEFT JOIN LATERAL (SELECT * FROM connections c WHERE c.server_id = n.server_id AND ",
            $which,
            ") c ON true WHERE n.server_id = $1"
        )
    };
}

/// None for a server that has no node.
pub(in crate::tunnels) async fn revision(
    conn: &mut AsyncPgConnection,
    server: ServerId,
) -> diesel::QueryResult<Option<Revision>> {
    use crate::db::schema::nodes;
    use diesel::prelude::*;

    let revision: Option<i64> = diesel_async::RunQueryDsl::first(
        nodes::table
            .filter(nodes::server_id.eq(server.0))
            .select(nodes::desired_revision),
        conn,
    )
    .await
    .optional()?;
    Ok(revision.map(|revision| Revision(from_row(revision))))
}

pub(in crate::tunnels) async fn snapshot(
    conn: &mut AsyncPgConnection,
    keys: &KeyRing,
    server: ServerId,
) -> diesel::QueryResult<Option<Snapshot>> {
    const SQL: &str = log_sql!("c.status IN ('connecting', 'connected')");
    let rows: Vec<LogRow> = statement(SQL)
        .bind::<SqlUuid, _>(server.0)
        .load(conn)
        .await?;
    let [first, ..] = rows.as_slice() else {
        return Ok(None);
    };
    let revision = Revision(from_row(first.desired_revision));
    let mut peers = Vec::with_capacity(rows.len());
    for change in rows.iter().filter_map(|row| change(keys, row).transpose()) {
        if let Change::Upsert(peer) = change? {
            peers.push(peer);
        }
    }
    Ok(Some(Snapshot { revision, peers }))
}

/// What is past `after`, oldest first, at most `limit` changes.
pub(in crate::tunnels) async fn changes(
    conn: &mut AsyncPgConnection,
    keys: &KeyRing,
    server: ServerId,
    after: Revision,
    limit: usize,
) -> diesel::QueryResult<Option<Changes>> {
    const SQL: &str = log_sql!("c.revision > $2 ORDER BY c.revision LIMIT $3");
    let rows: Vec<LogRow> = statement(SQL)
        .bind::<SqlUuid, _>(server.0)
        .bind::<BigInt, _>(to_row(after.0))
        .bind::<BigInt, _>(i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1))
        .load(conn)
        .await?;
    let [first, ..] = rows.as_slice() else {
        return Ok(None);
    };
    let more = rows.len() > limit;
    let kept = rows.iter().take(limit);
    let end = if more {
        kept.clone().next_back().and_then(|row| row.revision)
    } else {
        Some(first.desired_revision)
    };
    Ok(Some(Changes {
        to: end.map_or(after, |end| Revision(from_row(end))),
        changes: kept
            .filter_map(|row| change(keys, row).transpose())
            .collect::<Result<_, _>>()?,
        more,
    }))
}

/// What the node was told up to `up_to` and never acknowledged, lowered allowances included.
pub(in crate::tunnels) async fn unacknowledged(
    conn: &mut AsyncPgConnection,
    keys: &KeyRing,
    server: ServerId,
    up_to: Revision,
) -> diesel::QueryResult<Vec<Change>> {
    const SQL: &str = log_sql!(
        "(c.status IN ('connecting', 'disconnecting') OR c.status = 'connected' AND c.allowance_held > c.allowance)
          AND c.revision <= $2 ORDER BY c.revision"
    );
    let rows: Vec<LogRow> = statement(SQL)
        .bind::<SqlUuid, _>(server.0)
        .bind::<BigInt, _>(to_row(up_to.0))
        .load(conn)
        .await?;
    rows.iter()
        .filter_map(|row| change(keys, row).transpose())
        .collect()
}

/// The hash over the peers that the node shall have had at `at`: those that lived then and live
/// still, and those that ended since.
pub(in crate::tunnels) async fn fingerprint(
    conn: &mut AsyncPgConnection,
    server: ServerId,
    at: Revision,
) -> diesel::QueryResult<StateHash> {
    const SQL: &str = "
        SELECT peer_id, client_public_key FROM connections
         WHERE server_id = $1 AND peer_id <= $2 AND status IN ('connecting', 'connected')
         UNION ALL
        SELECT peer_id, client_public_key FROM connections
         WHERE server_id = $1 AND peer_id <= $2 AND revision > $2 AND status IN ('disconnecting', 'disconnected')";

    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = BigInt)]
        peer_id: i64,
        #[diesel(sql_type = Text)]
        client_public_key: String,
    }

    let rows: Vec<Row> = statement(SQL)
        .bind::<SqlUuid, _>(server.0)
        .bind::<BigInt, _>(to_row(at.0))
        .load(conn)
        .await?;
    let mut hash = StateHash::default();
    for row in rows {
        hash.add(
            PeerId(from_row(row.peer_id)),
            &key_from_row(&row.client_public_key)?,
        );
    }
    Ok(hash)
}

fn change(keys: &KeyRing, row: &LogRow) -> diesel::QueryResult<Option<Change>> {
    let (Some(id), Some(peer), Some(status), Some(key)) =
        (row.id, row.peer_id, &row.status, &row.client_public_key)
    else {
        return Ok(None);
    };
    let peer = PeerId(from_row(peer));
    let status = Status::parse(status).ok_or_else(|| corrupt("a connection status"))?;
    if !status.is_live() {
        return Ok(Some(Change::Remove { peer }));
    }
    let connection = ConnectionId(id);
    let sealed = row.sealed_psk.as_deref();
    // A peer without its key would lose its client, so that a key that does not open stops the reading.
    let preshared_key = sealed
        .map(|sealed| psk::open(keys, connection, sealed))
        .transpose()
        .map_err(|error| Error::DeserializationError(Box::new(error)))?;
    Ok(Some(Change::Upsert(Peer {
        peer,
        connection,
        public_key: key_from_row(key)?,
        preshared_key,
        addresses: addresses_from_row(row.client_ip, row.client_ipv6),
        not_after: row.expires_at,
        limits: Limits {
            download_bps: row.download_bps.map(from_row),
            upload_bps: row.upload_bps.map(from_row),
            allowance: row.allowance.map(from_row),
        },
    })))
}

/// A connection that a node's answer moved on.
#[derive(Debug, Clone, QueryableByName)]
pub(in crate::tunnels) struct Acked {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    user_id: Uuid,
    #[diesel(sql_type = BigInt)]
    peer_id: i64,
    #[diesel(sql_type = Bool)]
    is_quota_due: bool,
}

impl Acked {
    /// Whether the person's quota is to be shared anew.
    pub(in crate::tunnels) fn is_quota_due(&self) -> bool {
        self.is_quota_due
    }

    pub(in crate::tunnels) fn connection(&self) -> ConnectionId {
        ConnectionId(self.id)
    }

    pub(in crate::tunnels) fn user(&self) -> UserId {
        UserId(self.user_id)
    }

    pub(in crate::tunnels) fn peer(&self) -> PeerId {
        PeerId(from_row(self.peer_id))
    }
}

/// Stores a node's answers, unless a newer session took over, and returns the connections that
/// they moved on. The hour gets what that moved, began and ended. What ended meanwhile is not brought back by a late "active". A failed connect
/// gives back the place that it had taken from another.
///
/// An "active" does not wait for the disk: [`super::ask_again`] has the node repeat one that a crash
/// of the database took back, and a client waits for this. Final counters do wait; the node forgets
/// them once they are acknowledged.
///
/// `up_to` is the revision that the node has applied: whoever it has applied has no larger allowance than
/// the row. `consumed` is what it said of each result's peer before. Of a peer that is gone, what it moved since
/// then counts as well, as far as it was allowed.
pub(in crate::tunnels) async fn acknowledge(
    conn: &mut AsyncPgConnection,
    server: ServerId,
    fence: Fence,
    up_to: Revision,
    results: &[PeerResult],
    consumed: Vec<Option<u64>>,
) -> diesel::QueryResult<Vec<Acked>> {
    const SQL: &str = concat!(
        "WITH reported AS (
            SELECT * FROM unnest($3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
                AS r (peer_id, outcome, v4, v6, reason, generation, sent, received, handshake, used)
             WHERE EXISTS (SELECT FROM nodes WHERE server_id = $1 AND session_fence = $2)
         ), f AS (
            SELECT c.id, c.user_slot AS slot, c.status AS was, c.consumed AS consumed_before,
                   c.allowance_held AS held_before, c.bytes_sent AS sent_before,
                   c.bytes_received AS received_before, r.*
              FROM reported r JOIN connections c ON c.server_id = $1 AND c.peer_id = r.peer_id
             WHERE CASE r.outcome
                   WHEN 'active' THEN c.status = 'connecting' OR (c.status = 'connected'
                        AND ((c.client_ip, c.client_ipv6) IS DISTINCT FROM (r.v4, r.v6)
                             OR c.allowance_held > c.allowance AND c.revision <= $13))
                   WHEN 'removed' THEN c.status = 'disconnecting'
                   ELSE c.status <> 'disconnected' END
             ORDER BY c.id FOR NO KEY UPDATE OF c
         ), acked AS (
            UPDATE connections c SET ",
        fold_counters!(),
        ",         status = CASE f.outcome WHEN 'active' THEN 'connected' ELSE 'disconnected' END,
                   client_ip = CASE f.outcome WHEN 'active' THEN f.v4 ELSE c.client_ip END,
                   client_ipv6 = CASE f.outcome WHEN 'active' THEN f.v6 ELSE c.client_ipv6 END,
                   user_slot = CASE f.outcome WHEN 'active' THEN c.user_slot END,
                   sealed_psk = CASE f.outcome WHEN 'active' THEN c.sealed_psk END,
                   allowance_held = CASE WHEN f.outcome = 'active' AND c.revision <= $13 THEN c.allowance
                                         ELSE c.allowance_held END,
                   consumed = greatest(c.consumed, CASE f.outcome
                       WHEN 'active' THEN f.used
                       WHEN 'removed' THEN least(c.allowance_held, coalesce(f.used, c.consumed + CASE
                           WHEN f.generation > c.counter_generation THEN f.sent + f.received
                           WHEN f.generation = c.counter_generation
                           THEN greatest(f.sent - c.generation_sent, 0) + greatest(f.received - c.generation_received, 0)
                           ELSE 0 END)) END),
                   connected_at = CASE f.outcome WHEN 'active' THEN coalesce(c.connected_at, now()) ELSE c.connected_at END,
                   ended_at = CASE f.outcome WHEN 'active' THEN NULL ELSE coalesce(c.ended_at, now()) END,
                   end_reason = coalesce(c.end_reason, f.reason),
                   last_handshake_at = greatest(c.last_handshake_at, f.handshake),
                   updated_at = now()
              FROM f WHERE c.id = f.id AND c.status = f.was
         RETURNING c.id, c.user_id, c.server_id, c.peer_id, c.supersedes, c.client_public_key, c.idempotency_key,
                   f.slot, f.was, f.outcome, c.allowance, c.consumed - f.consumed_before AS moved,
                   coalesce(c.allowance < 9223372036854775807 AND (f.outcome <> 'active' OR c.consumed >= c.share_at
                                OR c.allowance_held < f.held_before), false) AS is_quota_due,
                   c.bytes_sent - f.sent_before AS sent_more, c.bytes_received - f.received_before AS received_more,
                   0::bigint AS peak_now,
                   CASE WHEN f.was = 'connecting' AND f.outcome = 'active' THEN 1 ELSE 0 END AS begun, ",
        gone_columns!("f.outcome <> 'active'"),
        "), ",
        roll_up!("acked"),
        ", charged AS (",
        charge_quota!("acked"),
        "), returned AS (
            UPDATE connections old
               SET user_slot = a.slot, updated_at = now(),
                   idempotency_key = CASE WHEN old.client_public_key <> a.client_public_key
                                          THEN a.idempotency_key ELSE old.idempotency_key END
              FROM acked a
             WHERE a.outcome = 'failed' AND a.was = 'connecting' AND old.id = a.supersedes
               AND old.user_slot IS NULL AND old.status IN ('connecting', 'connected')
               AND old.id NOT IN (SELECT id FROM f)
         )
         SELECT id, user_id, peer_id, is_quota_due FROM acked
          CROSS JOIN (SELECT CASE WHEN $14 THEN set_config('synchronous_commit', 'off', true) END) relaxed"
    );
    let repeatable = results
        .iter()
        .all(|result| matches!(result.outcome, Outcome::Active { .. }));
    let mut columns = Columns::default();
    for (result, consumed) in results.iter().zip(consumed) {
        columns.push(result, consumed);
    }
    statement(SQL)
        .bind::<SqlUuid, _>(server.0)
        .bind::<BigInt, _>(fence.0)
        .bind::<Array<BigInt>, _>(columns.peers)
        .bind::<Array<Text>, _>(columns.outcomes)
        .bind::<Array<Nullable<Inet>>, _>(columns.v4)
        .bind::<Array<Nullable<Inet>>, _>(columns.v6)
        .bind::<Array<Nullable<Text>>, _>(columns.reasons)
        .bind::<Array<Nullable<BigInt>>, _>(columns.generations)
        .bind::<Array<Nullable<BigInt>>, _>(columns.sent)
        .bind::<Array<Nullable<BigInt>>, _>(columns.received)
        .bind::<Array<Nullable<Timestamptz>>, _>(columns.handshakes)
        .bind::<Array<Nullable<BigInt>>, _>(columns.consumed)
        .bind::<BigInt, _>(to_row(up_to.0))
        .bind::<Bool, _>(repeatable)
        .load(conn)
        .await
}

/// The answers as the arrays of one statement.
#[derive(Default)]
struct Columns {
    peers: Vec<i64>,
    outcomes: Vec<&'static str>,
    v4: Vec<Option<IpNet>>,
    v6: Vec<Option<IpNet>>,
    reasons: Vec<Option<&'static str>>,
    generations: Vec<Option<i64>>,
    sent: Vec<Option<i64>>,
    received: Vec<Option<i64>>,
    handshakes: Vec<Option<DateTime<Utc>>>,
    consumed: Vec<Option<i64>>,
}

impl Columns {
    fn push(&mut self, result: &PeerResult, consumed: Option<u64>) {
        let (outcome, addresses, reason, counters) = match &result.outcome {
            Outcome::Active { addresses } => ("active", Some(*addresses), None, None),
            Outcome::Removed { counters } => ("removed", None, None, *counters),
            Outcome::Failed { reason } => ("failed", None, Some(failure_word(*reason)), None),
            Outcome::Unknown => return,
        };
        let host = |address: IpAddr| IpNet::from(address);
        self.peers.push(to_row(result.peer.0));
        self.consumed.push(consumed.map(to_row));
        self.outcomes.push(outcome);
        self.v4.push(addresses.map(|it| host(it.v4.into())));
        self.v6
            .push(addresses.and_then(|it| it.v6).map(|v6| host(v6.into())));
        self.reasons.push(reason);
        self.generations
            .push(counters.map(|it| i64::from(it.generation.0)));
        self.sent.push(counters.map(|it| to_row(it.sent)));
        self.received.push(counters.map(|it| to_row(it.received)));
        self.handshakes
            .push(counters.as_ref().and_then(handshake_time));
    }
}
