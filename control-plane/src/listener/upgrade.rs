//! The way of a connection from HTTP to a WebSocket: its handshake is answered as any request is, and
//! from there on the connection is the socket's. What HTTP had of it is let go: most of a connection's
//! memory is the buffers in which requests come and answers go.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_codec::Framed;
use actix_http::body::{BodySize, BoxBody, MessageBody};
use actix_http::error::PayloadError;
use actix_http::h1::{Codec, SendResponse};
use actix_http::{ConnectionType, Error, Request, Response};
use actix_service::Service;
use actix_web::web::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::GOODBYE;
use super::requests::Body;
use super::stream::Stream;
use super::websocket::Accepted;

/// A connection whose handshake was accepted. The request is over when the body of its answer is dropped.
struct Open {
    accepted: Accepted,
    stream: Stream,
    early: Vec<u8>,
    _body: BoxBody,
}

/// Answers a handshake and serves the socket, if there is one then, to its end.
pub(super) async fn upgrade<A, B>(app: Rc<A>, request: Request, connection: Framed<Stream, Codec>)
where
    A: Service<Request, Response = Response<Body<B>>>,
    A::Error: Into<Response<BoxBody>>,
    B: MessageBody + Unpin + 'static,
{
    // Boxed, or the socket would have the room for the handshake as long as it is open.
    let answered = Box::pin(async move {
        let answer = match app.call(request).await {
            Ok(answer) => answer.map_into_boxed_body(),
            Err(refusal) => refusal.into(),
        };
        send(answer, connection).await
    });
    match answered.await {
        Ok(Some(Open {
            accepted,
            stream,
            early,
            _body,
        })) => accepted.serve(stream, early).await,
        Ok(None) => {}
        Err(error) => tracing::debug!(%error, "the answer to a handshake did not go out"),
    }
}

async fn send(
    mut answer: Response<BoxBody>,
    connection: Framed<Stream, Codec>,
) -> Result<Option<Open>, Error> {
    let accepted = answer.extensions_mut().remove::<Accepted>();
    let Some(accepted) = accepted else {
        // Whoever wants a socket says nothing more that is HTTP.
        answer.head_mut().set_connection_type(ConnectionType::Close);
        let connection =
            SendResponse::new(connection, answer.map_body(|_, body| Refusal(body))).await?;
        let mut stream = connection.into_parts().io;
        let _ = timeout(GOODBYE, stream.shutdown()).await;
        return Ok(None);
    };
    let (head, body) = answer.into_parts();
    let connection = SendResponse::new(connection, head).await?.into_parts();
    Ok(Some(Open {
        accepted,
        stream: connection.io,
        early: connection.read_buf.to_vec(),
        _body: body,
    }))
}

/// The body of an answer that opens no socket, with such errors as [`SendResponse`] takes.
struct Refusal(BoxBody);

impl MessageBody for Refusal {
    type Error = PayloadError;

    fn size(&self) -> BodySize {
        self.0.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let part = self.0.as_pin_mut().poll_next(context);
        part.map_err(|error| PayloadError::Io(io::Error::other(error.to_string())))
    }
}
