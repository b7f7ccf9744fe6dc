//! Who holds a node's session, fenced: every session takes the next number, and only the holder of
//! the newest may write.

use chrono::{DateTime, Utc};
use diesel::QueryableByName;
use diesel::sql_types::{
    Array, BigInt, Bool, Cidr, Double, Inet, Integer, Nullable, SmallInt, Text, Timestamptz,
    Uuid as SqlUuid,
};
use diesel::{ExpressionMethods, OptionalExtension, QueryDsl};
use diesel_async::RunQueryDsl;
use ipnet::IpNet;
use shared::ids::{Revision, ServerId};
use shared::protocol::{Hello, NextKey, Settings};
use std::net::IpAddr;
use uuid::Uuid;

use crate::db::schema::nodes;
use crate::db::{Pool, statement};
use crate::error::ApiError;
use crate::fleet::desired::Fence;
use crate::fleet::identity::NodeIdentity;
use crate::fleet::session::Vitals;

/// The epoch whose tokens open sessions of this node; none when there is no such node.
pub(in crate::fleet) async fn token_epoch(
    db: &Pool,
    server: ServerId,
) -> Result<Option<i32>, ApiError> {
    let mut conn = db.get().await?;
    let epoch = nodes::table
        .find(server.0)
        .select(nodes::token_epoch)
        .first(&mut conn)
        .await
        .optional()?;
    Ok(epoch)
}

/// A session's right to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::fleet) struct Lease {
    pub(in crate::fleet) fence: Fence,
    /// The node came with another key, endpoint or pool than the catalogue had.
    pub(in crate::fleet) profile_changed: bool,
    /// The node has replaced its key; the plan to do so is fulfilled.
    pub(in crate::fleet) key_changed: bool,
    /// What the operator wants of the node.
    pub(in crate::fleet) settings: Settings,
}

const TAKE_LEASE: &str = "
    WITH lease AS (
        UPDATE nodes SET
            session_fence = session_fence + 1, session_replica = $3, last_seen_at = now(),
            applied_revision = $4, state_hash = $5, boot_id = $6, interface_epoch = $7,
            agent_version = $8, backend = $9, protocol = $10, draining = $11,
            rotate_key_at = CASE WHEN server.public_key = $12 THEN rotate_key_at END,
            next_public_key = CASE WHEN server.public_key = $12 AND rotate_key_at = $18 THEN $19 END
        FROM vpn_servers server
        WHERE server_id = $1 AND token_epoch = $2 AND server.id = server_id
        RETURNING server_id, session_fence, drain_requested_at IS NOT NULL AS draining,
                  rotate_key_at, server.public_key IS DISTINCT FROM $12 AS key_changed
    ), profile AS (
        UPDATE vpn_servers SET
            public_key = $12, endpoint = $13, ip_address = coalesce($14, ip_address),
            available_ips = $15, available_ips_v6 = $16, capacity = $17, updated_at = now()
        FROM lease
        WHERE id = lease.server_id
          AND (public_key, endpoint, available_ips, available_ips_v6, capacity)
              IS DISTINCT FROM ($12::text, $13::text, $15, $16, $17)
        RETURNING id
    )
    SELECT session_fence, draining, rotate_key_at, key_changed,
           EXISTS (SELECT FROM profile) AS profile_changed
      FROM lease";

