//! What somebody who watches a user's connections is told, and when: a message a second, news as it
//! happens, the database every few seconds or when something changed. How it reaches them is for
//! the carriers: [`super::metrics_socket`] and [`super::event_stream`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::web;
use chrono::Utc;
use shared::ids::{ConnectionId, PeerId, ServerId};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::audience::Seat;
use super::message::{Message, QuotaWarning, ServerKeyChanged, ServerKeyChanging, ServerTrouble};
use super::news::{News, ServerNow};
use super::quota_alarm::QuotaAlarm;
use super::viewer::Viewer;
use super::watch::{Figures, Watch};
use super::watchlist::Listed;
use crate::app::AppState;
use crate::error::{ApiError, Code};
use crate::fleet::Trouble;
use crate::http::Stay;
use crate::tunnels;

/// Those who may watch one user at once on one replica.
const MAX_PER_USER: usize = 16;
const TICK: Duration = Duration::from_secs(1);
/// Ticks between two signs of life.
const BEAT_TICKS: u32 = 15;

/// Why it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The client closed it or is gone.
    Client,
    /// The token expired or was revoked.
    Unauthorized,
    TooSlow,
    /// The service stops, or lost its database.
    Away,
}

/// What there is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cue {
    Stop,
    Expired,
    Changed,
    Tick,
}

/// What is to be carried.
#[derive(Debug)]
pub(super) enum Said {
    Message(Message),
    /// Nothing but a sign of life.
    Beat,
}

/// Tells one viewer.
#[derive(Debug)]
pub(super) struct Teller {
    state: web::Data<AppState>,
    viewer: Viewer,
    stay: Stay,
    listed: Arc<Listed>,
    /// Of the connections, what was told of.
    reading: u64,
    seat: Seat,
    watch: Watch,
    stop: CancellationToken,
    tick: Interval,
    ticks: u32,
    alarm: QuotaAlarm,
}

impl Teller {
    /// `RATE_LIMITED` where too many watch the same user here.
    pub(super) fn new(state: web::Data<AppState>, viewer: Viewer) -> Result<Self, ApiError> {
        let listed = state.live().watchlist().watch(viewer.user);
        // Each teller holds one.
        if Arc::strong_count(&listed) > MAX_PER_USER {
            return Err(Code::RateLimited.into());
        }
        let mut tick = interval(TICK);
        // A message that is late makes no other late.
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        Ok(Self {
            stay: Stay::of(&viewer.who),
            seat: state.live().audience().seat(viewer.is_owner()),
            stop: state.shutdown().clone(),
            state,
            viewer,
            listed,
            reading: 0,
            watch: Watch::default(),
            tick,
            ticks: 0,
            alarm: QuotaAlarm::default(),
        })
    }

    pub(super) fn state(&self) -> &AppState {
        &self.state
    }

    pub(super) const fn viewer(&self) -> &Viewer {
        &self.viewer
    }

