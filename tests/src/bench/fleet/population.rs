//! The connections that a fleet carries from the beginning, as connects leave them behind: five of a
//! person's, each on another server (where there are as many) and acknowledged by its node. Written by SQL, because a
//! hundred thousand connects are another benchmark.

use std::net::{Ipv4Addr, Ipv6Addr};

use control_plane::config::Config;
use control_plane::secrets::{KeyRing, Place};
use diesel::sql_types::{Array, BigInt, Bytea, SmallInt, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use shared::ids::{ConnectionId, PeerId, ServerId, UserId};
use shared::protocol::Addresses;
use shared::wireguard::PublicKey;
use uuid::Uuid;

use crate::TestDb;
use crate::lab::Plane;

/// Connections of a person.
pub const EACH: usize = 5;
const BATCH: usize = 10_000;

/// One of the connections.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    pub connection: ConnectionId,
    pub user: UserId,
    /// The number of its node.
    pub node: usize,
    pub peer: PeerId,
    /// Which of the person's places it has, from one.
    slot: i16,
}

/// The addresses of a peer inside the tunnel.
#[must_use]
pub fn addresses(peer: PeerId) -> Addresses {
    let number = u32::try_from(peer.0).unwrap_or(u32::MAX).saturating_add(1);
    let v4 = Ipv4Addr::from_bits(Ipv4Addr::new(10, 64, 0, 0).to_bits().saturating_add(number));
    let base = Ipv6Addr::new(0xfd00, 0x64, 0, 0, 0, 0, 0, 0).to_bits();
    let v6 = Some(Ipv6Addr::from_bits(base + u128::from(number)));
    Addresses { v4, v6 }
}

/// Gives each of the servers so many peers, of these people; the servers' nodes were never told of any.
pub async fn settle(
    db: &TestDb,
    plane: &Plane,
    servers: &[ServerId],
    peers: usize,
    people: &[UserId],
) -> anyhow::Result<Vec<Member>> {
    let config = Config::read(plane.environment())?;
    let keys = KeyRing::new(&config.app.keys)?;
    let slots = people
        .iter()
        .flat_map(|user| (1..).take(EACH).map(move |slot| (*user, slot)));
    let places = (1..=u64::try_from(peers)?)
        .flat_map(|peer| (0..servers.len()).map(move |node| (node, PeerId(peer))));
    let members: Vec<_> = places
        .zip(slots)
        .map(|((node, peer), (user, slot))| Member {
            connection: ConnectionId::generate(),
            user,
            node,
            peer,
            slot,
        })
        .collect();
    for batch in members.chunks(BATCH) {
        insert(db, &keys, servers, batch).await?;
    }
    db.execute(&format!("UPDATE nodes SET desired_revision = {peers}"))
        .await;
    // Postgres would do it by itself, in the middle of what is measured.
    db.execute("VACUUM (FREEZE, ANALYZE)").await;
    Ok(members)
}

async fn insert(
    db: &TestDb,
    keys: &KeyRing,
    servers: &[ServerId],
    members: &[Member],
) -> anyhow::Result<()> {
    const SQL: &str = "
        INSERT INTO connections (id, user_id, server_id, status, client_public_key, sealed_psk, client_ip, client_ipv6,
                                 user_slot, peer_id, revision, connected_at, expires_at)
        SELECT id, user_id, server_id, 'connected', key, psk, v4::inet, v6::inet, slot, peer, peer, now(),
               now() + interval '1 day'
          FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9) AS r (id, user_id, server_id, key, psk, v4, v6, slot, peer)";
    let of = |member: &Member| servers.get(member.node).map(|server| server.0);
    let servers: Vec<Uuid> = members.iter().filter_map(of).collect();
    let sealed = members.iter().map(|member| {
        let place = Place {
            column: "connections.sealed_psk",
            row: member.connection.0,
        };
        keys.seal(place, &rand::random::<[u8; 32]>())
    });
    let sealed = sealed.collect::<Result<Vec<_>, _>>()?;
    let public = || PublicKey::from_bytes(rand::random()).to_base64();
    let addresses: Vec<_> = members.iter().map(|it| addresses(it.peer)).collect();
    let v6 = addresses.iter().filter_map(|it| it.v6);
    diesel::sql_query(SQL)
        .bind::<Array<SqlUuid>, _>(column(members, |it| it.connection.0))
        .bind::<Array<SqlUuid>, _>(column(members, |it| it.user.0))
        .bind::<Array<SqlUuid>, _>(servers)
        .bind::<Array<Text>, _>(column(members, |_| public()))
        .bind::<Array<Bytea>, _>(sealed)
        .bind::<Array<Text>, _>(column(&addresses, |it| it.v4.to_string()))
        .bind::<Array<Text>, _>(v6.map(|it| it.to_string()).collect::<Vec<_>>())
        .bind::<Array<SmallInt>, _>(column(members, |it| it.slot))
        .bind::<Array<BigInt>, _>(column(members, |it| it.peer.0.cast_signed()))
        .execute(&mut db.connect().await)
        .await?;
    Ok(())
}

fn column<T, V>(rows: &[T], value: impl Fn(&T) -> V) -> Vec<V> {
    rows.iter().map(value).collect()
}
