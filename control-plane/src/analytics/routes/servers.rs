//! `/analytics/servers/*`

use std::collections::HashMap;

use actix_web::{HttpRequest, HttpResponse, get, web};
use chrono::{DateTime, TimeDelta, Utc};
use garde::Validate;
use serde::{Deserialize, Serialize};
use shared::ids::ServerId;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::views::{Figures, LoadPoint, Series, optional, text};
use crate::analytics::answer::{Format, Names, Row};
use crate::analytics::asked::{FormatQuery, PeriodQuery, Scope};
use crate::analytics::store::{self, Sums};
use crate::app::AppState;
use crate::error::ApiError;
use crate::fleet::Server;
use crate::http::permission::ReadAnalytics;
use crate::http::{Allowed, Page, PageQuery, ValidQuery};

#[derive(Debug, Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
struct StatusQuery {
    /// `csv` for a table of `data`; otherwise `Accept` says it.
    #[garde(skip)]
    #[param(inline, nullable = false)]
    format: Option<Format>,
}

#[derive(Debug, Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
struct OneServer {
    /// One server's; without it that of all.
    #[garde(skip)]
    #[param(nullable = false)]
    server_id: Option<Uuid>,
}

/// How a server is, and what it did in this hour and the 24 before.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ServerStatusRow)]
struct StatusRow {
    server_id: Uuid,
    #[schema(example = "fra1.example.net")]
    hostname: String,
    #[schema(example = "DE")]
    country_code: String,
    #[schema(example = "eu-central")]
    location: String,
    /// The operator's word: `active`, `maintenance` or `offline`.
    #[schema(example = "active")]
    status: String,
    /// Whether the node answers.
    #[schema(example = true)]
    is_online: bool,
    #[schema(example = false)]
    is_draining: bool,
    #[schema(example = 23.4)]
    load_pct: f64,
    #[schema(example = 12)]
    ping_ms: u32,
    /// On the node now.
    #[schema(example = 812)]
    connections: u32,
    #[schema(example = 65_000)]
    capacity: u32,
    last_seen_at: Option<DateTime<Utc>>,
    last_day: Figures,
}

impl StatusRow {
    fn new(server: &Server, lately: &Sums, now: DateTime<Utc>) -> Self {
        let live = server.live();
        let seen = live.seen(now);
        Self {
            server_id: server.id.0,
            hostname: server.hostname.clone(),
            country_code: server.country_code.clone(),
            location: server.location.clone(),
            status: server.status.as_str().to_owned(),
            is_online: seen.is_online,
            is_draining: seen.is_draining || server.is_drained,
            load_pct: seen.load,
            ping_ms: seen.ping,
            connections: live.peers,
            capacity: server.capacity,
            last_seen_at: live.last_seen,
            last_day: lately.into(),
        }
    }
}

impl Row for StatusRow {
    const HEADER: &'static [Names] = &[
        &[
            "server_id",
            "hostname",
            "country_code",
            "location",
            "status",
            "is_online",
            "is_draining",
            "load_pct",
            "ping_ms",
            "connections",
            "capacity",
            "last_seen_at",
        ],
        Figures::HEADER,
    ];

    fn cells(&self) -> Vec<String> {
        let mut cells = vec![
            self.server_id.to_string(),
            self.hostname.clone(),
            self.country_code.clone(),
            self.location.clone(),
            self.status.clone(),
            self.is_online.to_string(),
            self.is_draining.to_string(),
            self.load_pct.to_string(),
            self.ping_ms.to_string(),
            self.connections.to_string(),
            self.capacity.to_string(),
            optional(self.last_seen_at.map(text)),
        ];
        cells.extend(self.last_day.cells());
        cells
    }
}

/// How the servers are, by their names.
#[utoipa::path(
    tag = "analytics",
    security(("bearer" = []), ("operator" = [])),
    params(StatusQuery, PageQuery),
    responses((
        status = 200,
        description = "One page of the servers",
        content((Page<StatusRow> = "application/json"), (String = "text/csv")),
    )),
)]
#[get("/analytics/servers/status")]
pub(super) async fn server_status(
    http: HttpRequest,
    state: web::Data<AppState>,
    _: Allowed<ReadAnalytics>,
    ValidQuery(query): ValidQuery<StatusQuery>,
    ValidQuery(asked): ValidQuery<PageQuery>,
) -> Result<HttpResponse, ApiError> {
    let now = Utc::now();
    let view = state.fleet().view();
    let mut servers: Vec<_> = view.servers().iter().collect();
    servers.sort_unstable_by(|a, b| a.hostname.cmp(&b.hostname));
    let total = u64::try_from(servers.len()).unwrap_or(u64::MAX);
    let (skipped, taken) = (number(asked.offset()), number(asked.limit()));
    let servers: Vec<_> = servers.into_iter().skip(skipped).take(taken).collect();
    let lately = lately(&state, &servers, now).await?;
    let sums = |id: &ServerId| lately.get(id).copied().unwrap_or_default();
    let rows = servers
        .iter()
        .map(|it| StatusRow::new(it, &sums(&it.id), now));
    let page = Page::new(
        rows.collect(),
        total,
        asked,
        http.path(),
        http.query_string(),
    );
    Format::of(query.format, &http).answer(&page, &page.data, "servers")
}

