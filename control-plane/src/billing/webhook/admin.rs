//! `/admin/billing/events`

use actix_web::{HttpRequest, get, post, web};
use chrono::{DateTime, Utc};
use diesel_async::AsyncConnection;
use garde::Validate;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{EventStatus, StoredEvent, job, store};
use crate::app::AppState;
use crate::audit::{self, Action};
use crate::error::{ApiError, Code, ErrorEnvelope};
use crate::http::permission::{ReadBilling, WriteBilling};
use crate::http::{Allowed, Page, PageQuery, RequestId, ValidQuery};
use crate::jobs;

#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = BillingEventStatus)]
enum StatusWord {
    Waiting,
    Done,
    Parked,
}

impl From<StatusWord> for EventStatus {
    fn from(word: StatusWord) -> Self {
        match word {
            StatusWord::Waiting => Self::Waiting,
            StatusWord::Done => Self::Done,
            StatusWord::Parked => Self::Parked,
        }
    }
}

impl From<EventStatus> for StatusWord {
    fn from(status: EventStatus) -> Self {
        match status {
            EventStatus::Waiting => Self::Waiting,
            EventStatus::Done => Self::Done,
            EventStatus::Parked => Self::Parked,
        }
    }
}

#[derive(Debug, Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
struct EventsQuery {
    /// `waiting`, `done` or `parked`; all where this is missing.
    #[garde(skip)]
    #[param(inline, example = "parked")]
    status: Option<StatusWord>,
}

/// Something that Stripe told.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BillingEvent)]
struct EventView {
    /// Ours, not Stripe's.
    id: Uuid,
    #[serde(rename = "type")]
    #[schema(example = "customer.subscription.updated")]
    kind: String,
    status: StatusWord,
    #[schema(example = 1)]
    attempts: i32,
    /// Why the last attempt failed.
    #[schema(example = "Stripe cannot be reached")]
    last_error: Option<String>,
    received_at: DateTime<Utc>,
    done_at: Option<DateTime<Utc>>,
}

impl From<StoredEvent> for EventView {
    fn from(event: StoredEvent) -> Self {
        Self {
            id: event.id,
            kind: event.kind,
            status: event.status.into(),
            attempts: event.attempts,
            last_error: event.last_error,
            received_at: event.received_at,
            done_at: event.done_at,
        }
    }
}

/// What Stripe told in the last thirty days, and all that could not be acted on; the newest first.
#[utoipa::path(
    tag = "administration",
    security(("bearer" = []), ("operator" = [])),
    params(EventsQuery, PageQuery),
    responses((status = 200, description = "One page of events", body = Page<EventView>)),
)]
#[get("/admin/billing/events")]
pub(super) async fn list_events(
    request: HttpRequest,
    state: web::Data<AppState>,
    _: Allowed<ReadBilling>,
    ValidQuery(query): ValidQuery<EventsQuery>,
    ValidQuery(asked): ValidQuery<PageQuery>,
) -> Result<web::Json<Page<EventView>>, ApiError> {
    let status = query.status.map(EventStatus::from);
    let page = (asked.offset(), asked.limit());
    let mut connection = state.db().get().await?;
    let (events, total) = store::page(&mut connection, status, page).await?;
    let data = events.into_iter().map(EventView::from).collect();
    let (path, query) = (request.path(), request.query_string());
    Ok(web::Json(Page::new(data, total, asked, path, query)))
}

/// Acts on an event again: one that failed for good, or was done with.
#[utoipa::path(
    tag = "administration",
    security(("bearer" = []), ("operator" = [])),
    params(("id" = Uuid, Path, description = "The event, as the list has it")),
    responses(
        (status = 200, description = "The event, which waits", body = EventView),
        (status = 404, description = "BILLING_EVENT_NOT_FOUND", body = ErrorEnvelope),
        (status = 409, description = "CONFLICT: it waits already", body = ErrorEnvelope),
    ),
)]
#[post("/admin/billing/events/{id}/replay")]
pub(super) async fn replay_event(
    state: web::Data<AppState>,
    allowed: Allowed<WriteBilling>,
    request: RequestId,
    path: web::Path<Uuid>,
) -> Result<web::Json<EventView>, ApiError> {
    let id = path.into_inner();
    let mut connection = state.db().get().await?;
    let event = connection
        .transaction(async |connection| {
            let was = store::reopen(connection, id).await?;
            let event = store::find(connection, id).await?;
            let event = event.ok_or(Code::BillingEventNotFound)?;
            let was = was.ok_or_else(|| {
                ApiError::new(Code::Conflict).with_message("The event waits already")
            })?;
            jobs::enqueue(connection, state.keys(), job::KIND, &id).await?;
            let record = audit::Event::new(Action::ReplayBillingEvent, allowed.actor.clone())
                .on(audit::Subject::BillingEvent(id))
                .change(
                    json!({ "status": was.as_str() }),
                    json!({ "status": event.status.as_str() }),
                )
                .in_request(&request);
            audit::record(connection, &record).await?;
            Ok::<_, ApiError>(event)
        })
        .await?;
    state.jobs().ring();
    Ok(web::Json(event.into()))
}
