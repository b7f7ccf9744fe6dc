//! What is told, over a WebSocket: the client's silence or haste, and how it is closed.

use std::future::Future;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::message;
use super::teller::{Cue, End, Said, Teller};
use crate::listener::websocket::{Ended, Gone, Message, Room, WebSocket};

/// Clients have nothing to say but that they are there.
pub(super) const ROOM: Room = Room {
    message: 4 * 1024,
    buffer: 256,
};
/// A client that says nothing, not even to a ping, for so long is gone.
const SILENCE: Duration = Duration::from_secs(45);
/// A client that does not take a message within this time is too slow. It has as long for the farewell.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

impl End {
    /// The code and the words to close with.
    const fn reason(self) -> Option<(u16, &'static str)> {
        Some(match self {
            Self::Client => return None,
            Self::Unauthorized => (4401, "the token is no longer valid"),
            Self::TooSlow => (4408, "messages were not taken in time"),
            Self::Away => (1001, "the service stops"),
        })
    }
}

/// Serves until one side ends it.
#[expect(
    clippy::manual_async_fn,
    reason = "an async function has the room for its arguments twice"
)]
pub(super) fn run(mut teller: Teller, mut socket: WebSocket) -> impl Future<Output = ()> {
    async move {
        metrics::gauge!("usage_metrics_sockets").increment(1.0);
        let end = serve(&mut teller, &mut socket).await;
        metrics::gauge!("usage_metrics_sockets").decrement(1.0);
        tracing::debug!(user = %teller.viewer().user, ?end, "usage.socket_closed");
        // Nobody is told any more: the place is another's.
        drop(teller);
        if let Some((code, reason)) = end.reason() {
            socket.close(code, reason, SEND_TIMEOUT).await;
        }
    }
}

async fn serve(teller: &mut Teller, socket: &mut WebSocket) -> End {
    let mut heard = Instant::now();
    loop {
        let step = tokio::select! {
            message = socket.next() => {
                heard = Instant::now();
                message.map(drop).map_err(End::from)
            }
            cue = teller.cue() => match cue {
                Cue::Tick if heard.elapsed() > SILENCE => Err(End::Client),
                cue => tell(teller, socket, cue).await,
            }
        };
        if let Err(end) = step {
            return end;
        }
    }
}

async fn tell(teller: &mut Teller, socket: &mut WebSocket, cue: Cue) -> Result<(), End> {
    for said in teller.tell(cue).await? {
        let message = match said {
            Said::Message(message) => Message::text(text(&message)),
            Said::Beat => Message::Ping(Bytes::new()),
        };
        match tokio::time::timeout(SEND_TIMEOUT, socket.send(message)).await {
            Ok(Ok(())) => {}
            Ok(Err(Gone)) => return Err(End::Client),
            Err(_) => return Err(End::TooSlow),
        }
    }
    Ok(())
}

impl From<Ended> for End {
    /// A client that sends what it may not is left without a word.
    fn from(_: Ended) -> Self {
        Self::Client
    }
}

/// These types always serialise.
fn text(message: &message::Message) -> String {
    serde_json::to_string(message).unwrap_or_default()
}
