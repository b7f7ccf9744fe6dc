//! One open metrics socket: a second's tick, the database every few seconds or when something
//! changed, and the client's silence or haste.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::web;
use actix_ws::{AggregatedMessage, AggregatedMessageStream, CloseCode, CloseReason, Session};
use chrono::{DateTime, Utc};
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use super::store;
use super::viewer::Viewer;
use super::watch::{Message, Watch};
use crate::app::AppState;

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
        let view = self.state.fleet().view();
        let messages = watch.metrics(
            Utc::now(),
            |server, peer| self.state.live().reading(server, peer),
            |server| view.get(server).map(|server| server.live().load),
        );
        self.send(messages).await
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
                self.send(events).await
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
