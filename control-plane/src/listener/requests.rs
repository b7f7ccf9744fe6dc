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
use actix_http::{Payload, Request, Response};
use actix_web::web::Bytes;
use futures_util::Stream;
use tokio::time::{Sleep, sleep};

use super::exchange::{Exchange, Open};

/// What the server is given of an answer at once. It takes the next part when less than 32 KiB are
/// unsent: whoever does not read costs that and a part, whatever the answer's size.
const PART: usize = 16 * 1024;

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
            rest: Bytes::new(),
            _open: self.0,
        }))
    }
}

/// An answer's body, with which the request ends.
#[derive(Debug)]
pub(super) struct Body<B> {
    body: B,
    /// Of what it gave last, what was not passed on.
    rest: Bytes,
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
        let this = self.get_mut();
        if this.rest.is_empty() {
            let given = ready!(Pin::new(&mut this.body).poll_next(context)).transpose()?;
            let Some(given) = given else {
                return Poll::Ready(None);
            };
            this.rest = given;
        }
        let part = this.rest.len().min(PART);
        Poll::Ready(Some(Ok(this.rest.split_to(part))))
    }
}

fn bound_body(request: &mut Request, time: Duration) {
    if matches!(request.payload(), Payload::None) {
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(0, &[])]
    #[case(1, &[1])]
    #[case(PART, &[PART])]
    #[case(2 * PART + 5, &[PART, PART, 5])]
    #[tokio::test]
    async fn an_answer_is_passed_on_in_parts(#[case] length: usize, #[case] parts: &[usize]) {
        let whole: Bytes = (0..=u8::MAX).cycle().take(length).collect();
        let mut body = Body {
            body: whole.clone(),
            rest: Bytes::new(),
            _open: None,
        };
        let (mut seen, mut passed) = (Vec::new(), Vec::new());
        while let Some(part) = poll_fn(|it| Pin::new(&mut body).poll_next(it)).await {
            let part = part.unwrap();
            seen.push(part.len());
            passed.extend(part);
        }
        assert_eq!(seen, parts);
        assert_eq!(passed, whole);
    }
}
