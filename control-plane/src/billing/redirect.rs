//! Where a person may be sent after they were with Stripe. Pure.
//!
//! An address that a caller names becomes a link on a page that people trust, so it leads to a listed host, over
//! HTTPS, and reads the same to everybody who parses it.

use reqwest::Url;

use crate::error::ApiError;

/// Of an address; Stripe takes more.
pub(super) const LONGEST: usize = 2048;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum RedirectError {
    #[error("Must not be longer than 2048 characters")]
    Long,
    #[error("Must be an address without spaces, backslashes and other than ASCII characters")]
    Letters,
    #[error("Must be a whole address such as https://app.example.org/paid")]
    Malformed,
    #[error("Must be an https address")]
    Scheme,
    #[error("Must not name a user")]
    User,
    #[error("Leads to a host that is not allowed")]
    Host,
}

/// Refuses an address in this field that leads elsewhere.
pub(super) fn check(field: &str, address: &str, hosts: &[String]) -> Result<(), ApiError> {
    judge(address, hosts).map_err(|error| ApiError::invalid(field, error.to_string()))
}

fn judge(address: &str, hosts: &[String]) -> Result<(), RedirectError> {
    if address.len() > LONGEST {
        return Err(RedirectError::Long);
    }
    // What parsers disagree about, or leave out in silence.
    if !address
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'\\')
    {
        return Err(RedirectError::Letters);
    }
    let url = Url::parse(address).map_err(|_| RedirectError::Malformed)?;
    let (_, rest) = address.split_once("://").ok_or(RedirectError::Malformed)?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() {
        return Err(RedirectError::Malformed);
    }
    if authority.contains('@') {
        return Err(RedirectError::User);
    }
    let host = url.host_str().ok_or(RedirectError::Malformed)?;
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(host) => {}
        _ => return Err(RedirectError::Scheme),
    }
    if hosts.iter().any(|allowed| allowed == host) {
        Ok(())
    } else {
        Err(RedirectError::Host)
    }
}

fn is_loopback(host: &str) -> bool {
    matches!(host, "localhost" | "127.0.0.1" | "[::1]")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("https://app.example.org", Ok(()))]
    #[case(
        "https://app.example.org:8443/paid?session={CHECKOUT_SESSION_ID}#x@y",
        Ok(())
    )]
    #[case("HTTPS://APP.example.org/", Ok(()))]
    #[case("http://localhost:3000/paid", Ok(()))]
    #[case("http://app.example.org/", Err(RedirectError::Scheme))]
    #[case("http://127.0.0.1/", Err(RedirectError::Host))]
    #[case("https://evil.example/", Err(RedirectError::Host))]
    #[case("https://app.example.org.evil.example/", Err(RedirectError::Host))]
    #[case("https://evilapp.example.org/", Err(RedirectError::Host))]
    #[case("https://sub.app.example.org/", Err(RedirectError::Host))]
    #[case("https://app.example.org@evil.example/", Err(RedirectError::User))]
    #[case("https://@app.example.org/", Err(RedirectError::User))]
    #[case("https://user:word@app.example.org/", Err(RedirectError::User))]
    #[case(r"https://evil.example\@app.example.org/", Err(RedirectError::Letters))]
    #[case(
        "https://app.example.org/\r\nSet-Cookie:x",
        Err(RedirectError::Letters)
    )]
    #[case(" https://app.example.org/", Err(RedirectError::Letters))]
    #[case("https://app.example.org/\u{e9}", Err(RedirectError::Letters))]
    #[case("//app.example.org/", Err(RedirectError::Malformed))]
    #[case("/paid", Err(RedirectError::Malformed))]
    #[case("", Err(RedirectError::Malformed))]
    #[case("https:app.example.org", Err(RedirectError::Malformed))]
    #[case("https:///", Err(RedirectError::Malformed))]
    #[case("https:///app.example.org/", Err(RedirectError::Malformed))]
    #[case("javascript://app.example.org/%0aalert(1)", Err(RedirectError::Scheme))]
    #[case("javascript:alert(1)", Err(RedirectError::Malformed))]
    #[case("ftp://app.example.org/", Err(RedirectError::Scheme))]
    #[case("https://app.example.org./", Err(RedirectError::Host))]
    fn only_listed_hosts_are_led_to(
        #[case] address: &str,
        #[case] expected: Result<(), RedirectError>,
    ) {
        let hosts = ["app.example.org".to_owned(), "localhost".to_owned()];
        assert_eq!(judge(address, &hosts), expected);
    }

    #[test]
    fn an_address_has_a_length() {
        let long = format!("https://app.example.org/{}", "x".repeat(LONGEST));
        assert_eq!(judge(&long, &[]), Err(RedirectError::Long));
    }
}
