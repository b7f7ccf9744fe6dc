//! What usage reads and writes in Postgres.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use diesel::QueryableByName;
use diesel::sql_types::{Array, BigInt, Bool, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use shared::ids::{ConnectionId, Generation, PeerId, ServerId, UserId};
use shared::protocol::PeerCounters;
use uuid::Uuid;

use super::ledger::{Ledger, charge_quota, fold_counters, from_row, to_row};
use super::news::{Offer, Offers};
use super::watch::Watched;
use crate::analytics::roll_up;
use crate::db::statement;
use crate::fleet::Trouble;

/// One peer's counters and what it used of its quota, to be stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Report {
    pub(super) server: ServerId,
    pub(super) peer: PeerId,
    /// None where only the quota moved.
    pub(super) counters: Option<PeerCounters>,
    /// Since the connection began, as far as this replica knows.
    pub(super) peak: u64,
    /// Since the last report that was stored.
    pub(super) recent_peak: u64,
    pub(super) consumed: Option<u64>,
}

/// One peer whose counters are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) server: ServerId,
    pub(super) peer: PeerId,
    /// The node no longer has the peer.
    pub(super) ended: bool,
    /// What the peer may use before its user's quota is shared anew.
    pub(super) share_at: Option<u64>,
    /// Whose quota is to be shared anew.
    pub(super) quota_due: Option<UserId>,
}

/// Stores the reports, each peer once, by [`fold_counters!`], and adds what was used of quotas to the
/// month, and what moved to the hour. Connections that somebody is writing are passed over, so that
/// this statement waits for none of them. Leaves `updated_at` alone: it is indexed,
/// and the row could not be updated in place.
pub(super) async fn flush(
    conn: &mut AsyncPgConnection,
    reports: &[Report],
) -> diesel::QueryResult<Vec<Stored>> {
    const SQL: &str = concat!(
        "WITH reported AS (
            SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9)
              AS r (server_id, peer_id, generation, sent, received, handshake, peak, used, recent_peak)
         ), f AS (
            SELECT c.id, c.consumed AS consumed_before, c.bytes_sent AS sent_before,
                   c.bytes_received AS received_before, r.* FROM reported r
              JOIN connections c ON c.server_id = r.server_id AND c.peer_id = r.peer_id
               FOR NO KEY UPDATE OF c SKIP LOCKED
         ), stored AS (
            UPDATE connections c SET ",
        fold_counters!(),
        ",         last_handshake_at = greatest(c.last_handshake_at, f.handshake),
                   peak_bytes_per_second = greatest(c.peak_bytes_per_second, f.peak),
                   consumed = greatest(c.consumed, f.used)
              FROM f WHERE c.id = f.id
         RETURNING f.server_id, f.peer_id, c.user_id, c.status, c.allowance,
                   c.consumed - f.consumed_before AS moved, c.consumed >= c.share_at AS is_due, c.share_at,
                   c.bytes_sent - f.sent_before AS sent_more, c.bytes_received - f.received_before AS received_more,
                   f.recent_peak AS peak_now, 0 AS begun, 0 AS gone, 0::bigint AS seconds
         ), ",
        roll_up!("stored"),
        ", charged AS (",
        charge_quota!("stored"),
        ")
         SELECT server_id, peer_id, status = 'disconnected' AS ended, share_at,
                CASE WHEN moved > 0 AND is_due AND status IN ('connecting', 'connected') THEN user_id END AS quota_due
           FROM stored"
    );

    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = SqlUuid)]
        server_id: Uuid,
        #[diesel(sql_type = BigInt)]
        peer_id: i64,
        #[diesel(sql_type = Bool)]
        ended: bool,
        #[diesel(sql_type = Nullable<BigInt>)]
        share_at: Option<i64>,
        #[diesel(sql_type = Nullable<SqlUuid>)]
        quota_due: Option<Uuid>,
    }

    let counted = |value: fn(&PeerCounters) -> u64| -> Vec<Option<i64>> {
        let value = |report: &Report| report.counters.as_ref().map(|it| to_row(value(it)));
        reports.iter().map(value).collect()
    };
    let column = |value: fn(&Report) -> u64| -> Vec<i64> {
        reports.iter().map(|report| to_row(value(report))).collect()
    };
    let used = |report: &Report| report.consumed.map(to_row);
    let servers: Vec<Uuid> = reports.iter().map(|report| report.server.0).collect();
    let handshakes: Vec<Option<DateTime<Utc>>> = reports
        .iter()
        .map(|report| handshake_time(report.counters.as_ref()?))
        .collect();
    let rows: Vec<Row> = statement(SQL)
        .bind::<Array<SqlUuid>, _>(servers)
        .bind::<Array<BigInt>, _>(column(|report| report.peer.0))
        .bind::<Array<Nullable<BigInt>>, _>(counted(|counters| counters.generation.0.into()))
        .bind::<Array<Nullable<BigInt>>, _>(counted(|counters| counters.sent))
        .bind::<Array<Nullable<BigInt>>, _>(counted(|counters| counters.received))
        .bind::<Array<Nullable<Timestamptz>>, _>(handshakes)
        .bind::<Array<BigInt>, _>(column(|report| report.peak))
        .bind::<Array<Nullable<BigInt>>, _>(reports.iter().map(used).collect::<Vec<_>>())
        .bind::<Array<BigInt>, _>(column(|report| report.recent_peak))
        .load(conn)
        .await?;
    Ok(rows
        .into_iter()
        .map(|row| Stored {
            server: ServerId(row.server_id),
            peer: PeerId(from_row(row.peer_id)),
            ended: row.ended,
            share_at: row.share_at.map(from_row),
            quota_due: row.quota_due.map(UserId),
        })
        .collect())
}

