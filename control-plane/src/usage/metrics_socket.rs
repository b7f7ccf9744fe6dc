//! One open metrics socket: a second's tick, the database every few seconds or when something
//! changed, and the client's silence or haste.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::web;
use actix_ws::{AggregatedMessage, AggregatedMessageStream, CloseCode, CloseReason, Session};
use chrono::{DateTime, Utc};
use shared::ids::{ConnectionId, PeerId, ServerId};
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use super::audience::Seat;
use super::message::{Message, ServerKeyChanged, ServerKeyChanging, ServerTrouble};
use super::news::{News, ServerNow};
use super::store;
use super::viewer::Viewer;
use super::watch::{Figures, Watch};
use crate::app::AppState;
use crate::error::ApiError;
use crate::fleet::Trouble;
use crate::tunnels;

const TICK: Duration = Duration::from_secs(1);
/// Ticks between two looks into the database while nothing is known to have changed.
const REFRESH_TICKS: u32 = 3;
const PING_TICKS: u32 = 15;
/// A client that says nothing, not even to a ping, for so long is gone.
const SILENCE: Duration = Duration::from_secs(45);
/// A client that does not take a message within this time is too slow.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a socket ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The client closed it or is gone.
    Client,
    /// The token expired or was revoked.
    Unauthorized,
    TooSlow,
    /// The service stops, or lost its database.
    Away,
}

impl End {
    fn reason(self) -> Option<CloseReason> {
        let (code, text) = match self {
            Self::Client => return None,
            Self::Unauthorized => (CloseCode::Other(4401), "the token is no longer valid"),
            Self::TooSlow => (CloseCode::Other(4408), "messages were not taken in time"),
            Self::Away => (CloseCode::Away, "the service stops"),
        };
        Some((code, text).into())
    }
}

/// A socket on which somebody watches the connections of a user.
pub(super) struct Socket {
    pub(super) state: web::Data<AppState>,
    pub(super) viewer: Viewer,
    pub(super) session: Session,
    pub(super) changed: Arc<Notify>,
    pub(super) seat: Seat,
}

impl Socket {
    /// Serves until one side ends it.
    pub(super) async fn run(mut self, mut incoming: AggregatedMessageStream) {
        metrics::gauge!("usage_metrics_sockets").increment(1.0);
        let end = self.serve(&mut incoming).await;
        metrics::gauge!("usage_metrics_sockets").decrement(1.0);
        tracing::debug!(user = %self.viewer.user, ?end, "usage.socket_closed");
        // One that takes no messages takes no farewell either.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.session.close(end.reason())).await;
    }