    /// Waits for what to do next. May be dropped at any point.
    pub(super) async fn cue(&mut self) -> Cue {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Cue::Stop,
            () = self.stay.over() => Cue::Expired,
            () = self.listed.changed() => Cue::Changed,
            _ = self.tick.tick() => Cue::Tick,
        }
    }

    /// Does it: what is to be carried now, in this order.
    pub(super) async fn tell(&mut self, cue: Cue) -> Result<Vec<Said>, End> {
        let mut said = Vec::new();
        match cue {
            Cue::Stop => return Err(End::Away),
            Cue::Expired => return Err(End::Unauthorized),
            Cue::Changed => {
                let is_first = self.reading == 0;
                self.refresh(&mut said);
                self.say_news(&mut said).await;
                if is_first {
                    self.tick.reset_immediately();
                }
            }
            Cue::Tick => self.on_tick(&mut said).await?,
        }
        Ok(said)
    }

    async fn on_tick(&mut self, said: &mut Vec<Said>) -> Result<(), End> {
        let ticks = self.ticks;
        self.ticks = ticks.wrapping_add(1);
        if !self.stay.goes_on(&self.viewer.who, &self.state).await {
            return Err(End::Unauthorized);
        }
        self.refresh(said);
        if ticks.is_multiple_of(BEAT_TICKS) {
            said.push(Said::Beat);
        }
        self.say_news(said).await;
        if !self.watch.is_empty() {
            said.extend(self.quota_warning().map(Said::Message));
        }
        let state = &self.state;
        let metrics = self
            .watch
            .metrics(Utc::now(), |server, peer| figures(state, server, peer));
        said.extend(metrics.into_iter().map(Said::Message));
        Ok(())
    }

    fn quota_warning(&mut self) -> Option<Message> {
        let month = self.listed.month()?;
        let percent = self.alarm.news(&month)?;
        Some(Message::QuotaWarning(QuotaWarning {
            timestamp: Utc::now(),
            percent,
            quota_bytes: month.quota,
            used_bytes: month.used,
        }))
    }

    /// Says what there is of the connections' servers. What cannot be said now is said a second later.
    async fn say_news(&mut self, said: &mut Vec<Said>) {
        let state = &self.state;
        for (connection, news) in self.watch.news(|server| server_now(state, server)) {
            // Boxed, or each of thousands has the room that a query takes.
            match Box::pin(self.message(connection, &news)).await {
                Ok(message) => {
                    self.watch.tell(connection, &news);
                    said.extend(message.map(Said::Message));
                }
                Err(error) => tracing::debug!(%connection, %error, "usage.news_delayed"),
            }
        }
    }

    /// The words for it; none where it is no longer so.
    async fn message(
        &self,
        connection: ConnectionId,
        news: &News,
    ) -> Result<Option<Message>, ApiError> {
        let (timestamp, connection_id) = (Utc::now(), connection.0);
        let (user, is_owner) = (self.viewer.user, self.viewer.is_owner());
        Ok(Some(match news {
            News::Trouble { trouble, offer } => {
                let replacement = match offer {
                    Some(offer) if is_owner => {
                        let there = tunnels::offered(&self.state, user, offer.connection).await?;
                        let Some(there) = there else { return Ok(None) };
                        Some(Box::new(there))
                    }
                    _ => None,
                };
                let event = ServerTrouble {
                    timestamp,
                    connection_id,
                    replacement,
                    replacement_expires_at: offer.map(|offer| offer.until),
                };
                match trouble {
                    Trouble::Draining => Message::ServerDraining(event),
                    Trouble::Unreachable => Message::ServerUnreachable(event),
                }
            }
            News::KeyChanging(next) => Message::ServerKeyChanging(ServerKeyChanging {
                timestamp,
                connection_id,
                next_public_key: next.public_key.to_base64(),
                key_changes_at: next.at,
            }),
            News::KeyChanged(key) => Message::ServerKeyChanged(ServerKeyChanged {
                timestamp,
                connection_id,
                server_public_key: key.to_base64(),
                wg_config: match is_owner {
                    true => tunnels::configuration(&self.state, user, connection).await?,
                    false => None,
                },
            }),
        }))
    }

    /// Takes in what the database said since; without an answer of it, it goes on with what it knows.
    fn refresh(&mut self, said: &mut Vec<Said>) {
        let Some(read) = self.listed.since(self.reading) else {
            return;
        };
        self.reading = read.reading;
        let events = self.watch.refresh(&read.rows, Instant::now(), Utc::now());
        self.seat.show(self.watch.shown());
        said.extend(events.into_iter().map(Said::Message));
    }
}

/// Says every second at whose round trips the viewers of this replica look, until the service stops.
pub async fn look(state: &AppState) {
    let tick = || sleep(TICK);
    while state.shutdown().run_until_cancelled(tick()).await.is_some() {
        state.fleet().look_at(state.live().audience().peers());
    }
}

fn figures(state: &AppState, server: ServerId, peer: PeerId) -> Figures {
    let (live, view) = (state.live(), state.fleet().view());
    Figures {
        reading: live.reading(server, peer),
        ping: live.ping(server, peer),
        server_load: view.get(server).map(|server| server.live().load),
    }
}

fn server_now(state: &AppState, server: ServerId) -> Option<ServerNow> {
    let (fleet, silence) = (state.fleet(), state.config().vpn.offer_after_silence);
    let view = fleet.view();
    let server = view.get(server)?;
    Some(ServerNow {
        trouble: fleet.trouble(server, silence),
        public_key: server.public_key,
        next_key: server.next_key,
    })
}
