//! The socket, with patience: no frame waits for the node without end.

use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use shared::protocol::PlaneMessage;

use super::machine::Close;
use crate::listener::websocket::{Ended, Gone, Message, WebSocket};

/// How long one frame may wait for the node to read.
const SEND_PATIENCE: Duration = Duration::from_secs(10);
/// How long each step of a farewell may take.
pub(super) const FAREWELL_PATIENCE: Duration = Duration::from_secs(2);

/// What a [`ControlFlow::Break`] holds is how to close; none when the node is gone.
pub(super) struct Wire(pub(super) WebSocket);

impl Wire {
    /// May be dropped at any point.
    pub(super) async fn next(&mut self) -> Result<Message, Ended> {
        self.0.next().await
    }

    pub(super) async fn text(&mut self, message: &PlaneMessage) -> ControlFlow<Option<Close>> {
        self.send(Message::text(message.encode())).await
    }

    pub(super) async fn ping(&mut self, payload: [u8; 8]) -> ControlFlow<Option<Close>> {
        let payload = Bytes::copy_from_slice(&payload);
        self.send(Message::Ping(payload)).await
    }

    async fn send(&mut self, message: Message) -> ControlFlow<Option<Close>> {
        match tokio::time::timeout(SEND_PATIENCE, self.0.send(message)).await {
            Ok(Ok(())) => ControlFlow::Continue(()),
            Ok(Err(Gone)) => ControlFlow::Break(None),
            Err(_) => ControlFlow::Break(Some(Close::timed_out("the node does not read"))),
        }
    }

    pub(super) async fn close(self, close: Close) {
        self.0
            .close(close.code, close.reason, FAREWELL_PATIENCE)
            .await;
    }
}
