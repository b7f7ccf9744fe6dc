//! What an app asks for when it sends a person to us. Pure.
//!
//! Nothing is sent to an address that is not the app's: until client and redirect URI are known to
//! belong together, the person is told of a problem, and afterwards the app is.

use std::fmt;

use garde::Validate;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::client::Client;
use super::pkce::Challenge;
use super::redirect_uri::RedirectUri;

const MAX_STATE: usize = 1000;

/// An authorization request's parameters as they came.
#[derive(Debug, Clone, Default, Deserialize, Validate, ToSchema, IntoParams)]
#[garde(allow_unvalidated)]
#[into_params(parameter_in = Query)]
pub(super) struct Parameters {
    /// The app's id.
    #[serde(default)]
    #[schema(example = "org.example.app", pattern = "^[A-Za-z0-9._-]{1,100}$")]
    #[param(example = "org.example.app", pattern = "^[A-Za-z0-9._-]{1,100}$")]
    pub(super) client_id: String,
    /// One of those that were registered for the app; the port of a loopback address is free.
    #[serde(default)]
    #[schema(
        example = "org.example.app:/callback",
        min_length = 1,
        max_length = 500
    )]
    #[param(
        example = "org.example.app:/callback",
        min_length = 1,
        max_length = 500
    )]
    pub(super) redirect_uri: String,
    /// `code`
    #[serde(default)]
    #[schema(example = "code", pattern = "^code$")]
    #[param(example = "code", pattern = "^code$")]
    pub(super) response_type: String,
    /// Base64url of the SHA-256 of the verifier.
    #[serde(default)]
    #[schema(
        example = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
        pattern = "^[A-Za-z0-9_-]{43}$"
    )]
    #[param(
        example = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
        pattern = "^[A-Za-z0-9_-]{43}$"
    )]
    pub(super) code_challenge: String,
    /// `S256`; `plain` is refused.
    #[serde(default)]
    #[schema(example = "S256", pattern = "^S256$")]
    #[param(example = "S256", pattern = "^S256$")]
    pub(super) code_challenge_method: String,
    /// Comes back as it is.
    #[schema(example = "af0ifjsldkj", pattern = "^[ -~]{0,1000}$")]
    #[param(example = "af0ifjsldkj", pattern = "^[ -~]{0,1000}$")]
    pub(super) state: Option<String>,
}

/// A request that can be granted.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) client: Client,
    pub(super) challenge: Challenge,
    pub(super) answer: Answer,
}

/// The way back to the app.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) redirect_uri: RedirectUri,
    pub(super) state: Option<String>,
    /// Who answers (RFC 9207): an app that asks several services cannot be told the wrong one.
    pub(super) issuer: String,
}

/// What is wrong with a request.
#[derive(Debug)]
pub(super) enum Refusal {
    /// For the person.
    Person(Problem),
    /// For the app: where its person is sent.
    App(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Problem {
    Unreadable,
    UnknownClient,
    ForeignRedirectUri,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreadable => "The app asked in a way that cannot be understood.",
            Self::UnknownClient => "There is no such app here.",
            Self::ForeignRedirectUri => {
                "The app wants you to be sent to a place that is not known to be its own."
            }
        })
    }
}

/// Holds the request of a client, if there is one of that id, to every rule.
pub(super) fn check(
    parameters: Parameters,
    client: Option<Client>,
    issuer: &str,
) -> Result<Request, Refusal> {
    let client = client.ok_or(Refusal::Person(Problem::UnknownClient))?;
    let redirect_uri = client
        .redirect_uri(&parameters.redirect_uri)
        .ok_or(Refusal::Person(Problem::ForeignRedirectUri))?;
    let (state, state_is_good) = match parameters.state {
        Some(state) if !is_state(&state) => (None, false),
        state => (state, true),
    };
    let answer = Answer {
        redirect_uri,
        state,
        issuer: issuer.to_owned(),
    };
    let invalid = |why| Err(Refusal::App(answer.error("invalid_request", why)));
    if !state_is_good {
        return invalid("state: at most 1000 printable ASCII characters");
    }
    match parameters.response_type.as_str() {
        "code" => {}
        "" => return invalid("response_type is required"),
        _ => {
            let why = "response_type: only code is supported";
            return Err(Refusal::App(answer.error("unsupported_response_type", why)));
        }
    }
    if parameters.code_challenge_method != "S256" {
        return invalid("code_challenge_method: only S256 is supported");
    }
    let Some(challenge) = Challenge::parse(&parameters.code_challenge) else {
        return invalid("code_challenge: the base64url of a SHA-256 is required");
    };
    Ok(Request {
        client,
        challenge,
        answer,
    })
}

