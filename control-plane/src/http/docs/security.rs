//! Who may call: the names that an operation's `security(…)` refers to.

use utoipa::openapi::Components;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{
    AuthorizationCode, Flow, Http, HttpAuthScheme, OAuth2, Scopes, SecurityRequirement,
    SecurityScheme,
};

const BEARER: &str = "bearer";
const OAUTH: &str = "oauth2";

/// Those who are somebody, and so may be somebody who may not.
pub(super) const PEOPLE: [&str; 2] = [BEARER, "operator"];

/// Name, format, whose it is, what it is called in a sentence.
const TOKENS: [(&str, &str, &str, &str); 4] = [
    (
        BEARER,
        "JWT",
        "A person's access token, from `POST /auth/login` or the OAuth 2 flow",
        "a person's access token",
    ),
    (
        "operator",
        "Biscuit",
        "An operator's token, from `control-plane token`; its holder can narrow it offline",
        "an operator token with the right",
    ),
    (
        "enrolment",
        "Biscuit",
        "Good for one enrolment of one host",
        "an enrolment token",
    ),
    (
        "node",
        "Biscuit",
        "A node's own token, from its enrolment",
        "a node's own token",
    ),
];

/// Adds the schemes.
pub(super) fn define(components: &mut Components) {
    for (name, format, description, _) in TOKENS {
        let mut scheme = Http::new(HttpAuthScheme::Bearer);
        scheme.bearer_format = Some(format.to_owned());
        scheme.description = Some(description.to_owned());
        components.add_security_scheme(name, SecurityScheme::Http(scheme));
    }
    let mut flow = AuthorizationCode::new(
        "/api/v1/oauth/authorize",
        "/api/v1/oauth/token",
        Scopes::new(),
    );
    flow.refresh_url = Some("/api/v1/oauth/token".to_owned());
    let oauth = OAuth2::with_description(
        [Flow::AuthorizationCode(flow)],
        "For applications: authorization code with PKCE (S256)",
    );
    components.add_security_scheme(OAUTH, SecurityScheme::OAuth2(oauth));
}

/// The names of the tokens that the operation takes; none where it is open to anybody.
pub(super) fn callers(operation: &Operation) -> Vec<String> {
    let alternatives = serde_json::to_value(&operation.security).unwrap_or_default();
    let alternatives = alternatives.as_array().into_iter().flatten();
    alternatives
        .filter_map(|it| it.as_object())
        .flat_map(|it| it.keys().cloned())
        .collect()
}

/// An access token may also come from the OAuth flow.
pub(super) fn add_oauth(operation: &mut Operation) {
    let takes = |name: &str| callers(operation).iter().any(|it| it == name);
    if takes(BEARER) && !takes(OAUTH) {
        let requirement = SecurityRequirement::new(OAUTH, [""; 0]);
        operation.security.get_or_insert_default().push(requirement);
    }
}

/// One sentence for the operation's description.
pub(super) fn sentence(operation: &Operation) -> String {
    let callers = callers(operation);
    let takes = |name: &str| callers.iter().any(|it| it == name);
    let tokens: Vec<_> = TOKENS
        .iter()
        .filter_map(|(name, _, _, words)| takes(name).then_some(*words))
        .collect();
    if tokens.is_empty() {
        return "Open to anybody.".to_owned();
    }
    format!("Takes {}.", tokens.join(", or "))
}