/// These users' connections that a client uses, each with what is offered in its place. An offer is
/// none of them until its client takes it.
pub(super) async fn watched(
    conn: &mut AsyncPgConnection,
    users: &[UserId],
) -> diesel::QueryResult<HashMap<UserId, Vec<Watched>>> {
    const SQL: &str = "
        SELECT c.user_id, c.id, c.server_id, c.peer_id, c.bytes_sent, c.bytes_received, c.counter_generation,
               c.generation_sent, c.generation_received, c.offer_reason, c.offer_made,
               offer.id AS offer, offer.offered_until
          FROM connections c
          LEFT JOIN connections offer ON offer.supersedes = c.id AND offer.offered_until IS NOT NULL
                AND offer.status IN ('connecting', 'connected') AND offer.connected_at IS NOT NULL
         WHERE c.user_id = ANY ($1) AND c.status IN ('connecting', 'connected')
           AND c.connected_at IS NOT NULL AND c.offered_until IS NULL
         ORDER BY c.id";
    let ids: Vec<Uuid> = users.iter().map(|user| user.0).collect();
    let read = statement(SQL).bind::<Array<SqlUuid>, _>(ids);
    let rows: Vec<WatchedRow> = read.load(conn).await?;
    let mut watched: HashMap<_, Vec<_>> = HashMap::new();
    for row in &rows {
        let of_user = watched.entry(UserId(row.user_id)).or_default();
        of_user.extend(row.watched());
    }
    Ok(watched)
}

#[derive(QueryableByName)]
struct WatchedRow {
    #[diesel(sql_type = SqlUuid)]
    user_id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    server_id: Option<Uuid>,
    #[diesel(sql_type = BigInt)]
    peer_id: i64,
    #[diesel(sql_type = BigInt)]
    bytes_sent: i64,
    #[diesel(sql_type = BigInt)]
    bytes_received: i64,
    #[diesel(sql_type = BigInt)]
    counter_generation: i64,
    #[diesel(sql_type = BigInt)]
    generation_sent: i64,
    #[diesel(sql_type = BigInt)]
    generation_received: i64,
    #[diesel(sql_type = Nullable<Text>)]
    offer_reason: Option<String>,
    #[diesel(sql_type = Nullable<Bool>)]
    offer_made: Option<bool>,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    offer: Option<Uuid>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    offered_until: Option<DateTime<Utc>>,
}

impl WatchedRow {
    fn watched(&self) -> Option<Watched> {
        Some(Watched {
            connection: ConnectionId(self.id),
            server: self.server_id.map(ServerId),
            peer: PeerId(from_row(self.peer_id)),
            ledger: Ledger {
                sent: from_row(self.bytes_sent),
                received: from_row(self.bytes_received),
                generation: Generation(u32::try_from(self.counter_generation).ok()?),
                generation_sent: from_row(self.generation_sent),
                generation_received: from_row(self.generation_received),
            },
            offers: self.offers(),
        })
    }

    fn offers(&self) -> Offers {
        let offer = self.offer.zip(self.offered_until);
        Offers {
            offer: offer.map(|(connection, until)| Offer {
                connection: ConnectionId(connection),
                until,
            }),
            reason: self.offer_reason.as_deref().and_then(Trouble::parse),
            failed: self.offer_made == Some(false),
        }
    }
}

/// When the peer last shook hands, in UTC.
pub(crate) fn handshake_time(counters: &PeerCounters) -> Option<DateTime<Utc>> {
    let seconds = i64::try_from(counters.last_handshake?).ok()?;
    DateTime::from_timestamp(seconds, 0)
}
