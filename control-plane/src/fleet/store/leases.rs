//! Who holds a node's session, fenced: every session takes the next number, and only the holder of
//! the newest may write.

use diesel::QueryableByName;
use diesel::sql_types::{
    Array, BigInt, Bool, Cidr, Double, Inet, Integer, Nullable, SmallInt, Text, Uuid as SqlUuid,
};
use diesel::{ExpressionMethods, OptionalExtension, QueryDsl};
use diesel_async::RunQueryDsl;
use ipnet::IpNet;
use shared::ids::{Revision, ServerId};
use shared::protocol::Hello;
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
}

const TAKE_LEASE: &str = "
    WITH lease AS (
        UPDATE nodes SET
            session_fence = session_fence + 1, session_replica = $3, last_seen_at = now(),
            applied_revision = $4, state_hash = $5, boot_id = $6, interface_epoch = $7,
            agent_version = $8, backend = $9, protocol = $10, draining = $11
        WHERE server_id = $1 AND token_epoch = $2
        RETURNING server_id, session_fence
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
    SELECT session_fence, EXISTS (SELECT FROM profile) AS profile_changed FROM lease";

/// Takes the lease over from whoever holds it. None when the token's epoch is no longer the node's.
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
        .get_result(&mut conn)
        .await
        .optional()?;
    Ok(row.map(|row| Lease {
        fence: Fence(row.session_fence),
        profile_changed: row.profile_changed,
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
#[derive(Debug, Clone, Copy)]
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
            $8::int[], $9::bool[], $10::bigint[], $11::text[]
        ) AS beat (
            server, fence, epoch, silence, load, ping, peers, used, draining, applied, hash
        )
    ), held AS (
        UPDATE nodes SET
            last_seen_at = now() - make_interval(secs => beat.silence), peers = beat.peers,
            pool_used = beat.used, draining = beat.draining, applied_revision = beat.applied,
            state_hash = beat.hash
        FROM beat
        WHERE server_id = beat.server AND session_fence = beat.fence AND token_epoch = beat.epoch
        RETURNING server_id, desired_revision
    ), figures AS (
        UPDATE vpn_servers SET current_load = beat.load, ping = beat.ping
        FROM beat JOIN held ON held.server_id = beat.server
        WHERE id = beat.server
    )
    SELECT server_id, desired_revision FROM held";

/// Writes the figures of every session of this replica in one statement. Says for those that still
/// hold their lease what the node shall be; a session that is not in the answer lost its lease.
pub(in crate::fleet) async fn heartbeat(
    db: &Pool,
    beats: &[Beat],
) -> Result<Vec<(ServerId, Revision)>, ApiError> {
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
        .load(&mut conn)
        .await?;
    Ok(positions(held))
}

/// The desired revisions of these servers.
pub(in crate::fleet) async fn desired_revisions(
    db: &Pool,
    servers: &[ServerId],
) -> Result<Vec<(ServerId, Revision)>, ApiError> {
    let servers: Vec<Uuid> = servers.iter().map(|server| server.0).collect();
    let mut conn = db.get().await?;
    let rows: Vec<Position> =
        statement("SELECT server_id, desired_revision FROM nodes WHERE server_id = ANY($1)")
            .bind::<Array<SqlUuid>, _>(servers)
            .load(&mut conn)
            .await?;
    Ok(positions(rows))
}

#[derive(QueryableByName)]
struct Position {
    #[diesel(sql_type = SqlUuid)]
    server_id: Uuid,
    #[diesel(sql_type = BigInt)]
    desired_revision: i64,
}

fn positions(rows: Vec<Position>) -> Vec<(ServerId, Revision)> {
    let position = |row: Position| {
        let revision = u64::try_from(row.desired_revision).unwrap_or(0);
        (ServerId(row.server_id), Revision(revision))
    };
    rows.into_iter().map(position).collect()
}

fn signed(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

/// A count as the schema has it. Nodes' counts are checked against their pools before.
pub(super) fn count(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
