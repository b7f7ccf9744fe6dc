//! The query of an import.

use diesel::QueryResult;
use diesel::sql_types::{Array, Bool, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::row::Person;
use crate::accounts::registration::FREE_PLAN;
use crate::db::statement;

/// Stores whoever has no account yet, with a free subscription, and says how many that were.
pub(super) async fn insert(
    connection: &mut AsyncPgConnection,
    people: Vec<Person>,
) -> QueryResult<usize> {
    const SQL: &str = "
        WITH given AS (
            SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7)
                AS given (id, subscription, email, hash, full_name, is_verified, created_at)
        ), added AS (
            INSERT INTO users (id, email, hashed_password, full_name, is_verified, created_at)
            SELECT id, email, hash, full_name, is_verified, created_at FROM given
            ON CONFLICT (lower(email)) DO NOTHING
            RETURNING id
        )
        INSERT INTO subscriptions (id, user_id, plan_id, plan_type)
        SELECT given.subscription, added.id, plans.id, plans.plan_type
          FROM added JOIN given USING (id) JOIN plans ON plans.id = $8";
    let ids = |_: &Person| Uuid::now_v7();
    let of = |field: fn(&Person) -> String| people.iter().map(field).collect::<Vec<_>>();
    let names = people.iter().map(|person| person.full_name.clone());
    let verified = people.iter().map(|person| person.is_verified);
    let created = people.iter().map(|person| person.created_at);
    statement(SQL)
        .bind::<Array<SqlUuid>, _>(people.iter().map(ids).collect::<Vec<_>>())
        .bind::<Array<SqlUuid>, _>(people.iter().map(ids).collect::<Vec<_>>())
        .bind::<Array<Text>, _>(of(|person| person.email.as_str().to_owned()))
        .bind::<Array<Text>, _>(of(|person| person.password_hash.clone()))
        .bind::<Array<Nullable<Text>>, _>(names.collect::<Vec<_>>())
        .bind::<Array<Bool>, _>(verified.collect::<Vec<_>>())
        .bind::<Array<Timestamptz>, _>(created.collect::<Vec<_>>())
        .bind::<Text, _>(FREE_PLAN)
        .execute(connection)
        .await
}
