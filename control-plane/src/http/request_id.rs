//! The id that a request carries through the logs and into its error.

use std::convert::Infallible;
use std::fmt;
use std::future::{Ready, ready};
use std::sync::Arc;

use actix_web::dev::{Payload, ServiceRequest};
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::{FromRequest, HttpMessage, HttpRequest};
use uuid::Builder;
use uuid::fmt::Simple;

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const MAX_LENGTH: usize = 64;
const PREFIX: &str = "req_";

/// Short and printable, whoever made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The caller's id if it can be trusted in a log and a header, or a new one.
    #[must_use]
    pub fn of(request: &ServiceRequest) -> Self {
        request
            .headers()
            .get(REQUEST_ID)
            .and_then(|value| value.to_str().ok())
            .filter(|text| is_acceptable(text))
            .map_or_else(Self::generate, |text| Self(text.into()))
    }

    fn generate() -> Self {
        // From the thread's own generator: the library asks the system for every id.
        let now = chrono::Utc::now().timestamp_millis().unsigned_abs();
        let id = Builder::from_unix_timestamp_millis(now, &rand::random()).into_uuid();
        let mut text = [0; PREFIX.len() + Simple::LENGTH];
        let (prefix, rest) = text.split_at_mut(PREFIX.len());
        prefix.copy_from_slice(PREFIX.as_bytes());
        id.simple().encode_lower(rest);
        Self(String::from_utf8_lossy(&text).into())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn header(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.0).ok()
    }
}

/// The id that the frame gave the request.
impl FromRequest for RequestId {
    type Error = Infallible;
    type Future = Ready<Result<Self, Infallible>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let given = request.extensions().get::<Self>().cloned();
        ready(Ok(given.unwrap_or_else(Self::generate)))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_acceptable(text: &str) -> bool {
    (1..=MAX_LENGTH).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;
    use rstest::rstest;

    use super::*;

    fn id_for(header: &str) -> String {
        let request = TestRequest::default().insert_header((REQUEST_ID, header));
        RequestId::of(&request.to_srv_request()).to_string()
    }

    #[rstest]
    #[case("abc-123")]
    #[case("req_0190a0c8:1.2")]
    fn a_short_printable_id_is_kept(#[case] id: &str) {
        assert_eq!(id_for(id), id);
    }

    #[rstest]
    #[case("")]
    #[case("two words")]
    #[case("<script>")]
    #[case(&"x".repeat(65))]
    fn any_other_is_replaced(#[case] id: &str) {
        let made = id_for(id);
        assert!(made.starts_with("req_") && made != id, "{made}");
    }

    #[test]
    fn made_ids_differ() {
        assert_ne!(RequestId::generate(), RequestId::generate());
    }
}
