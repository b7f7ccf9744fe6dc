//! What somebody who watches a user's connections is told: a pure core.

use std::time::Instant;

use chrono::{DateTime, Utc};
use serde::Serialize;
use shared::ids::{ConnectionId, PeerId, ServerId};
use utoipa::ToSchema;
use uuid::Uuid;

use super::format::{megabits, rate, real};
use super::ledger::Ledger;
use super::live::Reading;

/// A connection that a client can use, as the database has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Watched {
    pub(super) connection: ConnectionId,
    pub(super) server: Option<ServerId>,
    pub(super) peer: PeerId,
    pub(super) ledger: Ledger,
}

/// A message of the metrics socket.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Message {
    /// One a second for each connection.
    Metrics(Metrics),
    /// Also for each connection that is there when the socket opens.
    Connected(Event),
    Disconnected(Event),
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(super) struct Metrics {
    timestamp: DateTime<Utc>,
    connection_id: Uuid,
    /// What the client uploaded.
    bytes_sent: u64,
    bytes_received: u64,
    upload_speed_mbps: f64,
    download_speed_mbps: f64,
    /// Null until it is measured.
    ping_ms: Option<u32>,
    server_load_pct: Option<f64>,
    data: MetricsData,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
struct MetricsData {
    bytes_sent: u64,
    bytes_received: u64,
    /// Both directions together.
    #[schema(example = "1.2 MB/s")]
    current_speed: String,
    latency: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(super) struct Event {
    timestamp: DateTime<Utc>,
    connection_id: Uuid,
    bytes_sent: u64,
    bytes_received: u64,
}

/// The connections that one socket follows.
#[derive(Debug, Default)]
pub(super) struct Watch {
    followed: Vec<Followed>,
}

#[derive(Debug)]
struct Followed {
    row: Watched,
    /// When the row was last seen to have moved, and how fast: all there is where the node's session
    /// is on another replica.
    moved: Instant,
    rates: (f64, f64),
    /// What was told last, so that a total never steps back.
    told: Ledger,
}

impl Watch {
    /// Takes what is live now; says what began and what ended.
    pub(super) fn refresh(
        &mut self,
        rows: &[Watched],
        now: Instant,
        timestamp: DateTime<Utc>,
    ) -> Vec<Message> {
        let mut events = Vec::new();
        self.followed.retain(|followed| {
            let live = rows
                .iter()
                .any(|row| row.connection == followed.row.connection);
            if !live {
                events.push(Message::Disconnected(followed.event(timestamp)));
            }
            live
        });
        for row in rows {
            let mut followed = self.followed.iter_mut();
            if let Some(known) = followed.find(|it| it.row.connection == row.connection) {
                known.update(*row, now);
                continue;
            }
            let followed = Followed {
                row: *row,
                moved: now,
                rates: (0.0, 0.0),
                told: row.ledger,
            };
            events.push(Message::Connected(followed.event(timestamp)));
            self.followed.push(followed);
        }
        events
    }

    /// The metrics at this moment. `reading` gives a peer's live counters where they are here,
    /// `load` a server's load.
    pub(super) fn metrics(
        &mut self,
        timestamp: DateTime<Utc>,
        reading: impl Fn(ServerId, PeerId) -> Option<Reading>,
        load: impl Fn(ServerId) -> Option<f64>,
    ) -> Vec<Message> {
        let metrics = |followed: &mut Followed| {
            let server = followed.row.server;
            let reading = server.and_then(|server| reading(server, followed.row.peer));
            followed.metrics(timestamp, reading, server.and_then(&load))
        };
        self.followed.iter_mut().map(metrics).collect()
    }
}

impl Followed {
    fn update(&mut self, row: Watched, now: Instant) {
        let seconds = now.saturating_duration_since(self.moved).as_secs_f64();
        if seconds > 0.0 {
            let since = |new: u64, old: u64| real(new.saturating_sub(old)) / seconds;
            let old = &self.row.ledger;
            self.rates = (
                since(row.ledger.sent, old.sent),
                since(row.ledger.received, old.received),
            );
            self.moved = now;
        }
        self.row = row;
    }

    fn metrics(
        &mut self,
        timestamp: DateTime<Utc>,
        reading: Option<Reading>,
        load: Option<f64>,
    ) -> Message {
        let (ledger, (upload, download)) = match reading {
            Some(live) => (
                self.row.ledger.fold(&live.counters),
                (live.upload, live.download),
            ),
            None => (self.row.ledger, self.rates),
        };
        if ledger.sent >= self.told.sent && ledger.received >= self.told.received {
            self.told = ledger;
        }
        Message::Metrics(Metrics {
            timestamp,
            connection_id: self.row.connection.0,
            bytes_sent: self.told.sent,
            bytes_received: self.told.received,
            upload_speed_mbps: megabits(upload),
            download_speed_mbps: megabits(download),
            ping_ms: None,
            server_load_pct: load,
            data: MetricsData {
                bytes_sent: self.told.sent,
                bytes_received: self.told.received,
                current_speed: rate(upload + download),
                latency: None,
            },
        })
    }

    fn event(&self, timestamp: DateTime<Utc>) -> Event {
        Event {
            timestamp,
            connection_id: self.row.connection.0,
            bytes_sent: self.told.sent,
            bytes_received: self.told.received,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use shared::ids::Generation;
    use shared::protocol::PeerCounters;

    use super::*;

    fn row(sent: u64, received: u64) -> Watched {
        Watched {
            connection: ConnectionId(Uuid::from_u128(1)),
            server: Some(ServerId(Uuid::from_u128(2))),
            peer: PeerId(3),
            ledger: Ledger {
                sent,
                received,
                generation: Generation(1),
                generation_sent: sent,
                generation_received: received,
            },
        }
    }

    fn reading(sent: u64) -> Reading {
        Reading {
            counters: PeerCounters {
                generation: Generation(1),
                sent,
                received: 0,
                last_handshake: None,
            },
            upload: 1_000_000.0,
            download: 250_000.0,
            peak: 0,
        }
    }

    fn kinds(messages: &[Message]) -> Vec<String> {
        let kind = |message| serde_json::to_value(message).expect("JSON")["type"].clone();
        let text = |kind: serde_json::Value| kind.as_str().expect("a text").to_owned();
        messages.iter().map(kind).map(text).collect()
    }

    #[test]
    fn begins_and_ends_are_told_once() {
        let (mut watch, now, at) = (Watch::default(), Instant::now(), Utc::now());
        assert_eq!(kinds(&watch.refresh(&[row(0, 0)], now, at)), ["connected"]);
        assert!(watch.refresh(&[row(1, 1)], now, at).is_empty());
        assert_eq!(kinds(&watch.refresh(&[], now, at)), ["disconnected"]);
        assert!(watch.refresh(&[], now, at).is_empty());
        assert!(watch.metrics(at, |_, _| None, |_| None).is_empty());
    }

    #[test]
    fn metrics_have_the_shape_of_the_contract() {
        let (mut watch, at) = (Watch::default(), DateTime::UNIX_EPOCH);
        watch.refresh(&[row(1000, 20)], Instant::now(), at);
        let told = watch.metrics(at, |_, _| Some(reading(5000)), |_| Some(35.5));
        assert_eq!(
            serde_json::to_value(&told).expect("JSON"),
            json!([{
                "type": "metrics",
                "timestamp": "1970-01-01T00:00:00Z",
                "connection_id": Uuid::from_u128(1),
                "bytes_sent": 5000,
                "bytes_received": 20,
                "upload_speed_mbps": 8.0,
                "download_speed_mbps": 2.0,
                "ping_ms": null,
                "server_load_pct": 35.5,
                "data": {
                    "bytes_sent": 5000,
                    "bytes_received": 20,
                    "current_speed": "1.2 MB/s",
                    "latency": null,
                },
            }])
        );
    }

    #[test]
    fn without_live_counters_the_rows_give_the_speed() {
        let (mut watch, now, at) = (Watch::default(), Instant::now(), Utc::now());
        watch.refresh(&[row(0, 0)], now, at);
        watch.refresh(&[row(2_000_000, 0)], now + Duration::from_secs(2), at);
        let told = watch.metrics(at, |_, _| None, |_| None);
        let told = serde_json::to_value(&told).expect("JSON");
        assert_eq!(told[0]["upload_speed_mbps"], 8.0);
        assert_eq!(told[0]["bytes_sent"], 2_000_000);
        assert_eq!(told[0]["server_load_pct"], serde_json::Value::Null);
    }

    #[test]
    fn totals_never_step_back() {
        let (mut watch, at) = (Watch::default(), Utc::now());
        watch.refresh(&[row(1000, 20)], Instant::now(), at);
        watch.metrics(at, |_, _| Some(reading(5000)), |_| None);
        let told = watch.metrics(at, |_, _| None, |_| None);
        let told = serde_json::to_value(&told).expect("JSON");
        assert_eq!(told[0]["bytes_sent"], 5000);
    }
}