fn is_state(state: &str) -> bool {
    state.len() <= MAX_STATE && state.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

impl Answer {
    pub(super) fn code(&self, code: &str) -> String {
        self.with(&[("code", code)])
    }

    pub(super) fn error(&self, error: &str, description: &str) -> String {
        self.with(&[("error", error), ("error_description", description)])
    }

    /// Where the person goes who does not want to.
    pub(super) fn denied(&self) -> String {
        self.error("access_denied", "The person declined")
    }

    fn with(&self, parameters: &[(&str, &str)]) -> String {
        let state = self.state.as_deref().map(|state| ("state", state));
        let parameters: Vec<_> = parameters
            .iter()
            .copied()
            .chain(state)
            .chain([("iss", self.issuer.as_str())])
            .collect();
        self.redirect_uri.with(&parameters)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::http::input::parse_query;

    const ISSUER: &str = "https://vpn.example.org";
    const URI: &str = "org.example.app:/cb";

    fn client() -> Client {
        let uris = vec![RedirectUri::parse(URI).unwrap()];
        Client::new("app".to_owned(), "App".to_owned(), uris).unwrap()
    }

    /// A complete request but for one parameter.
    fn parameters(name: &str, value: &str) -> Parameters {
        let mut query = vec![
            ("client_id", "app"),
            ("redirect_uri", URI),
            ("response_type", "code"),
            (
                "code_challenge",
                "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
            ),
            ("code_challenge_method", "S256"),
            ("state", "a b"),
        ];
        query.retain(|(known, _)| *known != name);
        query.push((name, value));
        let query = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(query)
            .finish();
        parse_query(&query).unwrap()
    }

    fn checked(name: &str, value: &str) -> Result<Request, Refusal> {
        check(parameters(name, value), Some(client()), ISSUER)
    }

    #[test]
    fn a_complete_request_is_granted_and_answered_where_it_asks() {
        let request = checked("ui_locales", "en").unwrap();
        assert_eq!(
            request.answer.code("x"),
            "org.example.app:/cb?code=x&state=a+b&iss=https%3A%2F%2Fvpn.example.org"
        );
        assert_eq!(
            request.answer.denied(),
            "org.example.app:/cb?error=access_denied&error_description=The+person+declined\
             &state=a+b&iss=https%3A%2F%2Fvpn.example.org"
        );
    }

    #[test]
    fn who_sends_no_state_gets_none() {
        let mut parameters = parameters("state", "");
        parameters.state = None;
        let request = check(parameters, Some(client()), ISSUER).unwrap();
        assert!(!request.answer.code("x").contains("state"));
    }

    #[rstest]
    #[case::elsewhere("https://evil.example/cb")]
    #[case::longer("org.example.app:/cb/")]
    #[case::none("")]
    fn nothing_is_sent_to_a_foreign_place(#[case] uri: &str) {
        let refused = checked("redirect_uri", uri).unwrap_err();
        assert!(
            matches!(refused, Refusal::Person(Problem::ForeignRedirectUri)),
            "{refused:?}"
        );
        let unknown = check(parameters("redirect_uri", uri), None, ISSUER).unwrap_err();
        assert!(matches!(unknown, Refusal::Person(Problem::UnknownClient)));
    }

    #[rstest]
    #[case::plain("code_challenge_method", "plain", "invalid_request")]
    #[case::no_method("code_challenge_method", "", "invalid_request")]
    #[case::no_challenge("code_challenge", "", "invalid_request")]
    #[case::short(
        "code_challenge",
        "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-c",
        "invalid_request"
    )]
    #[case::implicit("response_type", "token", "unsupported_response_type")]
    #[case::no_type("response_type", "", "invalid_request")]
    fn the_app_is_told_what_is_wrong(#[case] name: &str, #[case] value: &str, #[case] error: &str) {
        match checked(name, value).unwrap_err() {
            Refusal::App(location) => {
                let start = format!("{URI}?error={error}&error_description=");
                assert!(location.starts_with(&start), "{location}");
                assert!(location.contains("&state=a+b&iss=https"), "{location}");
            }
            refused @ Refusal::Person(_) => panic!("{refused:?}"),
        }
    }

    #[rstest]
    #[case::long(&"x".repeat(1001))]
    #[case::breaks("a\r\nb")]
    #[case::letters("ü")]
    fn a_state_that_cannot_be_repeated_is_not(#[case] state: &str) {
        match checked("state", state).unwrap_err() {
            Refusal::App(location) => {
                assert!(location.contains("error=invalid_request"), "{location}");
                assert!(!location.contains("&state="), "{location}");
            }
            refused @ Refusal::Person(_) => panic!("{refused:?}"),
        }
    }
}
