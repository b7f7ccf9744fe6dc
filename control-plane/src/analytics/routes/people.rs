//! `/analytics/users/top`

use actix_web::{HttpRequest, HttpResponse, get, web};
use chrono::Utc;
use garde::Validate;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::views::{Figures, Summary};
use crate::analytics::answer::{Names, Row};
use crate::analytics::asked::{FormatQuery, PeriodQuery};
use crate::analytics::store;
use crate::app::AppState;
use crate::error::ApiError;
use crate::http::permission::ReadAnalytics;
use crate::http::{Allowed, ValidQuery};

#[derive(Debug, Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
struct TopQuery {
    /// How many users, at most 100.
    #[garde(range(min = 1, max = 100))]
    #[param(default = 20, minimum = 1, maximum = 100, nullable = false)]
    limit: Option<u32>,
    /// Over one server.
    #[garde(skip)]
    #[param(nullable = false)]
    server_id: Option<Uuid>,
}

/// What a user moved.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UserUsage)]
struct UserRow {
    user_id: Uuid,
    #[serde(flatten)]
    figures: Figures,
}

impl Row for UserRow {
    const HEADER: &'static [Names] = &[&["user_id"], Figures::HEADER];

    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.user_id.to_string()];
        cells.extend(self.figures.cells());
        cells
    }
}

/// The users who moved most bytes in a period.
///
/// The period is made of whole buckets of `interval`, and no longer than 31 days.
#[utoipa::path(
    tag = "analytics",
    security(("bearer" = []), ("operator" = [])),
    params(PeriodQuery, FormatQuery, TopQuery),
    responses((
        status = 200,
        description = "Whoever moved most comes first",
        content((Summary<UserRow> = "application/json"), (String = "text/csv")),
    )),
)]
#[get("/analytics/users/top")]
pub(super) async fn top_users(
    http: HttpRequest,
    state: web::Data<AppState>,
    _: Allowed<ReadAnalytics>,
    ValidQuery(query): ValidQuery<PeriodQuery>,
    ValidQuery(form): ValidQuery<FormatQuery>,
    ValidQuery(top): ValidQuery<TopQuery>,
) -> Result<HttpResponse, ApiError> {
    let period = query.list_period(&state, Utc::now())?;
    let limit = i64::from(top.limit.unwrap_or(20));
    let used = {
        let mut connection = state.db().get().await?;
        store::top_users(&mut connection, &period, top.server_id, limit).await?
    };
    let rows = used.iter().map(|it| UserRow {
        user_id: it.user.0,
        figures: (&it.sums).into(),
    });
    let view = Summary::new(&period, rows.collect());
    form.of(&http).answer(&view, &view.data, "top-users")
}
