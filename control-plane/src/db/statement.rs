//! A statement in SQL that is prepared once a connection.
//!
//! [`diesel::sql_query`] prepares its text anew at every use, which is a second round trip and a
//! second planning. What is written here is fixed text, so it is kept in the connection's cache.

use std::fmt;

use chrono::{DateTime, Utc};
use diesel::QueryResult;
use diesel::pg::Pg;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::serialize::ToSql;
use diesel::sql_types::{BigInt, HasSqlType, Timestamptz, Untyped};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

/// A fixed text with its values, to be used like any Diesel query.
#[must_use = "a statement does nothing until it is run"]
pub struct Statement<'a> {
    sql: &'static str,
    binds: Vec<Box<dyn QueryFragment<Pg> + Send + 'a>>,
}

/// Starts a statement; `$1`, `$2`, … are the values in the order in which they are bound.
pub const fn statement<'a>(sql: &'static str) -> Statement<'a> {
    Statement {
        sql,
        binds: Vec::new(),
    }
}

impl<'a> Statement<'a> {
    /// Binds the next value as the SQL type `T`.
    pub fn bind<T, V>(mut self, value: V) -> Self
    where
        Pg: HasSqlType<T>,
        V: ToSql<T, Pg> + Send + 'a,
        T: Send + 'a,
    {
        self.binds.push(Box::new(Bind {
            value,
            sql_type: std::marker::PhantomData::<T>,
        }));
        self
    }
}

/// Runs a DELETE of at most `$2` rows of before `$1`, and says how many it deleted.
pub async fn forget(
    connection: &mut AsyncPgConnection,
    delete: &'static str,
    before: DateTime<Utc>,
    limit: i64,
) -> QueryResult<usize> {
    statement(delete)
        .bind::<Timestamptz, _>(before)
        .bind::<BigInt, _>(limit)
        .execute(connection)
        .await
}

struct Bind<T, V> {
    value: V,
    sql_type: std::marker::PhantomData<T>,
}

impl<T, V> QueryFragment<Pg> for Bind<T, V>
where
    Pg: HasSqlType<T>,
    V: ToSql<T, Pg>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_bind_param_value_only(&self.value)
    }
}

impl QueryFragment<Pg> for Statement<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(self.sql);
        self.binds
            .iter()
            .try_for_each(|bind| bind.walk_ast(out.reborrow()))
    }
}

impl QueryId for Statement<'_> {
    type QueryId = ();

    /// The text and the types are the cache's key.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for Statement<'_> {
    type SqlType = Untyped;
}

impl<Conn> diesel::query_dsl::RunQueryDsl<Conn> for Statement<'_> {}

impl fmt::Debug for Statement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sql)
    }
}
