//! `/admin/jobs`

use actix_web::{HttpRequest, get, post, web};
use chrono::{DateTime, Utc};
use diesel_async::AsyncConnection;
use garde::Validate;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use utoipa_actix_web::service_config::ServiceConfig;
use uuid::Uuid;

use super::list::{self, Filter, Job, Status};
use crate::app::AppState;
use crate::audit::{self, Action, Subject};
use crate::error::{ApiError, Code, ErrorEnvelope};
use crate::http::permission::{ReadJobs, WriteJobs};
use crate::http::text::plain;
use crate::http::{Allowed, Page, PageQuery, RequestId, ValidQuery};

pub fn routes(config: &mut ServiceConfig<'_>) {
    config.service(list_jobs).service(retry_job);
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = JobStatus)]
enum StatusWord {
    Waiting,
    Done,
    Failed,
}

impl From<StatusWord> for Status {
    fn from(word: StatusWord) -> Self {
        match word {
            StatusWord::Waiting => Self::Waiting,
            StatusWord::Done => Self::Done,
            StatusWord::Failed => Self::Failed,
        }
    }
}

impl From<Status> for StatusWord {
    fn from(status: Status) -> Self {
        match status {
            Status::Waiting => Self::Waiting,
            Status::Done => Self::Done,
            Status::Failed => Self::Failed,
        }
    }
}

#[derive(Debug, Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
struct JobsQuery {
    /// `waiting`, `done` or `failed`; all where this is missing.
    #[garde(skip)]
    #[param(inline, example = "failed")]
    status: Option<StatusWord>,
    /// What is to be done, such as `mail`; all where this is missing.
    #[garde(inner(length(chars, max = 30), custom(plain)))]
    #[param(
        max_length = 30,
        pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$",
        example = "mail"
    )]
    kind: Option<String>,
}

/// Work that a commit promised, without what is in it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Job)]
struct JobView {
    id: Uuid,
    #[schema(example = "mail")]
    kind: String,
    status: StatusWord,
    #[schema(example = 3)]
    attempts: i32,
    /// When it is tried next, while it waits; a worker that has it now moved this ahead.
    run_at: DateTime<Utc>,
    /// Why the last attempt failed.
    #[schema(example = "the mail server does not answer")]
    last_error: Option<String>,
    created_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
}

impl From<Job> for JobView {
    fn from(job: Job) -> Self {
        Self {
            id: job.id,
            kind: job.kind,
            status: job.status.into(),
            attempts: job.attempts,
            run_at: job.run_at,
            last_error: job.last_error,
            created_at: job.created_at,
            ended_at: job.ended_at,
        }
    }
}

/// Jobs that wait, and those that ended in the last week; the newest first.
#[utoipa::path(
    tag = "administration",
    security(("bearer" = []), ("operator" = [])),
    params(JobsQuery, PageQuery),
    responses((status = 200, description = "One page of jobs", body = Page<JobView>)),
)]
#[get("/admin/jobs")]
async fn list_jobs(
    request: HttpRequest,
    state: web::Data<AppState>,
    _: Allowed<ReadJobs>,
    ValidQuery(query): ValidQuery<JobsQuery>,
    ValidQuery(asked): ValidQuery<PageQuery>,
) -> Result<web::Json<Page<JobView>>, ApiError> {
    let filter = Filter {
        status: query.status.map(Status::from),
        kind: query.kind,
    };
    let mut connection = state.db().get().await?;
    let page = (asked.offset(), asked.limit());
    let (jobs, total) = list::page(&mut connection, &filter, page).await?;
    let data = jobs.into_iter().map(JobView::from).collect();
    let (path, query) = (request.path(), request.query_string());
    Ok(web::Json(Page::new(data, total, asked, path, query)))
}

/// Tries a job that failed again, from its first attempt.
#[utoipa::path(
    tag = "administration",
    security(("bearer" = []), ("operator" = [])),
    params(("id" = Uuid, Path, description = "The job, as the list has it")),
    responses(
        (status = 200, description = "The job, which waits", body = JobView),
        (status = 404, description = "JOB_NOT_FOUND", body = ErrorEnvelope),
        (status = 409, description = "CONFLICT: it did not fail", body = ErrorEnvelope),
    ),
)]
#[post("/admin/jobs/{id}/retry")]
async fn retry_job(
    state: web::Data<AppState>,
    allowed: Allowed<WriteJobs>,
    request: RequestId,
    path: web::Path<Uuid>,
) -> Result<web::Json<JobView>, ApiError> {
    let id = path.into_inner();
    let mut connection = state.db().get().await?;
    let job = connection
        .transaction(async |connection| {
            let was = list::lock(connection, id).await?.ok_or(Code::JobNotFound)?;
            let run_at = list::reopen(connection, id).await?.ok_or_else(|| {
                ApiError::new(Code::Conflict)
                    .with_message("Only a job that failed can be tried again")
            })?;
            let record = audit::Event::new(Action::RetryJob, allowed.actor.clone())
                .on(Subject::Job(id))
                .change(
                    json!({ "status": was.status.as_str(), "attempts": was.attempts }),
                    json!({ "status": Status::Waiting.as_str(), "attempts": 0 }),
                )
                .in_request(&request);
            audit::record(connection, &record).await?;
            Ok::<_, ApiError>(Job {
                status: Status::Waiting,
                attempts: 0,
                run_at,
                ended_at: None,
                ..was
            })
        })
        .await?;
    state.jobs().ring();
    Ok(web::Json(job.into()))
}