/// Takes the lease over from whoever holds it. A node that comes with another key than the catalogue
/// has replaced it, which ends the plan to; its next key counts if it is the planned one's. None when the token's epoch is no longer the node's.
pub(in crate::fleet) async fn take_lease(
    db: &Pool,
    node: NodeIdentity,
    replica: Uuid,
    hello: &Hello,
    address: Option<IpAddr>,
) -> Result<Option<Lease>, ApiError> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = BigInt)]
        session_fence: i64,
        #[diesel(sql_type = Bool)]
        profile_changed: bool,
        #[diesel(sql_type = Bool)]
        key_changed: bool,
        #[diesel(sql_type = Bool)]
        draining: bool,
        #[diesel(sql_type = Nullable<Timestamptz>)]
        rotate_key_at: Option<DateTime<Utc>>,
    }
    let mut conn = db.get().await?;
    let row: Option<Row> = statement(TAKE_LEASE)
        .bind::<SqlUuid, _>(node.server.0)
        .bind::<Integer, _>(node.epoch)
        .bind::<SqlUuid, _>(replica)
        .bind::<BigInt, _>(signed(hello.applied_revision))
        .bind::<Text, _>(hello.state_hash.to_string())
        .bind::<SqlUuid, _>(hello.boot_id)
        .bind::<SqlUuid, _>(hello.interface_epoch)
        .bind::<Text, _>(&hello.agent_version)
        .bind::<Text, _>(&hello.backend)
        .bind::<SmallInt, _>(i16::try_from(hello.protocol).unwrap_or(i16::MAX))
        .bind::<Bool, _>(hello.draining)
        .bind::<Text, _>(hello.public_key.to_base64())
        .bind::<Text, _>(&hello.endpoint)
        .bind::<Nullable<Inet>, _>(address.map(IpNet::from))
        .bind::<Cidr, _>(IpNet::V4(hello.subnet.trunc()))
        .bind::<Nullable<Cidr>, _>(hello.subnet_v6.map(|subnet| IpNet::V6(subnet.trunc())))
        .bind::<Integer, _>(count(hello.capacity))
        .bind::<Nullable<Timestamptz>, _>(hello.next_key.map(|next| next.at))
        .bind::<Nullable<Text>, _>(hello.next_key.map(|next| next.public_key.to_base64()))
        .get_result(&mut conn)
        .await
        .optional()?;
    Ok(row.map(|row| Lease {
        fence: Fence(row.session_fence),
        profile_changed: row.profile_changed,
        key_changed: row.key_changed,
        settings: Settings {
            draining: row.draining,
            rotate_key_at: row.rotate_key_at,
        },
    }))
}

/// Gives a lease back, unless it was taken over.
pub(in crate::fleet) async fn release_lease(
    db: &Pool,
    server: ServerId,
    fence: Fence,
) -> Result<(), ApiError> {
    let mut conn = db.get().await?;
    diesel::update(nodes::table.find(server.0))
        .filter(nodes::session_fence.eq(fence.0))
        .set(nodes::session_replica.eq(None::<Uuid>))
        .execute(&mut conn)
        .await?;
    Ok(())
}

/// What a heartbeat writes of one session.
#[derive(Debug, Clone)]
pub(in crate::fleet) struct Beat {
    pub(in crate::fleet) server: ServerId,
    pub(in crate::fleet) fence: Fence,
    pub(in crate::fleet) epoch: i32,
    pub(in crate::fleet) vitals: Vitals,
}

const HEARTBEAT: &str = "
    WITH beat AS (
        SELECT * FROM unnest(
            $1::uuid[], $2::bigint[], $3::int[], $4::float8[], $5::float8[], $6::int[], $7::int[],
            $8::int[], $9::bool[], $10::bigint[], $11::text[], $12::text[]
        ) AS beat (
            server, fence, epoch, silence, load, ping, peers, used, draining, applied, hash, report
        )
    ), held AS (
        UPDATE nodes SET
            last_seen_at = now() - make_interval(secs => beat.silence), peers = beat.peers,
            pool_used = beat.used, draining = beat.draining, applied_revision = beat.applied,
            state_hash = beat.hash, last_load = coalesce(beat.report::jsonb, last_load)
        FROM beat
        WHERE server_id = beat.server AND session_fence = beat.fence AND token_epoch = beat.epoch
        RETURNING server_id, session_fence, desired_revision,
                  drain_requested_at IS NOT NULL AS draining, rotate_key_at
    ), figures AS (
        UPDATE vpn_servers SET current_load = beat.load, ping = beat.ping
        FROM beat JOIN held ON held.server_id = beat.server
        WHERE id = beat.server
    )
    SELECT server_id, session_fence, desired_revision, draining, rotate_key_at FROM held";

