//! What is told, over a WebSocket: the client's silence or haste, and how it is closed.

use std::future::Future;
use std::time::{Duration, Instant};

use actix_ws::{AggregatedMessage, AggregatedMessageStream, CloseCode, CloseReason, Session};

use super::message::Message;
use super::teller::{Cue, End, Said, Teller};

/// A client that says nothing, not even to a ping, for so long is gone.
const SILENCE: Duration = Duration::from_secs(45);
/// A client that does not take a message within this time is too slow. It has as long for the farewell.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

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
    pub(super) teller: Teller,
    pub(super) session: Session,
}

impl Socket {
    /// Serves until one side ends it.
    pub(super) async fn run(mut self, mut incoming: AggregatedMessageStream) {
        metrics::gauge!("usage_metrics_sockets").increment(1.0);
        let end = self.serve(&mut incoming).await;
        metrics::gauge!("usage_metrics_sockets").decrement(1.0);
        tracing::debug!(user = %self.teller.viewer().user, ?end, "usage.socket_closed");
        let Self { teller, session } = self;
        // Nobody is told any more: the place is another's.
        drop(teller);
        let _ = in_time(session.close(end.reason())).await;
    }

    async fn serve(&mut self, incoming: &mut AggregatedMessageStream) -> End {
        let mut heard = Instant::now();
        loop {
            let step = tokio::select! {
                message = incoming.recv() => {
                    heard = Instant::now();
                    self.take(message).await
                }
                cue = self.teller.cue() => match cue {
                    Cue::Tick if heard.elapsed() > SILENCE => Err(End::Client),
                    cue => self.tell(cue).await,
                }
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    async fn tell(&mut self, cue: Cue) -> Result<(), End> {
        for said in self.teller.tell(cue).await? {
            match said {
                Said::Message(message) => in_time(self.session.text(text(&message))).await?,
                Said::Beat => in_time(self.session.ping(b"")).await?,
            }
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

/// These types always serialise.
fn text(message: &Message) -> String {
    serde_json::to_string(message).unwrap_or_default()
}

async fn in_time(sending: impl Future<Output = Result<(), actix_ws::Closed>>) -> Result<(), End> {
    match tokio::time::timeout(SEND_TIMEOUT, sending).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(End::Client),
        Err(_) => Err(End::TooSlow),
    }
}
