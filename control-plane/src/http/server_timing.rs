//! The `Server-Timing` header: where the time of a request went.

use std::fmt::Write;
use std::time::Duration;

use actix_web::http::header::{HeaderName, HeaderValue, InvalidHeaderValue, TryIntoHeaderPair};

pub const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Named spans of time in the order of adding; `response.insert_header(timing)` sends them.
#[derive(Debug, Clone, Default)]
pub struct ServerTiming(String);

impl ServerTiming {
    #[must_use]
    pub const fn new() -> Self {
        Self(String::new())
    }

    /// Adds a span. `name` is a token such as `db`.
    pub fn add(&mut self, name: &'static str, time: Duration) {
        let separator = if self.0.is_empty() { "" } else { ", " };
        let milliseconds = time.as_secs_f64() * 1000.0;
        // Writing to a string cannot fail.
        let _ = write!(self.0, "{separator}{name};dur={milliseconds:.3}");
    }
}

impl TryIntoHeaderPair for ServerTiming {
    type Error = InvalidHeaderValue;

    fn try_into_pair(self) -> Result<(HeaderName, HeaderValue), Self::Error> {
        Ok((SERVER_TIMING, HeaderValue::try_from(self.0)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_milliseconds_in_order() {
        let mut timing = ServerTiming::new();
        timing.add("db", Duration::from_micros(1500));
        timing.add("agent", Duration::from_nanos(20_400));
        let (name, value) = timing.try_into_pair().unwrap();
        assert_eq!(name, "server-timing");
        assert_eq!(value, "db;dur=1.500, agent;dur=0.020");
    }
}
