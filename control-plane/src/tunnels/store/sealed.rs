//! The preshared keys, for a change of the key that seals them.

use async_trait::async_trait;
use diesel::QueryResult;
use diesel::sql_types::{Array, BigInt, Bytea, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::db::statement;
use crate::secrets::{Resealed, SealedColumn, SealedRow};
use crate::tunnels::psk;

/// `connections.sealed_psk`
#[derive(Debug, Clone, Copy)]
pub struct SealedPresharedKeys;

#[async_trait]
impl SealedColumn for SealedPresharedKeys {
    fn name(&self) -> &'static str {
        psk::COLUMN
    }

    async fn stale(
        &self,
        connection: &mut AsyncPgConnection,
        prefix: &[u8],
        after: Uuid,
        limit: i64,
    ) -> QueryResult<Vec<SealedRow>> {
        const SQL: &str = "
            SELECT id, sealed_psk AS sealed FROM connections
            WHERE id > $2 AND substring(sealed_psk FOR octet_length($1)) <> $1
            ORDER BY id LIMIT $3";
        statement(SQL)
            .bind::<Bytea, _>(prefix)
            .bind::<SqlUuid, _>(after)
            .bind::<BigInt, _>(limit)
            .load(connection)
            .await
    }

    async fn replace(
        &self,
        connection: &mut AsyncPgConnection,
        rows: &Resealed,
    ) -> QueryResult<usize> {
        const SQL: &str = "
            UPDATE connections c SET sealed_psk = changed.new
            FROM unnest($1, $2, $3) AS changed (id, old, new)
            WHERE c.id = changed.id AND c.sealed_psk = changed.old";
        statement(SQL)
            .bind::<Array<SqlUuid>, _>(&rows.ids)
            .bind::<Array<Bytea>, _>(&rows.old)
            .bind::<Array<Bytea>, _>(&rows.new)
            .execute(connection)
            .await
    }
}