async fn lately(
    state: &AppState,
    servers: &[&std::sync::Arc<Server>],
    now: DateTime<Utc>,
) -> Result<HashMap<ServerId, Sums>, ApiError> {
    let ids: Vec<_> = servers.iter().map(|server| server.id.0).collect();
    let since = now - TimeDelta::hours(25);
    let used = store::lately(&mut *state.db().get().await?, &ids, since).await?;
    Ok(used.into_iter().map(|it| (it.server, it.sums)).collect())
}

fn number(rows: i64) -> usize {
    usize::try_from(rows).unwrap_or(usize::MAX)
}

/// How much the servers had to do, by hours, days or months.
///
/// Looked at once a minute, while a node answers.
#[utoipa::path(
    tag = "analytics",
    security(("bearer" = []), ("operator" = [])),
    params(PeriodQuery, FormatQuery, OneServer),
    responses((
        status = 200,
        description = "A bucket for each interval",
        content((Series<LoadPoint> = "application/json"), (String = "text/csv")),
    )),
)]
#[get("/analytics/servers/load")]
pub(super) async fn server_load(
    http: HttpRequest,
    state: web::Data<AppState>,
    _: Allowed<ReadAnalytics>,
    ValidQuery(query): ValidQuery<PeriodQuery>,
    ValidQuery(form): ValidQuery<FormatQuery>,
    ValidQuery(one): ValidQuery<OneServer>,
) -> Result<HttpResponse, ApiError> {
    let period = query.period(&state, Utc::now())?;
    let scope = Scope {
        user: None,
        server: one.server_id.map(ServerId),
    };
    let loads = store::loads(&mut *state.db().get().await?, one.server_id, &period).await?;
    let loads: HashMap<_, _> = loads.iter().map(|load| (load.start, load)).collect();
    let points = period.starts();
    let points = points.map(|start| LoadPoint::new(start, loads.get(&start).copied()));
    let view = Series::new(&period, &scope, points.collect());
    form.of(&http).answer(&view, &view.data, "load")
}

/// What went over a server.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ServerUsage)]
struct ServerRow {
    server_id: Uuid,
    /// While there is such a server.
    #[schema(example = "fra1.example.net")]
    hostname: Option<String>,
    #[serde(flatten)]
    figures: Figures,
}

impl Row for ServerRow {
    const HEADER: &'static [Names] = &[&["server_id", "hostname"], Figures::HEADER];

    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.server_id.to_string(), optional(self.hostname.clone())];
        cells.extend(self.figures.cells());
        cells
    }
}

/// What went over each server in a period, the busiest first.
///
/// The period is made of whole buckets of `interval`, and no longer than 31 days.
#[utoipa::path(
    tag = "analytics",
    security(("bearer" = []), ("operator" = [])),
    params(PeriodQuery, FormatQuery, PageQuery),
    responses((
        status = 200,
        description = "One page of the servers that were used",
        content((Page<ServerRow> = "application/json"), (String = "text/csv")),
    )),
)]
#[get("/analytics/servers/usage")]
pub(super) async fn server_usage(
    http: HttpRequest,
    state: web::Data<AppState>,
    _: Allowed<ReadAnalytics>,
    ValidQuery(query): ValidQuery<PeriodQuery>,
    ValidQuery(form): ValidQuery<FormatQuery>,
    ValidQuery(asked): ValidQuery<PageQuery>,
) -> Result<HttpResponse, ApiError> {
    let period = query.list_period(&state, Utc::now())?;
    let page = (asked.offset(), asked.limit());
    let (used, total) = {
        let mut connection = state.db().get().await?;
        store::by_server(&mut connection, &period, page).await?
    };
    let view = state.fleet().view();
    let rows = used.iter().map(|it| ServerRow {
        server_id: it.server.0,
        hostname: view.get(it.server).map(|server| server.hostname.clone()),
        figures: (&it.sums).into(),
    });
    let page = Page::new(
        rows.collect(),
        total,
        asked,
        http.path(),
        http.query_string(),
    );
    form.of(&http).answer(&page, &page.data, "server-usage")
}
