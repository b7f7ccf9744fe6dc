//! Answers on the wire: each point of a series and row of a list, as JSON and as a line of CSV.

use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::analytics::answer::{Names, Row};
use crate::analytics::asked::Scope;
use crate::analytics::period::{Interval, Period};
use crate::analytics::store::{Load, Sums};
use crate::tunnels::QuotaMonth;
use crate::usage::format::{megabits, real};

/// What a series or a list is about.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = AnalyticsPeriod)]
pub(super) struct PeriodView {
    #[schema(inline)]
    interval: Interval,
    /// The beginning of the first bucket.
    from: DateTime<Utc>,
    /// The end of the last.
    to: DateTime<Utc>,
}

impl From<&Period> for PeriodView {
    fn from(period: &Period) -> Self {
        Self {
            interval: period.interval,
            from: period.from,
            to: period.to,
        }
    }
}

/// A bucket for each interval of the period, in order, those without anything included.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Series<T> {
    #[serde(flatten)]
    period: PeriodView,
    /// Null for everybody.
    user_id: Option<Uuid>,
    /// Null for all servers.
    server_id: Option<Uuid>,
    pub(super) data: Vec<T>,
}

impl<T> Series<T> {
    pub(super) fn new(period: &Period, scope: &Scope, data: Vec<T>) -> Self {
        Self {
            period: period.into(),
            user_id: scope.user.map(|user| user.0),
            server_id: scope.server.map(|server| server.0),
            data,
        }
    }
}

/// A list over the whole period.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Summary<T> {
    #[serde(flatten)]
    period: PeriodView,
    pub(super) data: Vec<T>,
}

impl<T> Summary<T> {
    pub(super) fn new(period: &Period, data: Vec<T>) -> Self {
        Self {
            period: period.into(),
            data,
        }
    }
}

/// Bytes count from the client's side, in the hour in which they were stored.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UsagePoint)]
pub(super) struct UsagePoint {
    start: DateTime<Utc>,
    #[schema(example = 1_048_576)]
    bytes_sent: u64,
    #[schema(example = 20_971_520)]
    bytes_received: u64,
    #[schema(example = 22_020_096)]
    total_bytes: u64,
}

impl UsagePoint {
    pub(super) fn new(start: DateTime<Utc>, sums: &Sums) -> Self {
        Self {
            start,
            bytes_sent: sums.bytes_sent,
            bytes_received: sums.bytes_received,
            total_bytes: sums.total_bytes(),
        }
    }
}

impl Row for UsagePoint {
    const HEADER: &'static [Names] = &[&["start", "bytes_sent", "bytes_received", "total_bytes"]];

    fn cells(&self) -> Vec<String> {
        vec![
            text(self.start),
            self.bytes_sent.to_string(),
            self.bytes_received.to_string(),
            self.total_bytes.to_string(),
        ]
    }
}

#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = UsageTotals)]
pub(super) struct Totals {
    #[schema(example = 1_048_576)]
    bytes_sent: u64,
    #[schema(example = 20_971_520)]
    bytes_received: u64,
    #[schema(example = 22_020_096)]
    total_bytes: u64,
}

impl Totals {
    pub(super) fn of(points: &[UsagePoint]) -> Self {
        points.iter().fold(Self::default(), |sum, point| Self {
            bytes_sent: sum.bytes_sent.saturating_add(point.bytes_sent),
            bytes_received: sum.bytes_received.saturating_add(point.bytes_received),
            total_bytes: sum.total_bytes.saturating_add(point.total_bytes),
        })
    }
}

/// What was used of a month's quota.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MonthlyQuota)]
pub(super) struct QuotaView {
    /// Its first day.
    month: NaiveDate,
    /// What counted, while the plan had a quota.
    #[schema(example = 22_020_096)]
    used_bytes: u64,
    /// Of the plan, in the month that runs; null where there is none, and for months that are over.
    #[schema(example = 10_737_418_240_u64)]
    quota_bytes: Option<u64>,
    #[schema(example = 10_715_398_144_u64)]
    remaining_bytes: Option<u64>,
}

impl From<QuotaMonth> for QuotaView {
    fn from(month: QuotaMonth) -> Self {
        Self {
            month: month.month,
            used_bytes: month.used,
            quota_bytes: month.quota,
            remaining_bytes: month.quota.map(|quota| quota.saturating_sub(month.used)),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UsageAnalytics)]
pub(super) struct UsageView {
    #[serde(flatten)]
    pub(super) series: Series<UsagePoint>,
    pub(super) totals: Totals,
    /// Of one user, a month each that the period has a part of, and of all servers; otherwise empty.
    pub(super) quotas: Vec<QuotaView>,
}

/// Connections that began and ended. One that no node acknowledged is none; one ends when its node has let
/// go of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConnectionsPoint)]
pub(super) struct ConnectionsPoint {
    start: DateTime<Utc>,
    #[schema(example = 3)]
    started: u64,
    #[schema(example = 2)]
    ended: u64,
    /// Of those that ended, from their beginnings on.
    #[schema(example = 5400)]
    connected_seconds: u64,
    /// Of each of those; null where none ended.
    #[schema(example = 2700)]
    average_seconds: Option<u64>,
}

impl ConnectionsPoint {
    pub(super) fn new(start: DateTime<Utc>, sums: &Sums) -> Self {
        Self {
            start,
            started: sums.connects,
            ended: sums.ends,
            connected_seconds: sums.connected_seconds,
            average_seconds: sums.connected_seconds.checked_div(sums.ends),
        }
    }
}

impl Row for ConnectionsPoint {
    const HEADER: &'static [Names] = &[&[
        "start",
        "started",
        "ended",
        "connected_seconds",
        "average_seconds",
    ]];

    fn cells(&self) -> Vec<String> {
        vec![
            text(self.start),
            self.started.to_string(),
            self.ended.to_string(),
            self.connected_seconds.to_string(),
            optional(self.average_seconds),
        ]
    }
}

