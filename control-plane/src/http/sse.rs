//! Server-sent events: how they are written, and the answer that carries them.
//!
//! Between the writer and the connection is a short queue. Who does not empty it is given up, so
//! that nothing grows behind a slow reader.

use std::convert::Infallible;
use std::time::Duration;

use actix_web::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use actix_web::{HttpMessage, HttpRequest, HttpResponse};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::stream::poll_fn;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::frame::HeadOnly;

/// The media type.
pub const EVENT_STREAM: &str = "text/event-stream";
/// Events that may wait for the connection.
const QUEUE: usize = 32;
/// A reader that does not make room within this time is too slow.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a client shall wait before it asks again.
const RETRY: Duration = Duration::from_secs(3);
/// Tells nginx to pass on each event at once.
const UNBUFFERED: (HeaderName, HeaderValue) = (
    HeaderName::from_static("x-accel-buffering"),
    HeaderValue::from_static("no"),
);

/// Why nothing can be sent any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    #[error("the client is gone")]
    Gone,
    #[error("the client does not read")]
    TooSlow,
}

/// The last word of a stream, as its event `ended`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StreamEnded)]
pub struct Ended {
    timestamp: DateTime<Utc>,
    reason: EndedReason,
    /// The code with which a WebSocket closes for the same reason.
    #[schema(example = 4401)]
    code: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = StreamEndedReason)]
pub enum EndedReason {
    /// The token expired, or its session ended: ask again with another.
    Unauthorized,
    /// Events were not taken in time.
    TooSlow,
    /// Ask again, and another replica answers.
    ServiceStops,
}

impl Ended {
    /// The event's name.
    pub const EVENT: &str = "ended";

    #[must_use]
    pub fn now(reason: EndedReason) -> Self {
        Self {
            timestamp: Utc::now(),
            reason,
            code: match reason {
                EndedReason::Unauthorized => 4401,
                EndedReason::TooSlow => 4408,
                EndedReason::ServiceStops => 1001,
            },
        }
    }
}

/// The writing end of a stream. Dropped, it ends the stream.
#[derive(Debug)]
pub struct EventSender {
    queue: mpsc::Sender<Bytes>,
    /// Room for the last word, so that even who reads nothing may find it later.
    last: Option<mpsc::OwnedPermit<Bytes>>,
    patience: Duration,
    /// In the ids of events, before their number: ids grow from one stream to the next.
    began: i64,
    number: u64,
}

impl EventSender {
    /// Sends one event under the next id.
    pub async fn send(&mut self, event: &str, data: &impl Serialize) -> Result<(), Lost> {
        let text = self.write(event, data);
        self.put(text.into()).await
    }

    /// Sends a comment, which readers pass over: the connection stays known to whatever it runs through.
    pub async fn beat(&mut self) -> Result<(), Lost> {
        self.put(Bytes::from_static(b": still here\n\n")).await
    }

    /// Sends a last event, for which there is always room.
    pub fn end(mut self, event: &str, data: &impl Serialize) {
        let text = self.write(event, data);
        if let Some(last) = self.last.take() {
            last.send(text.into());
        }
    }

    /// Waits until the client is gone.
    pub async fn gone(&self) {
        self.queue.closed().await;
    }

    fn write(&mut self, event: &str, data: &impl Serialize) -> String {
        self.number = self.number.wrapping_add(1);
        // These types always serialise, and in one line.
        let data = serde_json::to_string(data).unwrap_or_default();
        let (began, number) = (self.began, self.number);
        format!("id: {began}-{number}\nevent: {event}\ndata: {data}\n\n")
    }

    async fn put(&self, text: Bytes) -> Result<(), Lost> {
        match timeout(self.patience, self.queue.send(text)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Lost::Gone),
            Err(_) => Err(Lost::TooSlow),
        }
    }
}

/// An answer of events, and what writes them. The writer of an answer to `HEAD` has nobody to write to.
#[must_use]
pub fn open(request: &HttpRequest) -> (EventSender, HttpResponse) {
    let (queue, mut waiting) = mpsc::channel::<Bytes>(QUEUE + 1);
    let sender = EventSender {
        // The queue is new and has room.
        last: queue.clone().try_reserve_owned().ok(),
        queue,
        patience: PATIENCE,
        began: Utc::now().timestamp_millis(),
        number: 0,
    };
    let mut response = HttpResponse::Ok();
    response
        .insert_header((CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM)))
        .insert_header(UNBUFFERED);
    if request.extensions().contains::<HeadOnly>() {
        return (sender, response.finish());
    }
    let hello = Bytes::from(format!("retry: {}\n\n", RETRY.as_millis()));
    let _ = sender.queue.try_send(hello);
    let events = poll_fn(move |context| {
        waiting
            .poll_recv(context)
            .map(|it| it.map(Ok::<_, Infallible>))
    });
    (sender, response.streaming(events))
}

#[cfg(test)]
mod tests {
    use actix_web::body::to_bytes;
    use actix_web::test::TestRequest;
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn events_have_a_name_a_number_and_one_line() {
        let request = TestRequest::get().to_http_request();
        let (mut sender, response) = open(&request);
        let began = sender.began;
        sender
            .send("metrics", &json!({ "text": "a\nb" }))
            .await
            .expect("room");
        sender.beat().await.expect("room");
        sender.end("ended", &json!({}));
        let body = to_bytes(response.into_body()).await.expect("it ends");
        let expected = format!(
            "retry: 3000\n\nid: {began}-1\nevent: metrics\ndata: {{\"text\":\"a\\nb\"}}\n\n\
             : still here\n\nid: {began}-2\nevent: ended\ndata: {{}}\n\n"
        );
        assert_eq!(body, expected.as_bytes());
    }

    #[tokio::test]
    async fn who_does_not_read_is_given_up_and_who_left_is_known() {
        let request = TestRequest::get().to_http_request();
        let (mut sender, response) = open(&request);
        sender.patience = Duration::from_millis(10);
        // The queue has the first word in it.
        for _ in 1..QUEUE {
            sender.beat().await.expect("room");
        }
        assert_eq!(sender.beat().await, Err(Lost::TooSlow));
        drop(response);
        sender.gone().await;
        assert_eq!(sender.beat().await, Err(Lost::Gone));
    }

    #[tokio::test]
    async fn who_reads_too_late_finds_the_last_word() {
        let request = TestRequest::get().to_http_request();
        let (mut sender, response) = open(&request);
        sender.patience = Duration::from_millis(10);
        while sender.beat().await.is_ok() {}
        sender.end("ended", &json!({}));
        let body = to_bytes(response.into_body()).await.expect("it ends");
        let text = String::from_utf8_lossy(&body);
        assert_eq!(text.matches(": still here").count(), QUEUE - 1);
        assert!(text.ends_with("event: ended\ndata: {}\n\n"), "{text}");
    }

    #[tokio::test]
    async fn head_opens_nothing() {
        let request = TestRequest::get().to_http_request();
        request.extensions_mut().insert(HeadOnly);
        let (sender, response) = open(&request);
        sender.gone().await;
        assert_eq!(
            response
                .headers()
                .get(CONTENT_TYPE)
                .map(HeaderValue::as_bytes),
            Some(EVENT_STREAM.as_bytes())
        );
        assert!(
            to_bytes(response.into_body())
                .await
                .expect("it ends")
                .is_empty()
        );
    }
}
