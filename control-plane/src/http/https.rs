//! Over HTTPS only, where the service was told so.
//!
//! A request came over HTTPS when the listener speaks TLS, or when a proxy that is trusted says so.
//! What anybody else says about it is not believed.

use std::net::IpAddr;

use actix_web::HttpResponse;
use actix_web::dev::ServiceRequest;
use actix_web::http::Method;
use actix_web::http::header::{HeaderName, HeaderValue, LOCATION, STRICT_TRANSPORT_SECURITY};

use super::host::is_health;
use crate::config::HttpConfig;
use crate::error::Code;

const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Two years, as browsers' preload lists ask for.
pub const HSTS: (HeaderName, HeaderValue) = (
    STRICT_TRANSPORT_SECURITY,
    HeaderValue::from_static("max-age=63072000; includeSubDomains"),
);

/// Whether the client spoke TLS, with us or with a proxy of ours.
#[must_use]
pub fn is_https(request: &ServiceRequest, config: &HttpConfig) -> bool {
    config.tls.is_some() || (is_from_proxy(request, config) && says_https(request))
}

/// Whether browsers shall be told to come over HTTPS from now on.
#[must_use]
pub const fn promises(config: &HttpConfig) -> bool {
    config.https_only || config.tls.is_some()
}

/// What a request over plain HTTP gets instead of its answer, if it may not have it. A read is sent
/// to the public address; anything else has shown its secrets already, and its caller shall notice.
#[must_use]
pub fn refusal(request: &ServiceRequest, config: &HttpConfig) -> Option<HttpResponse> {
    if !config.https_only || is_health(request) || is_https(request, config) {
        return None;
    }
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let target = is_read.then(|| https_url(request, config)).flatten();
    Some(match target {
        Some(url) => HttpResponse::PermanentRedirect()
            .insert_header((LOCATION, url))
            .finish(),
        None => HttpResponse::from_error(crate::error::ApiError::new(Code::HttpsRequired)),
    })
}

fn https_url(request: &ServiceRequest, config: &HttpConfig) -> Option<HeaderValue> {
    let base = &config.public_url;
    let path = request.uri().path_and_query()?;
    let is_https = base.starts_with("https://");
    is_https
        .then(|| HeaderValue::try_from(format!("{base}{path}")).ok())
        .flatten()
}

fn is_from_proxy(request: &ServiceRequest, config: &HttpConfig) -> bool {
    request.peer_addr().is_some_and(|peer| {
        let peer: IpAddr = peer.ip().to_canonical();
        config.trusted_proxies.iter().any(|net| net.contains(&peer))
    })
}

/// The nearest proxy writes last.
fn says_https(request: &ServiceRequest) -> bool {
    request
        .headers()
        .get_all(FORWARDED_PROTO)
        .last()
        .and_then(|value| value.to_str().ok())
        .and_then(|schemes| schemes.rsplit(',').next())
        .is_some_and(|scheme| scheme.trim().eq_ignore_ascii_case("https"))
}

#[cfg(test)]
mod tests {
    use actix_web::http::StatusCode;
    use actix_web::test::TestRequest;
    use rstest::rstest;

    use super::*;
    use crate::config::{Config, Variables};

    const PROXY: &str = "10.1.2.3:40000";
    const STRANGER: &str = "192.0.2.7:40000";

    fn config(public_url: &str) -> HttpConfig {
        let variables: Variables = [
            ("DEBUG", "true"),
            ("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none"),
            ("HTTPS_ONLY", "true"),
            ("TRUSTED_PROXIES", "10.0.0.0/8"),
            ("PUBLIC_URL", public_url),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        Config::read(&variables).unwrap().http
    }

    fn from(peer: &str) -> TestRequest {
        TestRequest::get()
            .uri("/docs/?a=b")
            .peer_addr(peer.parse().unwrap())
    }

    #[rstest]
    #[case::said(PROXY, &["https"], true)]
    #[case::said_loudly(PROXY, &["HTTPS"], true)]
    #[case::mapped("[::ffff:10.1.2.3]:1", &["https"], true)]
    #[case::plain(PROXY, &["http"], false)]
    #[case::silent(PROXY, &[], false)]
    #[case::nearest_hop(PROXY, &["https, http"], false)]
    #[case::nearest_header(PROXY, &["https", "http"], false)]
    #[case::through_two(PROXY, &["http, https"], true)]
    #[case::spoofed(STRANGER, &["https"], false)]
    fn a_trusted_proxy_is_believed_and_nobody_else(
        #[case] peer: &str,
        #[case] headers: &[&str],
        #[case] https: bool,
    ) {
        let request = headers.iter().fold(from(peer), |request, value| {
            request.append_header((FORWARDED_PROTO, *value))
        });
        let request = request.to_srv_request();
        let config = config("https://api.example.org");
        assert_eq!(is_https(&request, &config), https);
        assert_eq!(refusal(&request, &config).is_none(), https);
    }

    #[test]
    fn a_read_is_sent_to_the_public_address() {
        let request = from(STRANGER).to_srv_request();
        let response = refusal(&request, &config("https://api.example.org")).unwrap();
        assert_eq!(response.status(), StatusCode::PERMANENT_REDIRECT);
        assert_eq!(
            response.headers().get(LOCATION).unwrap(),
            "https://api.example.org/docs/?a=b"
        );
    }

    #[rstest]
    #[case::write(Method::POST, "https://api.example.org")]
    #[case::nowhere_to_go(Method::GET, "http://localhost:8000")]
    fn anything_else_is_refused(#[case] method: Method, #[case] public_url: &str) {
        let request = from(STRANGER).method(method).to_srv_request();
        let response = refusal(&request, &config(public_url)).unwrap();
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
    }

    #[test]
    fn health_is_asked_plainly() {
        let request = TestRequest::get().uri("/health/ready").to_srv_request();
        assert!(refusal(&request, &config("https://api.example.org")).is_none());
    }
}
