//! Where an app takes a person back: what may be registered, and what a request may ask for.
//!
//! A request's URI has to be a registered one, letter by letter. Only the port of a loopback address
//! is free, because an app on a computer takes the port that it gets (RFC 8252, 7.3).

use std::fmt;

const MAX_LENGTH: usize = 500;

/// What may be registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be https://…, http://127.0.0.1/… or http://[::1]/…, or have a scheme of the app's own with a dot \
     in it such as org.example.app:/callback; at most 500 characters, without a fragment"
)]
pub struct InvalidRedirectUri;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedirectUri {
    text: String,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Https,
    /// Everything but the port: scheme and host, path and query.
    Loopback {
        origin: &'static str,
        rest: String,
    },
    PrivateUse,
}

/// What stands before a loopback address's port.
const LOOPBACK: [&str; 2] = ["http://127.0.0.1", "http://[::1]"];

impl RedirectUri {
    pub fn parse(text: &str) -> Result<Self, InvalidRedirectUri> {
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\"#<>\\^`{|}".contains(&byte);
        if text.len() > MAX_LENGTH || !text.bytes().all(is_plain) {
            return Err(InvalidRedirectUri);
        }
        let kind = kind(text).ok_or(InvalidRedirectUri)?;
        let text = text.to_owned();
        Ok(Self { text, kind })
    }

    /// Whether a request that names `self` means the registered `other`.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        let is_loopback = matches!(self.kind, Kind::Loopback { .. });
        self.text == other.text || (is_loopback && self.kind == other.kind)
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The URI with these parameters in its query.
    #[must_use]
    pub fn with(&self, parameters: &[(&str, &str)]) -> String {
        let query = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(parameters)
            .finish();
        let separator = match self.text.split_once('?') {
            None => "?",
            Some((_, "")) => "",
            Some(_) => "&",
        };
        format!("{}{separator}{query}", self.text)
    }

    /// What a content security policy calls it: its origin, or its scheme where it has no origin that
    /// a policy can name.
    #[must_use]
    pub fn csp_source(&self) -> String {
        let (scheme, rest) = self.text.split_once(':').unwrap_or((&self.text, ""));
        match &self.kind {
            Kind::Https => {
                let authority = authority(rest).unwrap_or_default();
                format!("https://{authority}")
            }
            Kind::Loopback { origin, .. } if !origin.contains('[') => format!("{origin}:*"),
            Kind::Loopback { .. } | Kind::PrivateUse => format!("{scheme}:"),
        }
    }
}

impl fmt::Display for RedirectUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn kind(text: &str) -> Option<Kind> {
    let (scheme, rest) = text.split_once(':')?;
    match scheme {
        "https" => is_authority(authority(rest)?).then_some(Kind::Https),
        "http" => LOOPBACK.iter().find_map(|origin| {
            let rest = without_port(text.strip_prefix(origin)?)?;
            Some(Kind::Loopback {
                origin,
                rest: rest.to_owned(),
            })
        }),
        _ => (is_private(scheme) && rest.starts_with('/')).then_some(Kind::PrivateUse),
    }
}

/// What stands between `//` and the path.
fn authority(rest: &str) -> Option<&str> {
    rest.strip_prefix("//")?.split(['/', '?']).next()
}

/// A host's name and a port perhaps; nobody's name before it.
fn is_authority(authority: &str) -> bool {
    let (host, port) = authority.split_once(':').unwrap_or((authority, "443"));
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    !host.is_empty() && host.bytes().all(is_name) && is_port(port)
}

fn is_port(port: &str) -> bool {
    port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|it| it > 0)
}

/// Path and query after a port that may be there.
fn without_port(rest: &str) -> Option<&str> {
    let rest = match rest.strip_prefix(':') {
        None => rest,
        Some(rest) => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let (port, rest) = rest.split_at_checked(end)?;
            is_port(port).then_some(rest)?
        }
    };
    (rest.is_empty() || rest.starts_with(['/', '?'])).then_some(rest)
}

