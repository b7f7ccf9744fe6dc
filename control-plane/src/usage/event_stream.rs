//! What is told, as server-sent events: for clients without WebSockets.

use super::message::Message;
use super::teller::{Cue, End, Said, Teller};
use crate::http::sse::{Ended, EndedReason, EventSender, Lost};

impl From<Lost> for End {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Gone => Self::Client,
            Lost::TooSlow => Self::TooSlow,
        }
    }
}

impl End {
    /// The stream's last word.
    fn farewell(self) -> Option<Message> {
        let reason = match self {
            Self::Client => return None,
            Self::Unauthorized => EndedReason::Unauthorized,
            Self::TooSlow => EndedReason::TooSlow,
            Self::Away => EndedReason::ServiceStops,
        };
        Some(Message::Ended(Ended::now(reason)))
    }
}

/// Serves until one side ends it.
pub(super) async fn run(mut teller: Teller, mut events: EventSender) {
    metrics::gauge!("usage_event_streams").increment(1.0);
    let end = serve(&mut teller, &mut events).await;
    metrics::gauge!("usage_event_streams").decrement(1.0);
    tracing::debug!(user = %teller.viewer().user, ?end, "usage.stream_ended");
    if let Some(message) = end.farewell() {
        events.end(message.kind(), &message);
    }
}

async fn serve(teller: &mut Teller, events: &mut EventSender) -> End {
    loop {
        let cue = tokio::select! {
            () = events.gone() => return End::Client,
            cue = teller.cue() => cue,
        };
        if let Err(end) = tell(teller, events, cue).await {
            return end;
        }
    }
}

async fn tell(teller: &mut Teller, events: &mut EventSender, cue: Cue) -> Result<(), End> {
    for said in teller.tell(cue).await? {
        match said {
            Said::Message(message) => events.send(message.kind(), &message).await?,
            Said::Beat => events.beat().await?,
        }
    }
    Ok(())
}