    async fn serve(&mut self, incoming: &mut AggregatedMessageStream) -> End {
        let mut watch = Watch::default();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stop = self.state.shutdown().clone();
        let changed = Arc::clone(&self.changed);
        let expiry = expiry(self.viewer.expires_at());
        tokio::pin!(expiry);
        let mut heard = Instant::now();
        let mut ticks = 0_u32;
        loop {
            let step = tokio::select! {
                () = stop.cancelled() => Err(End::Away),
                () = &mut expiry => Err(End::Unauthorized),
                message = incoming.recv() => {
                    heard = Instant::now();
                    self.take(message).await
                }
                () = changed.notified() => self.refresh(&mut watch).await,
                _ = tick.tick() => {
                    let step = if heard.elapsed() > SILENCE {
                        Err(End::Client)
                    } else {
                        self.tick(&mut watch, ticks).await
                    };
                    ticks = ticks.wrapping_add(1);
                    step
                }
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    async fn tick(&mut self, watch: &mut Watch, ticks: u32) -> Result<(), End> {
        if self.viewer.is_out(&self.state) {
            return Err(End::Unauthorized);
        }
        if ticks.is_multiple_of(REFRESH_TICKS) {
            self.check_viewer().await?;
            self.refresh(watch).await?;
        }
        if ticks.is_multiple_of(PING_TICKS) {
            in_time(self.session.ping(b"")).await?;
        }
        self.tell_news(watch).await?;
        let messages = watch.metrics(Utc::now(), |server, peer| self.figures(server, peer));
        self.send(messages).await
    }

    fn figures(&self, server: ServerId, peer: PeerId) -> Figures {
        let (live, view) = (self.state.live(), self.state.fleet().view());
        Figures {
            reading: live.reading(server, peer),
            ping: live.ping(server, peer),
            server_load: view.get(server).map(|server| server.live().load),
        }
    }

    /// Tells of the connections' servers. What cannot be said now is said a second later.
    async fn tell_news(&mut self, watch: &mut Watch) -> Result<(), End> {
        for (connection, news) in watch.news(|server| self.server_now(server)) {
            match self.message(connection, &news).await {
                Ok(message) => {
                    watch.tell(connection, &news);
                    self.send(message.into_iter().collect()).await?;
                }
                Err(error) => tracing::debug!(%connection, %error, "usage.news_delayed"),
            }
        }
        Ok(())
    }

    fn server_now(&self, server: ServerId) -> Option<ServerNow> {
        let (fleet, silence) = (
            self.state.fleet(),
            self.state.config().vpn.offer_after_silence,
        );
        let view = fleet.view();
        let server = view.get(server)?;
        Some(ServerNow {
            trouble: fleet.trouble(server, silence),
            public_key: server.public_key,
            next_key: server.next_key,
        })
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

    /// Whoever lost their right ends the socket. While the database is away they stay: it ends with
    /// its token.
    async fn check_viewer(&self) -> Result<(), End> {
        match self.viewer.is_admitted(&self.state).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(End::Unauthorized),
            Err(error) => {
                tracing::debug!(%error, "usage.viewer_check_failed");
                Ok(())
            }
        }
    }

    /// Looks at what is live. While the database is away the socket goes on with what it knows.
    async fn refresh(&mut self, watch: &mut Watch) -> Result<(), End> {
        let read = async {
            let mut conn = self.state.db().get().await?;
            Ok::<_, crate::error::ApiError>(store::watched(&mut conn, self.viewer.user).await?)
        };
        match read.await {
            Ok(rows) => {
                let events = watch.refresh(&rows, Instant::now(), Utc::now());
                self.seat.show(watch.shown());
                self.send(events).await?;
                self.tell_news(watch).await
            }
            Err(error) => {
                tracing::debug!(%error, "usage.socket_refresh_failed");
                Ok(())
            }
        }
    }

    async fn send(&mut self, messages: Vec<Message>) -> Result<(), End> {
        for message in messages {
            // These types always serialise.
            let text = serde_json::to_string(&message).unwrap_or_default();
            in_time(self.session.text(text)).await?;
        }
        Ok(())
    }

    /// Clients have nothing to say here but that they are there.
    async fn take<E>(&mut self, message: Option<Result<AggregatedMessage, E>>) -> Result<(), End> {
        match message {
            Some(Ok(AggregatedMessage::Ping(bytes))) => in_time(self.session.pong(&bytes)).await,
            Some(Ok(AggregatedMessage::Close(_)) | Err(_)) | None => Err(End::Client),
            Some(Ok(_)) => Ok(()),
        }
    }
}

/// Says every second at whose round trips the sockets of this replica look, until the service stops.
pub async fn look(state: &AppState) {
    let tick = || tokio::time::sleep(TICK);
    while state.shutdown().run_until_cancelled(tick()).await.is_some() {
        state.fleet().look_at(state.live().audience().peers());
    }
}

/// Waits until then, or for ever.
async fn expiry(at: Option<DateTime<Utc>>) {
    match at {
        Some(at) => tokio::time::sleep((at - Utc::now()).to_std().unwrap_or_default()).await,
        None => std::future::pending().await,
    }
}

async fn in_time(sending: impl Future<Output = Result<(), actix_ws::Closed>>) -> Result<(), End> {
    match tokio::time::timeout(SEND_TIMEOUT, sending).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(End::Client),
        Err(_) => Err(End::TooSlow),
    }
}