/// The reverse of a name that the app's maker owns (RFC 8252, 7.1).
fn is_private(scheme: &str) -> bool {
    let is_scheme =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
    scheme.contains('.')
        && scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme.bytes().all(is_scheme)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn uri(text: &str) -> RedirectUri {
        RedirectUri::parse(text).unwrap()
    }

    #[rstest]
    #[case("https://app.example.org/callback", "https://app.example.org")]
    #[case("https://app.example.org:8443?x=1", "https://app.example.org:8443")]
    #[case("http://127.0.0.1/callback", "http://127.0.0.1:*")]
    #[case("http://127.0.0.1:4711/callback?x=1", "http://127.0.0.1:*")]
    #[case("http://[::1]:4711/callback", "http:")]
    #[case("org.example.app:/callback", "org.example.app:")]
    #[case("org.example.app://callback", "org.example.app:")]
    fn an_app_has_one_of_three_kinds(#[case] text: &str, #[case] source: &str) {
        assert_eq!(uri(text).csp_source(), source);
        assert_eq!(uri(text).as_str(), text);
    }

    #[rstest]
    #[case("")]
    #[case("app.example.org/callback")]
    #[case("http://app.example.org/callback")]
    #[case("http://localhost/callback")]
    #[case("http://127.0.0.1.example.org/callback")]
    #[case("http://127.0.0.1@example.org/callback")]
    #[case("http://127.0.0.1:80@example.org/callback")]
    #[case("http://127.0.0.1:0/")]
    #[case("http://127.0.0.1:99999/")]
    #[case("http://127.0.0.1:+80/")]
    #[case("https://")]
    #[case("https:///callback")]
    #[case("https:/callback")]
    #[case("https://user@app.example.org/")]
    #[case("https://app.example.org/#fragment")]
    #[case("https://app.example.org/ space")]
    #[case("https://app.example.org; script-src *")]
    #[case("https://app.example.org\\@evil.example")]
    #[case("https://app.example.org/\r\nx: y")]
    #[case("https://bücher.example")]
    #[case("javascript:/alert(1)")]
    #[case("data:/text")]
    #[case("myapp:/callback")]
    #[case("org.example.app:callback")]
    #[case("Org.Example.App:/callback")]
    #[case(".org:/callback")]
    #[case(&format!("https://app.example.org/{}", "x".repeat(500)))]
    fn anything_else_is_refused(#[case] text: &str) {
        assert_eq!(RedirectUri::parse(text), Err(InvalidRedirectUri));
    }

    #[rstest]
    #[case("https://a.example.org/cb", "https://a.example.org/cb", true)]
    #[case("https://a.example.org/cb", "https://a.example.org/cb/", false)]
    #[case("https://a.example.org/cb", "https://a.example.org/CB", false)]
    #[case("https://a.example.org/cb", "https://a.example.org/cb?x=1", false)]
    #[case("https://a.example.org/cb", "https://a.example.org:8443/cb", false)]
    #[case("https://a.example.org/cb", "https://b.example.org/cb", false)]
    #[case("http://127.0.0.1/cb", "http://127.0.0.1:4711/cb", true)]
    #[case("http://127.0.0.1:1/cb", "http://127.0.0.1:4711/cb", true)]
    #[case("http://127.0.0.1/cb", "http://127.0.0.1:4711/other", false)]
    #[case("http://127.0.0.1/cb", "http://[::1]:4711/cb", false)]
    #[case("org.example.app:/cb", "org.example.app:/cb", true)]
    #[case("org.example.app:/cb", "org.example.app:/other", false)]
    #[case("org.example.app:/cb", "org.example.other:/cb", false)]
    fn a_request_names_a_registered_one(
        #[case] registered: &str,
        #[case] asked: &str,
        #[case] same: bool,
    ) {
        assert_eq!(uri(asked).is(&uri(registered)), same);
    }

    #[rstest]
    #[case("https://a.example.org/cb", "https://a.example.org/cb?code=a%26b")]
    #[case("https://a.example.org/cb?", "https://a.example.org/cb?code=a%26b")]
    #[case(
        "https://a.example.org/cb?x=1",
        "https://a.example.org/cb?x=1&code=a%26b"
    )]
    #[case("org.example.app:/cb", "org.example.app:/cb?code=a%26b")]
    fn an_answer_is_in_the_query(#[case] text: &str, #[case] answer: &str) {
        assert_eq!(uri(text).with(&[("code", "a&b")]), answer);
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_safe_in_a_header(text in "(https?|org\\.x)://?[ -~]{0,40}") {
            if let Ok(uri) = RedirectUri::parse(&text) {
                let source = uri.csp_source();
                prop_assert!(uri.with(&[("a", "\r\n")]).bytes().all(|byte| byte.is_ascii_graphic()));
                prop_assert!(!source.contains([';', ',', ' ', '\'']), "{}", source);
                prop_assert!(uri.is(&uri));
            }
        }
    }
}
