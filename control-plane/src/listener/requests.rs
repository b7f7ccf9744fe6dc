//! What the listener holds of each request: that it is being answered, and how long its body may take.
//! It stands around the whole application, so that no handler can forget it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_http::body::{BodySize, MessageBody};
use actix_http::error::PayloadError;
use actix_http::{Method, Payload, Request, Response};
use actix_web::web::Bytes;
use futures_util::Stream;
use tokio::time::{Sleep, sleep};

use super::exchange::{Exchange, Open};

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct Watch(Option<Open>);

/// Takes note of a request and gives its body its time.
pub(super) fn begin(request: &mut Request, body_time: Duration) -> Watch {
    bound_body(request, body_time);
    Watch(request.conn_data::<Rc<Exchange>>().map(Exchange::begin))
}

impl Watch {
    /// The answer; the request is over when its body is.
    pub(super) async fn until<B, R, E>(
        self,
        answer: impl Future<Output = Result<R, E>>,
    ) -> Result<Response<Body<B>>, E>
    where
        R: Into<Response<B>>,
    {
        let response: Response<B> = answer.await?.into();
        Ok(response.map_body(|_, body| Body {
            body,
            _open: self.0,
        }))
    }
}

/// An answer's body, with which the request ends.
#[derive(Debug)]
pub(super) struct Body<B> {
    body: B,
    _open: Option<Open>,
}

impl<B: MessageBody + Unpin> MessageBody for Body<B> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_next(context)
    }
}

/// What comes after a WebSocket's handshake is no body: it may take as long as it likes. No `GET` of
/// ours reads one, whatever its sender claims.
fn bound_body(request: &mut Request, time: Duration) {
    let is_websocket = request.method() == Method::GET && request.upgrade();
    if is_websocket || matches!(request.payload(), Payload::None) {
        return;
    }
    let payload = request.take_payload();
    let in_time = InTime {
        payload,
        over: Box::pin(sleep(time)),
    };
    *request.payload() = Payload::Stream {
        payload: Box::pin(in_time),
    };
}

/// A body that fails when it is not there in time, however often a little of it comes.
struct InTime {
    payload: Payload,
    over: Pin<Box<Sleep>>,
}

impl Stream for InTime {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Poll::Ready(part) = Pin::new(&mut this.payload).poll_next(context) {
            return Poll::Ready(part);
        }
        ready!(this.over.as_mut().poll(context));
        metrics::counter!("connections_cut_total", "why" => "slow_body").increment(1);
        let error = io::Error::from(io::ErrorKind::TimedOut);
        Poll::Ready(Some(Err(PayloadError::Io(error))))
    }
}
