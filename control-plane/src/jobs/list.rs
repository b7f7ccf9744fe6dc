//! Jobs as operators see them: never what is in them.

use chrono::{DateTime, Utc};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_types::{BigInt, Nullable, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::db::schema::jobs;
use crate::db::statement;

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// For its time, or for its worker to end.
    Waiting,
    Done,
    Failed,
}

impl Status {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    fn read(word: &str) -> QueryResult<Self> {
        let mut all = [Self::Waiting, Self::Done, Self::Failed].into_iter();
        let status = all.find(|status| status.as_str() == word);
        status.ok_or_else(|| Error::DeserializationError("a job's status".into()))
    }
}

/// Which jobs are asked for: all that is given has to hold.
#[derive(Debug, Clone, Default)]
pub(super) struct Filter {
    pub(super) status: Option<Status>,
    pub(super) kind: Option<String>,
}

/// One job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) id: Uuid,
    pub(super) kind: String,
    pub(super) status: Status,
    pub(super) attempts: i32,
    pub(super) run_at: DateTime<Utc>,
    pub(super) last_error: Option<String>,
    pub(super) created_at: DateTime<Utc>,
    pub(super) ended_at: Option<DateTime<Utc>>,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = jobs, check_for_backend(Pg))]
struct Row {
    id: Uuid,
    kind: String,
    status: String,
    attempts: i32,
    run_at: DateTime<Utc>,
    last_error: Option<String>,
    created_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
}

impl Row {
    fn job(self) -> QueryResult<Job> {
        Ok(Job {
            id: self.id,
            kind: self.kind,
            status: Status::read(&self.status)?,
            attempts: self.attempts,
            run_at: self.run_at,
            last_error: self.last_error,
            created_at: self.created_at,
            ended_at: self.ended_at,
        })
    }
}

fn matching(filter: &Filter) -> jobs::BoxedQuery<'_, Pg> {
    let mut query = jobs::table.into_boxed();
    if let Some(status) = filter.status {
        query = query.filter(jobs::status.eq(status.as_str()));
    }
    if let Some(kind) = &filter.kind {
        query = query.filter(jobs::kind.eq(kind));
    }
    query
}

/// One page, the newest first, and how many there are in all.
pub(super) async fn page(
    connection: &mut AsyncPgConnection,
    filter: &Filter,
    (offset, limit): (i64, i64),
) -> QueryResult<(Vec<Job>, u64)> {
    let total: i64 = matching(filter).count().get_result(connection).await?;
    let rows: Vec<Row> = matching(filter)
        .select(Row::as_select())
        .order((jobs::created_at.desc(), jobs::id.desc()))
        .offset(offset)
        .limit(limit)
        .load(connection)
        .await?;
    let found: Vec<_> = rows.into_iter().map(Row::job).collect::<Result<_, _>>()?;
    Ok((found, u64::try_from(total).unwrap_or(0)))
}

/// A job, held until the commit.
pub(super) async fn lock(connection: &mut AsyncPgConnection, id: Uuid) -> QueryResult<Option<Job>> {
    let row: Option<Row> = jobs::table
        .find(id)
        .select(Row::as_select())
        .for_update()
        .first(connection)
        .await
        .optional()?;
    row.map(Row::job).transpose()
}

/// Makes a job that failed wait anew, with all its attempts. Nothing where it did not fail, or its payload is gone.
pub(super) async fn reopen(
    connection: &mut AsyncPgConnection,
    id: Uuid,
) -> QueryResult<Option<DateTime<Utc>>> {
    const SQL: &str = "
        UPDATE jobs SET status = 'waiting', attempts = 0, run_at = now(), ended_at = NULL
         WHERE id = $1 AND status = 'failed' AND sealed <> ''
        RETURNING run_at";

    #[derive(QueryableByName)]
    struct Reopened {
        #[diesel(sql_type = Timestamptz)]
        run_at: DateTime<Utc>,
    }

    let reopened: Option<Reopened> = statement(SQL)
        .bind::<SqlUuid, _>(id)
        .get_result(connection)
        .await
        .optional()?;
    Ok(reopened.map(|it| it.run_at))
}

/// How much work there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    pub waiting: u64,
    pub failed: u64,
    /// Since when the longest waits that is due; none where nothing is.
    pub due_since: Option<DateTime<Utc>>,
}

/// How much work there is now, by the two partial indexes.
pub async fn backlog(connection: &mut AsyncPgConnection) -> QueryResult<Backlog> {
    const SQL: &str = "
        SELECT (SELECT count(*) FROM jobs WHERE status = 'waiting') AS waiting,
               (SELECT count(*) FROM jobs WHERE status <> 'waiting' AND status = 'failed') AS failed,
               (SELECT min(run_at) FROM jobs WHERE status = 'waiting' AND run_at <= now()) AS due_since";

    #[derive(QueryableByName)]
    struct Counts {
        #[diesel(sql_type = BigInt)]
        waiting: i64,
        #[diesel(sql_type = BigInt)]
        failed: i64,
        #[diesel(sql_type = Nullable<Timestamptz>)]
        due_since: Option<DateTime<Utc>>,
    }

    let counts: Counts = statement(SQL).get_result(connection).await?;
    let count = |number| u64::try_from(number).unwrap_or(0);
    Ok(Backlog {
        waiting: count(counts.waiting),
        failed: count(counts.failed),
        due_since: counts.due_since,
    })
}
