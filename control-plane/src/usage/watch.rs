//! What somebody who watches a user's connections is told: a pure core.

use std::time::Instant;

use chrono::{DateTime, Utc};
use shared::ids::{ConnectionId, PeerId, ServerId};

use super::audience::Shown;
use super::format::{megabits, rate, real};
use super::ledger::Ledger;
use super::live::Reading;
use super::message::{Event, Message, Metrics, MetricsData};
use super::news::{News, Offers, ServerNow, Told};

/// A connection that a client can use, as the database has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Watched {
    pub(super) connection: ConnectionId,
    pub(super) server: Option<ServerId>,
    pub(super) peer: PeerId,
    pub(super) ledger: Ledger,
    pub(super) offers: Offers,
}

impl Watched {
    /// Whether nothing but bytes tells them apart.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let ledger = self.ledger;
        *self == Self { ledger, ..*other }
    }
}

/// A peer's figures at this moment, as far as this replica has them.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Figures {
    pub(super) reading: Option<Reading>,
    /// Milliseconds.
    pub(super) ping: Option<u32>,
    pub(super) server_load: Option<f64>,
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
    told_of_server: Told,
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
        // Most people have one, and there are thousands of sockets.
        let more = rows.len().saturating_sub(self.followed.len());
        self.followed.reserve_exact(more);
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
                told_of_server: Told::default(),
            };
            events.push(Message::Connected(followed.event(timestamp)));
            self.followed.push(followed);
        }
        events
    }

    /// The metrics at this moment.
    pub(super) fn metrics(
        &mut self,
        timestamp: DateTime<Utc>,
        figures: impl Fn(ServerId, PeerId) -> Figures,
    ) -> Vec<Message> {
        let metrics = |followed: &mut Followed| {
            let server = followed.row.server;
            let figures = server.map(|server| figures(server, followed.row.peer));
            followed.metrics(timestamp, &figures.unwrap_or_default())
        };
        self.followed.iter_mut().map(metrics).collect()
    }

    /// What there is to tell of the connections' servers. It stays to be told until [`Watch::tell`].
    pub(super) fn news(
        &mut self,
        server_now: impl Fn(ServerId) -> Option<ServerNow>,
    ) -> Vec<(ConnectionId, News)> {
        let mut all = Vec::new();
        for followed in &mut self.followed {
            let (offers, now) = (
                &followed.row.offers,
                followed.row.server.and_then(&server_now),
            );
            followed.told_of_server.note(offers, now.as_ref());
            let news = followed.told_of_server.news(offers, now.as_ref());
            all.extend(news.into_iter().map(|news| (followed.row.connection, news)));
        }
        all
    }

    /// The client was told.
    pub(super) fn tell(&mut self, connection: ConnectionId, news: &News) {
        let mut followed = self.followed.iter_mut();
        if let Some(followed) = followed.find(|it| it.row.connection == connection) {
            followed.told_of_server.tell(news);
        }
    }

    /// Whether no connection is followed.
    pub(super) const fn is_empty(&self) -> bool {
        self.followed.is_empty()
    }

    /// What the socket shows.
    pub(super) fn shown(&self) -> Vec<Shown> {
        let shown = |followed: &Followed| {
            Some(Shown {
                connection: followed.row.connection,
                server: followed.row.server?,
                peer: followed.row.peer,
            })
        };
        self.followed.iter().filter_map(shown).collect()
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

    fn metrics(&mut self, timestamp: DateTime<Utc>, figures: &Figures) -> Message {
        let (ledger, (upload, download)) = match &figures.reading {
            Some(live) => (live.fold(self.row.ledger), (live.upload, live.download)),
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
            ping_ms: figures.ping,
            server_load_pct: figures.server_load,
            data: MetricsData {
                bytes_sent: self.told.sent,
                bytes_received: self.told.received,
                current_speed: rate(upload + download),
                latency: figures.ping,
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
pub(super) mod tests {
    use std::time::Duration;

    use serde_json::json;
    use shared::ids::Generation;
    use shared::protocol::PeerCounters;
    use uuid::Uuid;

    use super::*;

    pub(in crate::usage) fn row(sent: u64, received: u64) -> Watched {
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
            offers: Offers::default(),
        }
    }

    fn reading(sent: u64) -> Figures {
        let reading = Reading {
            counters: PeerCounters {
                generation: Generation(1),
                sent,
                received: 0,
                last_handshake: None,
            },
            earlier: Vec::new(),
            upload: 1_000_000.0,
            download: 250_000.0,
            peak: 0,
        };
        Figures {
            reading: Some(reading),
            ping: Some(25),
            server_load: Some(35.5),
        }
    }

    fn nothing(_: ServerId, _: PeerId) -> Figures {
        Figures::default()
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
        assert!(watch.metrics(at, nothing).is_empty());
    }

    #[test]
    fn metrics_have_the_shape_of_the_contract() {
        let (mut watch, at) = (Watch::default(), DateTime::UNIX_EPOCH);
        watch.refresh(&[row(1000, 20)], Instant::now(), at);
        let told = watch.metrics(at, |_, _| reading(5000));
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
                "ping_ms": 25,
                "server_load_pct": 35.5,
                "data": {
                    "bytes_sent": 5000,
                    "bytes_received": 20,
                    "current_speed": "1.2 MB/s",
                    "latency": 25,
                },
            }])
        );
    }

    #[test]
    fn without_live_counters_the_rows_give_the_speed() {
        let (mut watch, now, at) = (Watch::default(), Instant::now(), Utc::now());
        watch.refresh(&[row(0, 0)], now, at);
        watch.refresh(&[row(2_000_000, 0)], now + Duration::from_secs(2), at);
        let told = watch.metrics(at, nothing);
        let told = serde_json::to_value(&told).expect("JSON");
        assert_eq!(told[0]["upload_speed_mbps"], 8.0);
        assert_eq!(told[0]["bytes_sent"], 2_000_000);
        assert_eq!(told[0]["server_load_pct"], serde_json::Value::Null);
        assert_eq!(told[0]["ping_ms"], serde_json::Value::Null);
    }

    #[test]
    fn totals_never_step_back() {
        let (mut watch, at) = (Watch::default(), Utc::now());
        watch.refresh(&[row(1000, 20)], Instant::now(), at);
        watch.metrics(at, |_, _| reading(5000));
        let told = watch.metrics(at, nothing);
        let told = serde_json::to_value(&told).expect("JSON");
        assert_eq!(told[0]["bytes_sent"], 5000);
    }
}
