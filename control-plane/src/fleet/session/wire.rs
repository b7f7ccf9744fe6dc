//! The socket, with patience: no frame waits for the node without end.

use std::future::Future;
use std::ops::ControlFlow;
use std::time::Duration;

use actix_ws::{CloseCode, CloseReason};
use shared::protocol::PlaneMessage;

use super::machine::Close;

/// How long one frame may wait for the node to read.
const SEND_PATIENCE: Duration = Duration::from_secs(10);
/// How long each step of a farewell may take.
pub(super) const FAREWELL_PATIENCE: Duration = Duration::from_secs(2);

/// What a [`ControlFlow::Break`] holds is how to close; none when the node is gone.
pub(super) struct Wire(pub(super) actix_ws::Session);

impl Wire {
    pub(super) async fn text(&mut self, message: &PlaneMessage) -> ControlFlow<Option<Close>> {
        sent(self.0.text(message.encode())).await
    }

    pub(super) async fn ping(&mut self, payload: &[u8]) -> ControlFlow<Option<Close>> {
        sent(self.0.ping(payload)).await
    }

    pub(super) async fn pong(&mut self, payload: &[u8]) -> ControlFlow<Option<Close>> {
        sent(self.0.pong(payload)).await
    }

    pub(super) async fn close(self, close: Close) {
        let reason = CloseReason {
            code: CloseCode::Other(close.code),
            description: Some(close.reason.to_owned()),
        };
        let _ = tokio::time::timeout(FAREWELL_PATIENCE, self.0.close(Some(reason))).await;
    }
}

async fn sent(
    sending: impl Future<Output = Result<(), actix_ws::Closed>>,
) -> ControlFlow<Option<Close>> {
    match tokio::time::timeout(SEND_PATIENCE, sending).await {
        Ok(Ok(())) => ControlFlow::Continue(()),
        Ok(Err(actix_ws::Closed)) => ControlFlow::Break(None),
        Err(_) => ControlFlow::Break(Some(Close::timed_out("the node does not read"))),
    }
}
