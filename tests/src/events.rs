//! A reader of server-sent events.

use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::api::Client;

/// An open stream.
#[derive(Debug)]
pub struct Events {
    response: reqwest::Response,
    read: String,
    /// What the stream said of itself beside its events: `retry`.
    pub retry: Option<u64>,
    /// Comments so far.
    pub beats: usize,
}

/// One event.
#[derive(Debug, Clone)]
pub struct Told {
    pub id: String,
    pub event: String,
    pub data: Value,
}

impl Client {
    /// Opens a stream of events; the answer's status when it is refused.
    pub async fn events(&self, path: &str) -> Result<Events, StatusCode> {
        let response = self.request(Method::GET, path).send().await;
        let response = response.expect("the plane answers");
        if !response.status().is_success() {
            return Err(response.status());
        }
        let kind = response.headers().get("content-type");
        assert_eq!(
            kind.map(|it| it.as_bytes()),
            Some(&b"text/event-stream"[..])
        );
        Ok(Events {
            response,
            read: String::new(),
            retry: None,
            beats: 0,
        })
    }
}

impl Events {
    /// The next event; none when the stream is over.
    pub async fn next(&mut self) -> Option<Told> {
        loop {
            while let Some(end) = self.read.find("\n\n") {
                let block: String = self.read.drain(..end + 2).collect();
                if let Some(told) = self.take(&block) {
                    return Some(told);
                }
            }
            let chunk = self.response.chunk().await.ok()??;
            self.read
                .push_str(std::str::from_utf8(&chunk).expect("text"));
        }
    }

    fn take(&mut self, block: &str) -> Option<Told> {
        let field = |name: &str| {
            let mut lines = block.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        };
        if block.starts_with(':') {
            self.beats += 1;
        }
        if let Some(retry) = field("retry") {
            self.retry = retry.parse().ok();
        }
        Some(Told {
            id: field("id")?.to_owned(),
            event: field("event")?.to_owned(),
            data: serde_json::from_str(field("data")?).expect("JSON"),
        })
    }

    /// The data of the next event of this name; panics when the stream is over.
    pub async fn next_of(&mut self, event: &str) -> Value {
        loop {
            let told = self.next().await;
            let told = told.unwrap_or_else(|| panic!("the stream ended before {event}"));
            if told.event == event {
                return told.data;
            }
        }
    }

    /// Reads to the end and gives the last event.
    pub async fn last(&mut self) -> Option<Told> {
        let mut last = None;
        while let Some(told) = self.next().await {
            last = Some(told);
        }
        last
    }
}