/// Writes the figures of every session of this replica in one statement. Says for those that still
/// hold their lease what the node shall be; a session that is not in the answer lost its lease.
pub(in crate::fleet) async fn heartbeat(
    db: &Pool,
    beats: &[Beat],
) -> Result<Vec<Standing>, ApiError> {
    fn column<T>(beats: &[Beat], value: impl Fn(&Beat) -> T) -> Vec<T> {
        beats.iter().map(value).collect()
    }
    let mut conn = db.get().await?;
    let held: Vec<Position> = statement(HEARTBEAT)
        .bind::<Array<SqlUuid>, _>(column(beats, |beat| beat.server.0))
        .bind::<Array<BigInt>, _>(column(beats, |beat| beat.fence.0))
        .bind::<Array<Integer>, _>(column(beats, |beat| beat.epoch))
        .bind::<Array<Double>, _>(column(beats, |beat| {
            beat.vitals.last_heard.elapsed().as_secs_f64()
        }))
        .bind::<Array<Double>, _>(column(beats, |beat| beat.vitals.load))
        .bind::<Array<Integer>, _>(column(beats, |beat| count(beat.vitals.ping)))
        .bind::<Array<Integer>, _>(column(beats, |beat| count(beat.vitals.peers)))
        .bind::<Array<Integer>, _>(column(beats, |beat| count(beat.vitals.pool_used)))
        .bind::<Array<Bool>, _>(column(beats, |beat| beat.vitals.draining))
        .bind::<Array<BigInt>, _>(column(beats, |beat| signed(beat.vitals.applied)))
        .bind::<Array<Text>, _>(column(beats, |beat| beat.vitals.state_hash.to_string()))
        .bind::<Array<Nullable<Text>>, _>(column(beats, |beat| {
            let report = beat.vitals.report.as_ref()?;
            serde_json::to_string(report).ok()
        }))
        .load(&mut conn)
        .await?;
    Ok(held.into_iter().map(Standing::from).collect())
}

/// Where a node stands in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::fleet) struct Standing {
    pub(in crate::fleet) server: ServerId,
    pub(in crate::fleet) fence: Fence,
    pub(in crate::fleet) revision: Revision,
    pub(in crate::fleet) settings: Settings,
}

/// The standings of these servers.
pub(in crate::fleet) async fn standings(
    db: &Pool,
    servers: &[ServerId],
) -> Result<Vec<Standing>, ApiError> {
    const SQL: &str = "
        SELECT server_id, session_fence, desired_revision,
               drain_requested_at IS NOT NULL AS draining, rotate_key_at
          FROM nodes WHERE server_id = ANY($1)";
    let servers: Vec<Uuid> = servers.iter().map(|server| server.0).collect();
    let mut conn = db.get().await?;
    let rows: Vec<Position> = statement(SQL)
        .bind::<Array<SqlUuid>, _>(servers)
        .load(&mut conn)
        .await?;
    Ok(rows.into_iter().map(Standing::from).collect())
}

#[derive(QueryableByName)]
struct Position {
    #[diesel(sql_type = SqlUuid)]
    server_id: Uuid,
    #[diesel(sql_type = BigInt)]
    session_fence: i64,
    #[diesel(sql_type = BigInt)]
    desired_revision: i64,
    #[diesel(sql_type = Bool)]
    draining: bool,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    rotate_key_at: Option<DateTime<Utc>>,
}

impl From<Position> for Standing {
    fn from(row: Position) -> Self {
        Self {
            server: ServerId(row.server_id),
            fence: Fence(row.session_fence),
            revision: Revision(u64::try_from(row.desired_revision).unwrap_or(0)),
            settings: Settings {
                draining: row.draining,
                rotate_key_at: row.rotate_key_at,
            },
        }
    }
}

/// What the operator wants of a node; of one that is gone, nothing.
pub(in crate::fleet) async fn settings(db: &Pool, server: ServerId) -> Result<Settings, ApiError> {
    let standings = standings(db, &[server]).await?;
    let mut settings = standings.into_iter().map(|standing| standing.settings);
    Ok(settings.next().unwrap_or_default())
}

/// Stores the key that the node will have, if it is the planned one's and no newer session took
/// over. Says whether it was stored.
pub(in crate::fleet) async fn keep_next_key(
    db: &Pool,
    server: ServerId,
    fence: Fence,
    key: NextKey,
) -> Result<bool, ApiError> {
    let mut conn = db.get().await?;
    let stored = diesel::update(nodes::table.find(server.0))
        .filter(nodes::session_fence.eq(fence.0))
        .filter(nodes::rotate_key_at.eq(key.at))
        .set(nodes::next_public_key.eq(key.public_key.to_base64()))
        .execute(&mut conn)
        .await?;
    Ok(stored > 0)
}

fn signed(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

/// A count as the schema has it. Nodes' counts are checked against their pools before.
pub(super) fn count(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
