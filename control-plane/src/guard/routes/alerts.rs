//! `/admin/security/alerts`

use actix_web::{HttpRequest, get, put, web};
use chrono::{DateTime, Utc};
use diesel_async::AsyncConnection;
use garde::Validate;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::bans::named;
use crate::app::AppState;
use crate::audit::{self, Action, Event};
use crate::error::{ApiError, ErrorEnvelope};
use crate::guard::alerts::{Alert, AlertKind, Filter};
use crate::http::permission::{ReadSecurity, WriteSecurity};
use crate::http::{Allowed, Page, PageQuery, RequestId, ValidQuery};

#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum FilterWord {
    #[default]
    Open,
    All,
}

#[derive(Debug, Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
struct AlertsQuery {
    /// `open`: those that nobody acknowledged, which is meant where this is missing; or `all`.
    #[garde(skip)]
    #[param(inline, example = "open")]
    filter: Option<FilterWord>,
}

/// An attack.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SecurityAlert)]
struct AlertView {
    id: Uuid,
    kind: AlertKind,
    /// The account whose password is guessed.
    user_id: Option<Uuid>,
    started_at: DateTime<Utc>,
    last_seen_at: DateTime<Utc>,
    /// Null while it goes on: until nothing was seen of it for a quarter of an hour.
    ended_at: Option<DateTime<Utc>>,
    /// How many bans, tries or refusals it was.
    #[schema(example = 12)]
    count: u64,
    /// When the operators were sent a mail about it.
    notified_at: Option<DateTime<Utc>>,
    acknowledged_at: Option<DateTime<Utc>>,
    /// The kind and the id of who acknowledged it.
    #[schema(example = "user:0190a0c8-0000-7000-8000-000000000001")]
    acknowledged_by: Option<String>,
}

impl From<Alert> for AlertView {
    fn from(alert: Alert) -> Self {
        Self {
            id: alert.id,
            kind: alert.kind,
            user_id: alert.user.map(|user| user.0),
            started_at: alert.started_at,
            last_seen_at: alert.last_seen_at,
            ended_at: alert.ended_at,
            count: alert.count,
            notified_at: alert.notified_at,
            acknowledged_at: alert.acknowledged_at,
            acknowledged_by: alert.acknowledged_by,
        }
    }
}

/// The attacks that protection saw in the last ninety days, the newest first.
#[utoipa::path(
    tag = "administration",
    security(("bearer" = []), ("operator" = [])),
    params(AlertsQuery, PageQuery),
    responses((status = 200, description = "One page of alerts", body = Page<AlertView>)),
)]
#[get("/admin/security/alerts")]
pub(super) async fn list_alerts(
    request: HttpRequest,
    state: web::Data<AppState>,
    _: Allowed<ReadSecurity>,
    ValidQuery(query): ValidQuery<AlertsQuery>,
    ValidQuery(asked): ValidQuery<PageQuery>,
) -> Result<web::Json<Page<AlertView>>, ApiError> {
    let filter = match query.filter.unwrap_or_default() {
        FilterWord::Open => Filter::Open,
        FilterWord::All => Filter::All,
    };
    let page = (asked.offset(), asked.limit());
    let (alerts, total) = state.guard().alerts.page(filter, page).await?;
    let data = alerts.into_iter().map(AlertView::from).collect();
    let (path, query) = (request.path(), request.query_string());
    Ok(web::Json(Page::new(data, total, asked, path, query)))
}

/// Says that somebody looks into an attack. Of several who do, the first stays on record.
#[utoipa::path(
    tag = "administration",
    security(("bearer" = []), ("operator" = [])),
    params(("id" = Uuid, Path, description = "The alert")),
    responses(
        (status = 200, description = "The alert", body = AlertView),
        (status = 404, description = "ALERT_NOT_FOUND", body = ErrorEnvelope),
    ),
)]
#[put("/admin/security/alerts/{id}/acknowledge")]
pub(super) async fn acknowledge_alert(
    state: web::Data<AppState>,
    allowed: Allowed<WriteSecurity>,
    request: RequestId,
    path: web::Path<Uuid>,
) -> Result<web::Json<AlertView>, ApiError> {
    let (id, by) = (path.into_inner(), named(&allowed.actor));
    let alerts = &state.guard().alerts;
    let mut connection = state.db().get().await?;
    let alert = connection
        .transaction(async |connection| {
            let (alert, is_first) = alerts.acknowledge(connection, id, &by).await?;
            if is_first {
                let event = Event::new(Action::AcknowledgeAlert, allowed.actor.clone())
                    .on(audit::Subject::Alert(id))
                    .change(Value::Null, json!({ "kind": alert.kind }))
                    .in_request(&request);
                audit::record(connection, &event).await?;
            }
            Ok::<_, ApiError>(alert)
        })
        .await?;
    Ok(web::Json(alert.into()))
}
