//! The id that a request carries through the logs and into its error.

use std::convert::Infallible;
use std::fmt;
use std::future::{Ready, ready};

use actix_web::dev::{Payload, ServiceRequest};
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::{FromRequest, HttpRequest};
use uuid::Builder;
use uuid::fmt::Simple;

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const MAX_LENGTH: usize = 64;
const PREFIX: &str = "req_";

/// Short and printable, whoever made it. Kept as the header that every response has of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// Gives the request its id, which its headers have from then on: the caller's if it can be trusted in a
    /// log and a header, or a new one.
    #[must_use]
    pub fn give(request: &mut ServiceRequest) -> Self {
        Self::read(request.headers()).unwrap_or_else(|| {
            let id = Self::generate();
            request.headers_mut().insert(REQUEST_ID, id.header());
            id
        })
    }

    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        let given = headers.get(REQUEST_ID)?;
        is_acceptable(given.as_bytes()).then(|| Self(given.clone()))
    }

    fn generate() -> Self {
        // From the thread's own generator: the library asks the system for every id.
        let id = Builder::from_random_bytes(rand::random()).into_uuid();
        let mut text = [0; PREFIX.len() + Simple::LENGTH];
        let (prefix, rest) = text.split_at_mut(PREFIX.len());
        prefix.copy_from_slice(PREFIX.as_bytes());
        id.simple().encode_lower(rest);
        let value = HeaderValue::from_bytes(&text);
        Self(value.unwrap_or(HeaderValue::from_static(PREFIX)))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or(PREFIX)
    }

    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

/// The id that the frame gave the request.
impl FromRequest for RequestId {
    type Error = Infallible;
    type Future = Ready<Result<Self, Infallible>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let given = Self::read(request.headers());
        ready(Ok(given.unwrap_or_else(Self::generate)))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn is_acceptable(text: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
    (1..=MAX_LENGTH).contains(&text.len()) && text.iter().all(is_plain)
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;
    use rstest::rstest;

    use super::*;

    fn id_for(header: &str) -> String {
        let request = TestRequest::default().insert_header((REQUEST_ID, header));
        let mut request = request.to_srv_request();
        let id = RequestId::give(&mut request);
        assert_eq!(RequestId::read(request.headers()), Some(id.clone()));
        id.to_string()
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
