//! `/admin/audit`

use actix_web::{HttpRequest, get, web};
use chrono::{DateTime, Datelike, Utc};
use garde::Validate;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_actix_web::service_config::ServiceConfig;
use uuid::Uuid;

use super::entry::{Entry, Filter};
use super::store;
use crate::app::AppState;
use crate::error::ApiError;
use crate::http::permission::ReadAudit;
use crate::http::text::plain;
use crate::http::{Allowed, Page, PageQuery, ValidQuery};

pub fn routes(config: &mut ServiceConfig<'_>) {
    config.service(list);
}

/// Every filter that is given has to hold.
#[derive(Debug, Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
struct AuditQuery {
    /// What was done, such as `account.change_status`.
    #[garde(inner(length(chars, max = 50), custom(plain)))]
    #[param(
        max_length = 50,
        pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$",
        example = "account.change_status"
    )]
    action: Option<String>,
    /// Who acted: the id of a person or of an operator token.
    #[garde(inner(length(chars, max = 100), custom(plain)))]
    #[param(max_length = 100, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$")]
    actor: Option<String>,
    /// The id of what was acted on.
    #[garde(inner(length(chars, max = 100), custom(plain)))]
    #[param(max_length = 100, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$")]
    subject: Option<String>,
    /// The first moment.
    #[garde(inner(custom(in_our_era)))]
    from: Option<DateTime<Utc>>,
    /// The first moment after.
    #[garde(inner(custom(in_our_era)))]
    to: Option<DateTime<Utc>>,
}

/// RFC 3339 has four digits for a year. chrono reads more, Postgres stores fewer.
fn in_our_era(time: &DateTime<Utc>, (): &()) -> garde::Result {
    if (0..=9999).contains(&time.year()) {
        return Ok(());
    }
    Err(garde::Error::new("must be a time of RFC 3339"))
}

/// A row of the log.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditEntry)]
struct EntryView {
    id: Uuid,
    at: DateTime<Utc>,
    #[schema(example = "account.change_status")]
    action: String,
    /// `done` or `refused`.
    #[schema(example = "done")]
    outcome: String,
    actor: ActorView,
    subject: Option<SubjectView>,
    #[schema(value_type = Option<Object>, example = json!({"is_active": true}))]
    before: Option<Value>,
    #[schema(value_type = Option<Object>, example = json!({"is_active": false}))]
    after: Option<Value>,
    #[schema(example = "req_0190a0c8")]
    request_id: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditActor)]
struct ActorView {
    /// `user`, `operator`, `cli`, `system` or `anonymous`.
    #[schema(example = "user")]
    kind: String,
    #[schema(example = "0190a0c8-0000-7000-8000-000000000001")]
    id: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditSubject)]
struct SubjectView {
    /// `user`, `session`, `device`, `operator_token`, `oauth_client`, `server`, `enrolment_token`,
    /// `ban`, `alert`, `plan` or `billing_event`.
    #[schema(example = "user")]
    kind: String,
    #[schema(example = "0190a0c8-0000-7000-8000-000000000002")]
    id: String,
}

/// Who did what to whom, the newest first.
#[utoipa::path(
    tag = "administration",
    security(("bearer" = []), ("operator" = [])),
    params(AuditQuery, PageQuery),
    responses((status = 200, description = "One page of the log", body = Page<EntryView>)),
)]
#[get("/admin/audit")]
async fn list(
    request: HttpRequest,
    state: web::Data<AppState>,
    _: Allowed<ReadAudit>,
    ValidQuery(query): ValidQuery<AuditQuery>,
    ValidQuery(asked): ValidQuery<PageQuery>,
) -> Result<web::Json<Page<EntryView>>, ApiError> {
    let filter = Filter::from(query);
    let (entries, total) = {
        let mut connection = state.db().get().await?;
        store::list(&mut connection, &filter, (asked.offset(), asked.limit())).await?
    };
    let data = entries.into_iter().map(EntryView::from).collect();
    let (path, query) = (request.path(), request.query_string());
    Ok(web::Json(Page::new(data, total, asked, path, query)))
}

impl From<AuditQuery> for Filter {
    fn from(query: AuditQuery) -> Self {
        Self {
            action: query.action,
            actor: query.actor,
            subject: query.subject,
            from: query.from,
            to: query.to,
        }
    }
}

impl From<Entry> for EntryView {
    fn from(entry: Entry) -> Self {
        let subject = entry.subject_kind.zip(entry.subject);
        Self {
            id: entry.id,
            at: entry.at,
            action: entry.action,
            outcome: entry.outcome,
            actor: ActorView {
                kind: entry.actor_kind,
                id: entry.actor,
            },
            subject: subject.map(|(kind, id)| SubjectView { kind, id }),
            before: entry.before,
            after: entry.after,
            request_id: entry.request_id,
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::http::input::parse_query;

    #[rstest]
    #[case("", true)]
    #[case("from=0001-01-01T00:00:00Z&to=9999-12-31T23:59:59Z", true)]
    #[case("from=%2B262142-01-01T00:00:00Z", false)]
    #[case("from=-262143-01-01T00:00:00Z", false)]
    #[case("from=yesterday", false)]
    #[case("actor=a%00b", false)]
    #[case("action=x%0Ay", false)]
    fn filters_are_checked(#[case] query: &str, #[case] accepted: bool) {
        assert_eq!(parse_query::<AuditQuery>(query).is_ok(), accepted);
    }
}