/// Megabits a second from the client's side, over the part of the bucket that is over.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BandwidthPoint)]
pub(super) struct BandwidthPoint {
    start: DateTime<Utc>,
    #[schema(example = 0.291)]
    upload_mbps: f64,
    #[schema(example = 5.825)]
    download_mbps: f64,
    /// The fastest second of one connection, both directions together.
    #[schema(example = 48.2)]
    peak_mbps: f64,
}

impl BandwidthPoint {
    pub(super) fn new(start: DateTime<Utc>, sums: &Sums, seconds: u64) -> Self {
        let average = |bytes: u64| match seconds {
            0 => 0.0,
            seconds => megabits(real(bytes) / real(seconds)),
        };
        Self {
            start,
            upload_mbps: average(sums.bytes_sent),
            download_mbps: average(sums.bytes_received),
            peak_mbps: megabits(real(sums.peak_bytes_per_second)),
        }
    }
}

impl Row for BandwidthPoint {
    const HEADER: &'static [Names] = &[&["start", "upload_mbps", "download_mbps", "peak_mbps"]];

    fn cells(&self) -> Vec<String> {
        vec![
            text(self.start),
            self.upload_mbps.to_string(),
            self.download_mbps.to_string(),
            self.peak_mbps.to_string(),
        ]
    }
}

/// How much servers had to do. Null where none of them answered.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LoadPoint)]
pub(super) struct LoadPoint {
    start: DateTime<Utc>,
    /// 0–100, the mean over servers and minutes.
    #[schema(example = 23.4)]
    load_pct: Option<f64>,
    /// Of one server.
    #[schema(example = 71.0)]
    peak_load_pct: Option<f64>,
    /// At once on the average, over all servers.
    #[schema(example = 812.5)]
    connections: Option<f64>,
    /// At once, of one server.
    #[schema(example = 1203)]
    peak_connections: Option<i32>,
}

impl LoadPoint {
    pub(super) fn new(start: DateTime<Utc>, load: Option<&Load>) -> Self {
        let tenths = |value: f64| (value * 10.0).round() / 10.0;
        Self {
            start,
            load_pct: load.map(|it| tenths(it.load)),
            peak_load_pct: load.map(|it| tenths(it.load_peak)),
            connections: load.map(|it| tenths(it.peers)),
            peak_connections: load.map(|it| it.peers_peak),
        }
    }
}

impl Row for LoadPoint {
    const HEADER: &'static [Names] = &[&[
        "start",
        "load_pct",
        "peak_load_pct",
        "connections",
        "peak_connections",
    ]];

    fn cells(&self) -> Vec<String> {
        vec![
            text(self.start),
            optional(self.load_pct),
            optional(self.peak_load_pct),
            optional(self.connections),
            optional(self.peak_connections),
        ]
    }
}

/// What was used in a time, or by somebody.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = UsedFigures)]
pub(crate) struct Figures {
    #[schema(example = 1_048_576)]
    bytes_sent: u64,
    #[schema(example = 20_971_520)]
    bytes_received: u64,
    #[schema(example = 22_020_096)]
    pub(super) total_bytes: u64,
    /// Connections that began.
    #[schema(example = 3)]
    started: u64,
    /// Connections that ended.
    #[schema(example = 2)]
    ended: u64,
    /// Of those that ended, from their beginnings on.
    #[schema(example = 5400)]
    connected_seconds: u64,
}

impl From<&Sums> for Figures {
    fn from(sums: &Sums) -> Self {
        Self {
            bytes_sent: sums.bytes_sent,
            bytes_received: sums.bytes_received,
            total_bytes: sums.total_bytes(),
            started: sums.connects,
            ended: sums.ends,
            connected_seconds: sums.connected_seconds,
        }
    }
}

impl Figures {
    pub(super) const HEADER: Names = &[
        "bytes_sent",
        "bytes_received",
        "total_bytes",
        "started",
        "ended",
        "connected_seconds",
    ];

    pub(super) fn cells(&self) -> impl Iterator<Item = String> + use<> {
        [
            self.bytes_sent,
            self.bytes_received,
            self.total_bytes,
            self.started,
            self.ended,
            self.connected_seconds,
        ]
        .into_iter()
        .map(|number| number.to_string())
    }
}

pub(super) fn text(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

pub(super) fn optional<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}
