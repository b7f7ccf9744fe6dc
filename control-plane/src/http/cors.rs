//! Which web pages of other origins may call the API.
//!
//! Only the configured ones, by exact name. There are no cookies, so there are no credentials to
//! allow. A request of any other origin, or of none, passes untouched and gets no header from here:
//! its browser keeps the answer from the page.

use actix_web::HttpResponse;
use actix_web::dev::ServiceRequest;
use actix_web::http::Method;
use actix_web::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    HeaderMap, HeaderName, HeaderValue, ORIGIN, VARY,
};

use super::Answer;
use crate::router::Documentation;

type Header = (HeaderName, HeaderValue);

const ACCEPTED: Header = (
    ACCESS_CONTROL_ALLOW_HEADERS,
    HeaderValue::from_static("Authorization, Content-Type, Idempotency-Key, X-Request-ID"),
);

const EXPOSED: Header = (
    ACCESS_CONTROL_EXPOSE_HEADERS,
    HeaderValue::from_static(
        "X-Request-ID, X-API-Version, X-RateLimit-Limit, X-RateLimit-Remaining, \
         X-RateLimit-Reset, Retry-After, Server-Timing",
    ),
);

/// Seconds for which a browser keeps the answer to a preflight.
const MAX_AGE: Header = (ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("3600"));

const ORIGIN_NAME: HeaderValue = HeaderValue::from_static("Origin");

/// The layer. A preflight of a route is answered here with the route's own methods; of anything
/// else, by what answers there.
pub async fn cors(
    origins: &[String],
    documentation: &Documentation,
    request: ServiceRequest,
    next: impl AsyncFnOnce(ServiceRequest) -> Answer,
) -> Answer {
    let Some(origin) = allowed_origin(request.headers(), origins) else {
        let mut response = next(request).await?;
        if !origins.is_empty() {
            // A cache must not hand this answer to an origin that would have got the headers.
            response.headers_mut().append(VARY, ORIGIN_NAME);
        }
        return Ok(response);
    };
    let methods = is_preflight(&request)
        .then(|| documentation.methods(request.path()))
        .flatten();
    let mut response = match methods {
        Some(methods) => request.into_response(preflight(methods)),
        None => next(request).await?,
    };
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.append(VARY, ORIGIN_NAME);
    let (name, value) = EXPOSED;
    headers.insert(name, value);
    Ok(response)
}

/// The origin of the request if it is one of these. Browsers write it as it is configured: scheme
/// and host in lower case, no default port.
fn allowed_origin(headers: &HeaderMap, origins: &[String]) -> Option<HeaderValue> {
    let origin = headers.get(ORIGIN)?;
    let is_origin = |allowed: &String| origin.as_bytes() == allowed.as_bytes();
    origins.iter().any(is_origin).then(|| origin.clone())
}

fn is_preflight(request: &ServiceRequest) -> bool {
    *request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

fn preflight(methods: HeaderValue) -> HttpResponse {
    HttpResponse::NoContent()
        .insert_header((ACCESS_CONTROL_ALLOW_METHODS, methods))
        .insert_header(ACCEPTED)
        .insert_header(MAX_AGE)
        .finish()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("https://app.example.org", true)]
    #[case("https://app.example.org:8443", false)]
    #[case("http://app.example.org", false)]
    #[case("https://app.example.org.evil.test", false)]
    #[case("https://evil.test/https://app.example.org", false)]
    #[case("https://APP.example.org", false)]
    #[case("null", false)]
    #[case("", false)]
    #[case("*", false)]
    fn an_origin_is_allowed_by_its_exact_name(#[case] origin: &'static str, #[case] allowed: bool) {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, HeaderValue::from_static(origin));
        let origins = ["https://app.example.org".to_owned()];
        let found = allowed_origin(&headers, &origins);
        assert_eq!(found.is_some(), allowed);
        assert_eq!(allowed_origin(&headers, &[]), None);
    }
}
