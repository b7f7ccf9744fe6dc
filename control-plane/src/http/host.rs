//! Answers only for the names that the service was told are its own.

use actix_web::dev::ServiceRequest;
use actix_web::http::header::{HOST, HeaderValue};

/// Whether the request asks for one of the allowed hosts. Health checks come by bare address.
///
/// A request may name its host in its target and in its header; a proxy before us may have looked
/// at either, so both have to be ours.
#[must_use]
pub fn is_allowed(request: &ServiceRequest, allowed: &[String]) -> bool {
    if is_health(request) {
        return true;
    }
    let target = request.uri().host();
    let header = request.headers().get(HOST);
    let is_ours = |host: &HeaderValue| host.to_str().is_ok_and(|host| matches(host, allowed));
    (target.is_some() || header.is_some())
        && target.is_none_or(|host| matches(host, allowed))
        && header.is_none_or(is_ours)
}

/// Load balancers and supervisors ask for health by a bare address and over plain HTTP.
pub(super) fn is_health(request: &ServiceRequest) -> bool {
    request.path().starts_with("/health")
}

fn matches(host: &str, allowed: &[String]) -> bool {
    let name = without_port(host);
    allowed
        .iter()
        .any(|pattern| match pattern.strip_prefix('.') {
            _ if pattern == "*" => true,
            Some(domain) => name.eq_ignore_ascii_case(domain) || is_below(name, pattern),
            None => name.eq_ignore_ascii_case(pattern),
        })
}

/// `a.example.org` is below `.example.org`.
fn is_below(name: &str, suffix: &str) -> bool {
    name.len()
        .checked_sub(suffix.len())
        .and_then(|at| name.get(at..))
        .is_some_and(|end| end.eq_ignore_ascii_case(suffix))
}

/// `[::1]:8000` → `::1`, `localhost:8000` → `localhost`.
fn without_port(host: &str) -> &str {
    if let Some((address, _)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address;
    }
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::header("/", Some("example.org"), true)]
    #[case::target("http://example.org/", None, true)]
    #[case::both("http://example.org/", Some("example.org"), true)]
    #[case::none("/", None, false)]
    #[case::foreign_target("http://evil.test/", Some("example.org"), false)]
    #[case::foreign_header("http://example.org/", Some("evil.test"), false)]
    #[case::health("/health/ready", Some("10.0.0.1"), true)]
    fn a_host_is_ours_wherever_it_is_named(
        #[case] uri: &str,
        #[case] header: Option<&str>,
        #[case] ours: bool,
    ) {
        let mut request = TestRequest::with_uri(uri);
        if let Some(host) = header {
            request = request.insert_header((HOST, host));
        }
        let allowed = ["example.org".to_owned()];
        assert_eq!(is_allowed(&request.to_srv_request(), &allowed), ours);
    }

    #[rstest]
    #[case("api.example.org", true)]
    #[case("API.Example.org:8000", true)]
    #[case("127.0.0.1:8000", true)]
    #[case("[::1]:8000", true)]
    #[case("a.b.example.net", true)]
    #[case("example.net", true)]
    #[case("badexample.net", false)]
    #[case("example.org", false)]
    #[case("api.example.org.evil.test", false)]
    #[case("", false)]
    fn only_the_named_hosts_are_ours(#[case] host: &str, #[case] ours: bool) {
        let allowed = ["api.example.org", "127.0.0.1", "::1", ".example.net"].map(str::to_owned);
        assert_eq!(matches(host, &allowed), ours);
    }

    #[test]
    fn a_star_allows_any() {
        assert!(matches("whatever.test:1", &["*".to_owned()]));
    }
}
