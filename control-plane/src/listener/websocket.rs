//! A WebSocket: how a handler accepts one, and what it has of it then.
//!
//! The answer to the handshake takes along who serves the socket; [`super::upgrade`] hands the
//! connection over when that answer has gone out.

use std::future::Future;
use std::time::Duration;

use actix_http::ws;
use actix_web::{HttpRequest, HttpResponse};
use futures_util::future::LocalBoxFuture;
use futures_util::{SinkExt, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

pub use tokio_tungstenite::tungstenite::Message;

use super::GOODBYE;
use super::stream::Stream;
use crate::error::ApiError;

/// What a socket's other side may send.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// The largest message, in bytes, however many frames it comes in.
    pub message: usize,
    /// What is read at once, in bytes: as much is held for as long as the socket is open.
    pub buffer: usize,
}

/// Why nothing more comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The other side closed it or is gone.
    Gone,
    /// What it sent is no message, or too large.
    Malformed,
}

/// The other side is gone: nothing reaches it any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// An open socket. Pings of the other side are answered by it, after what came before them was read.
#[derive(Debug)]
pub struct WebSocket(WebSocketStream<Stream>);

impl WebSocket {
    /// `early` is what came behind the handshake.
    async fn new(stream: Stream, early: Vec<u8>, room: Room) -> Self {
        let config = WebSocketConfig::default()
            .max_message_size(Some(room.message))
            .max_frame_size(Some(room.message))
            .read_buffer_size(room.buffer)
            .write_buffer_size(0);
        Self(WebSocketStream::from_partially_read(stream, early, Role::Server, Some(config)).await)
    }

    /// The next message, but for closes. May be dropped at any point.
    pub async fn next(&mut self) -> Result<Message, Ended> {
        loop {
            match self.0.next().await {
                // It is answered on the way to what follows, which is the end.
                Some(Ok(Message::Close(_))) => {}
                Some(Ok(message)) => return Ok(message),
                Some(Err(error)) => return Err(error.into()),
                None => return Err(Ended::Gone),
            }
        }
    }

    /// Sends a message; it is the kernel's when this returns.
    pub async fn send(&mut self, message: Message) -> Result<(), Gone> {
        self.0.send(message).await.map_err(|_| Gone)
    }

    /// Says why it ends, for which the other side has so long, and waits a moment for its answer.
    pub async fn close(mut self, code: u16, reason: &'static str, patience: Duration) {
        let frame = CloseFrame {
            code: code.into(),
            reason: reason.into(),
        };
        if let Ok(Ok(())) = timeout(patience, self.0.close(Some(frame))).await {
            // Bytes that nobody read would reset the connection before the other side sees the close.
            let rest = async { while self.next().await.is_ok() {} };
            let _ = timeout(GOODBYE, rest).await;
        }
        let _ = timeout(GOODBYE, self.0.get_mut().shutdown()).await;
    }
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        match error {
            Error::ConnectionClosed
            | Error::AlreadyClosed
            | Error::Io(_)
            | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Self::Gone,
            _ => Self::Malformed,
        }
    }
}

type Serve = Box<dyn FnOnce(WebSocket) -> LocalBoxFuture<'static, ()>>;

/// Who serves the socket that an answer opens: one of its extensions.
pub(super) struct Accepted {
    room: Room,
    serve: Serve,
}

impl Accepted {
    /// Serves the socket to its end.
    pub(super) async fn serve(self, stream: Stream, early: Vec<u8>) {
        let socket = WebSocket::new(stream, early, self.room);
        (self.serve)(socket.await).await;
    }
}

/// Accepts a handshake: the answer that opens the socket, which `serve` has from then on.
pub fn accept<F>(
    request: &HttpRequest,
    room: Room,
    serve: impl FnOnce(WebSocket) -> F + 'static,
) -> Result<HttpResponse, ApiError>
where
    F: Future<Output = ()> + 'static,
{
    let mut answer = ws::handshake(request.head())
        .map_err(|error| ApiError::invalid("Upgrade", format!("Not a WebSocket: {error}")))?;
    let mut answer = HttpResponse::from(answer.finish().map_into_boxed_body());
    answer.extensions_mut().insert(Accepted {
        room,
        serve: Box::new(|socket| Box::pin(serve(socket))),
    });
    Ok(answer)
}
