//! Servers as callers read them.

use std::net::IpAddr;

use actix_web::HttpResponse;
use actix_web::http::header::{CONTENT_TYPE, HeaderValue};
use actix_web::web::Bytes;
use chrono::{DateTime, Utc};
use serde::Serialize;
use shared::ids::ServerId;
use utoipa::ToSchema;

use crate::fleet::view::{Seen, Server, ServerStatus};

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Server)]
pub(super) struct ServerView {
    #[schema(value_type = uuid::Uuid)]
    pub(super) id: ServerId,
    #[schema(example = "us-east-1.vpn.example.com")]
    pub(super) hostname: String,
    #[schema(example = "United States")]
    pub(super) country: String,
    /// ISO 3166-1 alpha-2.
    #[schema(example = "US")]
    pub(super) country_code: String,
    #[schema(example = "New York")]
    pub(super) city: String,
    #[schema(example = "us-east")]
    pub(super) location: String,
    #[schema(value_type = String, example = "203.0.113.10")]
    pub(super) ip_address: IpAddr,
    #[schema(example = json!(["wireguard"]))]
    pub(super) protocols: Vec<String>,
    pub(super) status: StatusView,
    /// 0–100: the worst component of the host.
    #[schema(example = 45.5)]
    pub(super) load: f64,
    /// Round trip between the service and the server in milliseconds.
    #[schema(example = 25)]
    pub(super) ping: u32,
    pub(super) bandwidth: BandwidthView,
    #[schema(example = json!(["netflix"]))]
    pub(super) streaming_services: Vec<String>,
    #[schema(example = json!(["p2p"]))]
    pub(super) features: Vec<String>,
    /// The lowest plan tier that may use the server.
    #[schema(minimum = 0)]
    pub(super) tier: i16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ServerStatus)]
pub(super) enum StatusView {
    Operational,
    /// Takes no new clients for now.
    Maintenance,
    Offline,
}

/// Mbit/s, from the client's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Bandwidth)]
pub(super) struct BandwidthView {
    #[schema(example = 1000)]
    pub(super) download: u32,
    #[schema(example = 1000)]
    pub(super) upload: u32,
}

impl ServerView {
    pub(super) fn new(server: &Server, now: DateTime<Utc>) -> Self {
        let seen = server.live().seen(now);
        Self {
            id: server.id,
            hostname: server.hostname.clone(),
            country: server.country.clone(),
            country_code: server.country_code.clone(),
            city: server.city.clone(),
            location: server.location.clone(),
            ip_address: server.ip_address,
            protocols: server.protocols.clone(),
            status: StatusView::of(server, seen),
            load: seen.load,
            ping: seen.ping,
            bandwidth: BandwidthView {
                download: server.download_mbps,
                upload: server.upload_mbps,
            },
            streaming_services: server.streaming_services.clone(),
            features: server.features.clone(),
            tier: server.tier,
        }
    }
}

/// The answer with a page as it was written.
pub(super) fn page_response(page: Bytes) -> HttpResponse {
    HttpResponse::Ok()
        // Not by `content_type`, which writes the same text anew for every answer.
        .insert_header((CONTENT_TYPE, HeaderValue::from_static("application/json")))
        .body(page)
}

impl StatusView {
    fn of(server: &Server, seen: Seen) -> Self {
        match server.status {
            ServerStatus::Active if !seen.is_online => Self::Offline,
            ServerStatus::Active if seen.is_draining || server.is_drained => Self::Maintenance,
            ServerStatus::Active => Self::Operational,
            ServerStatus::Maintenance => Self::Maintenance,
            ServerStatus::Offline => Self::Offline,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::view::tests::{online, profile};
    use crate::fleet::view::{Live, Profile};

    type Tweak = fn(&mut Profile, &mut Live);

    const STATUSES: &[(Tweak, StatusView)] = &[
        (|_, _| (), StatusView::Operational),
        (|_, live| live.last_seen = None, StatusView::Offline),
        (|_, live| live.replica = None, StatusView::Offline),
        (|_, live| live.draining = true, StatusView::Maintenance),
        (
            |profile, _| profile.is_drained = true,
            StatusView::Maintenance,
        ),
        (
            |profile, _| profile.status = ServerStatus::Maintenance,
            StatusView::Maintenance,
        ),
        (
            |profile, _| profile.status = ServerStatus::Offline,
            StatusView::Offline,
        ),
    ];

    #[test]
    fn says_what_a_client_can_expect() {
        let now = Utc::now();
        for (tweak, status) in STATUSES {
            let (mut profile, mut live) = (profile(1), online(now));
            live.load = 45.4567;
            tweak(&mut profile, &mut live);
            let view = ServerView::new(&Server::new(profile, live), now);
            assert_eq!((view.status, view.load), (*status, 45.5));
        }
    }
}
