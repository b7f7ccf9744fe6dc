//! The queries about events.

use chrono::{DateTime, Utc};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_types::{Array, Bytea, Integer, Nullable, Text, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::{EventStatus, StoredEvent};
use crate::billing::reference::{EventId, fingerprints};
use crate::db::schema::stripe_events;
use crate::db::{self, statement};
use crate::error::ApiError;
use crate::secrets::{KeyRing, Place, SealedColumn};

const COLUMN: &str = "stripe_events.sealed_payload";

pub(super) const LONGEST_KIND: usize = 100;

pub(super) struct New<'a> {
    pub(super) id: Uuid,
    pub(super) event: &'a EventId,
    pub(super) kind: &'a str,
    pub(super) payload: &'a [u8],
}

/// Whether it was not known, under whichever key.
pub(super) async fn insert(
    connection: &mut AsyncPgConnection,
    keys: &KeyRing,
    new: &New<'_>,
) -> Result<bool, ApiError> {
    const SQL: &str = "
        INSERT INTO stripe_events (id, event_hash, kind, sealed_payload)
        SELECT $1, ($2::bytea[])[1], $3, $4
         WHERE NOT EXISTS (SELECT FROM stripe_events WHERE event_hash = ANY ($2))
            ON CONFLICT (event_hash) DO NOTHING";
    let inserted = statement(SQL)
        .bind::<SqlUuid, _>(new.id)
        .bind::<Array<Bytea>, _>(fingerprints(keys, new.event))
        .bind::<Text, _>(new.kind)
        .bind::<Bytea, _>(keys.seal(place(new.id), new.payload)?)
        .execute(connection)
        .await?;
    Ok(inserted == 1)
}

/// Where an event's payload is sealed.
pub(super) const fn place(event: Uuid) -> Place {
    Place {
        column: COLUMN,
        row: event,
    }
}

/// An event that is being acted on.
#[derive(QueryableByName)]
pub(super) struct Begun {
    #[diesel(sql_type = Bytea)]
    pub(super) sealed_payload: Vec<u8>,
    /// This one included.
    #[diesel(sql_type = Integer)]
    pub(super) attempts: i32,
}

/// Counts an attempt, if the event still waits for one.
pub(super) async fn begin(
    connection: &mut AsyncPgConnection,
    event: Uuid,
) -> QueryResult<Option<Begun>> {
    const SQL: &str = "
        UPDATE stripe_events SET attempts = attempts + 1
         WHERE id = $1 AND status = 'waiting'
        RETURNING sealed_payload, attempts";
    statement(SQL)
        .bind::<SqlUuid, _>(event)
        .get_result(connection)
        .await
        .optional()
}

/// Takes note of how an attempt ended, unless another one ended better.
pub(super) async fn end(
    connection: &mut AsyncPgConnection,
    event: Uuid,
    status: EventStatus,
    error: Option<&str>,
) -> QueryResult<()> {
    const SQL: &str = "
        UPDATE stripe_events SET status = $2, last_error = $3,
               done_at = CASE WHEN $2 = 'done' THEN now() END
         WHERE id = $1 AND status = 'waiting'";
    statement(SQL)
        .bind::<SqlUuid, _>(event)
        .bind::<Text, _>(status.as_str())
        .bind::<Nullable<Text>, _>(error)
        .execute(connection)
        .await
        .map(drop)
}

/// Makes an event that is done or parked wait again. Gives what it was; nothing where it waits already.
pub(super) async fn reopen(
    connection: &mut AsyncPgConnection,
    event: Uuid,
) -> QueryResult<Option<EventStatus>> {
    const SQL: &str = "
        WITH was AS (SELECT id, status FROM stripe_events WHERE id = $1 FOR UPDATE)
        UPDATE stripe_events e SET status = 'waiting', attempts = 0, done_at = NULL
          FROM was WHERE e.id = was.id AND was.status <> 'waiting'
        RETURNING was.status";

    #[derive(QueryableByName)]
    struct Was {
        #[diesel(sql_type = Text)]
        status: String,
    }

    let was: Option<Was> = statement(SQL)
        .bind::<SqlUuid, _>(event)
        .get_result(connection)
        .await
        .optional()?;
    was.map(|was| status(&was.status)).transpose()
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = stripe_events)]
struct Row {
    id: Uuid,
    kind: String,
    status: String,
    attempts: i32,
    last_error: Option<String>,
    received_at: DateTime<Utc>,
    done_at: Option<DateTime<Utc>>,
}

impl Row {
    fn event(self) -> QueryResult<StoredEvent> {
        Ok(StoredEvent {
            id: self.id,
            kind: self.kind,
            status: status(&self.status)?,
            attempts: self.attempts,
            last_error: self.last_error,
            received_at: self.received_at,
            done_at: self.done_at,
        })
    }
}

fn status(word: &str) -> QueryResult<EventStatus> {
    EventStatus::read(word).ok_or_else(|| Error::DeserializationError("an event's status".into()))
}

pub(super) async fn find(
    connection: &mut AsyncPgConnection,
    event: Uuid,
) -> QueryResult<Option<StoredEvent>> {
    let row: Option<Row> = stripe_events::table
        .find(event)
        .select(Row::as_select())
        .first(connection)
        .await
        .optional()?;
    row.map(Row::event).transpose()
}

/// One page, the newest first, and how many there are in all.
pub(super) async fn page(
    connection: &mut AsyncPgConnection,
    status: Option<EventStatus>,
    (offset, limit): (i64, i64),
) -> QueryResult<(Vec<StoredEvent>, u64)> {
    let asked = || {
        let all = stripe_events::table.into_boxed::<Pg>();
        match status {
            Some(status) => all.filter(stripe_events::status.eq(status.as_str())),
            None => all,
        }
    };
    let total: i64 = asked().count().get_result(connection).await?;
    let rows: Vec<Row> = asked()
        .select(Row::as_select())
        .order((stripe_events::received_at.desc(), stripe_events::id.desc()))
        .offset(offset)
        .limit(limit)
        .load(connection)
        .await?;
    let events: Vec<_> = rows.into_iter().map(Row::event).collect::<Result<_, _>>()?;
    Ok((events, u64::try_from(total).unwrap_or(0)))
}

/// Deletes events that came before a time and were acted on.
pub async fn forget(
    connection: &mut AsyncPgConnection,
    before: DateTime<Utc>,
    limit: i64,
) -> QueryResult<usize> {
    const SQL: &str = "
        DELETE FROM stripe_events WHERE id IN (
            SELECT id FROM stripe_events WHERE status = 'done' AND received_at < $1 LIMIT $2)";
    db::forget(connection, SQL, before, limit).await
}

/// What events say, for a change of the key that seals it. The hashes stay: one that comes again after the old
/// key is forgotten is acted on again, which changes nothing.
pub const SEALED_EVENTS: SealedColumn = SealedColumn::new(COLUMN);
