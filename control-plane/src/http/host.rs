//! Answers only for the names that the service was told are its own.

use actix_web::dev::ServiceRequest;

/// Whether the request asks for one of the allowed hosts. Health checks come by bare address.
#[must_use]
pub fn is_allowed(request: &ServiceRequest, allowed: &[String]) -> bool {
    if request.path().starts_with("/health") {
        return true;
    }
    let host = request
        .uri()
        .host()
        .or_else(|| request.headers().get("host")?.to_str().ok());
    host.is_some_and(|host| matches(host, allowed))
}

fn matches(host: &str, allowed: &[String]) -> bool {
    let name = without_port(host).to_ascii_lowercase();
    allowed
        .iter()
        .any(|pattern| match pattern.strip_prefix('.') {
            _ if pattern == "*" => true,
            Some(domain) => {
                name == domain
                    || name
                        .strip_suffix(domain)
                        .is_some_and(|rest| rest.ends_with('.'))
            }
            None => name == *pattern,
        })
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
    use rstest::rstest;

    use super::*;

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
