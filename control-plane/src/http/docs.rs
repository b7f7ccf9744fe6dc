//! The OpenAPI document and the pages that show it.
//!
//! A handler documents what only it knows; what follows from that is said in this one place, so
//! that no operation can leave it out: its errors, who may call it, whole examples.

mod errors;
mod examples;
mod pages;
mod security;

use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{Components, OpenApi, Server, Tag};
use utoipa::{Modify, OpenApi as _};

use self::examples::Schemas;
use crate::error::ErrorEnvelope;

pub use pages::{DOCUMENT, document, pages};

/// What operations are grouped by.
const TAGS: [(&str, &str); 11] = [
    (
        "accounts",
        "Registration, login, the caller's own account and devices",
    ),
    ("sessions", "Refreshing, listing and ending sessions"),
    ("second factor", "Codes of an authenticator application"),
    ("oauth", "Authorization code with PKCE, for applications"),
    (
        "administration",
        "Other people's accounts and the audit log, for support and administrators",
    ),
    ("servers", "The servers and which of them to use"),
    (
        "connections",
        "Connecting, disconnecting, configurations and live metrics",
    ),
    (
        "analytics",
        "What was used, by hours, days and months of UTC: one's own, or the fleet's for support",
    ),
    ("billing", "Plans, subscriptions and payments"),
    ("node", "What the agent of a VPN host calls"),
    ("operations", "Whether the service works"),
];

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Prime VPN",
        description = "Accounts, servers and connections. Times are RFC 3339 in UTC, ids are UUIDs, \
                       bytes count from the client's side. Every error has the same envelope, and \
                       every response an `X-Request-ID` by which it is found in the logs. \
                       Every response says by `X-RateLimit-Limit`, `-Remaining` and `-Reset` (a Unix \
                       time) how its caller stands with the limit; a 429 says by `Retry-After` how \
                       many seconds to wait.",
        license(name = "MIT", identifier = "MIT"),
    ),
    components(schemas(ErrorEnvelope)),
    modifiers(&Shared),
)]
struct Base;

/// What all operations refer to.
struct Shared;

impl Modify for Shared {
    fn modify(&self, document: &mut OpenApi) {
        let mut server = Server::new("/");
        server.description = Some("The service that this document came from".to_owned());
        document.servers = Some(vec![server]);
        let components = document.components.get_or_insert_with(Components::new);
        security::define(components);
        errors::define(components);
    }
}

/// The document without its operations.
#[must_use]
pub fn base() -> OpenApi {
    Base::openapi()
}

/// Says of every operation what follows from what it says itself, and describes the tags in use.
pub fn complete(document: &mut OpenApi) {
    let Some(components) = &document.components else {
        return;
    };
    let schemas = Schemas::of(components);
    let mut tags = Vec::new();
    for operation in document.paths.paths.values_mut().flat_map(operations_of) {
        describe_callers(operation);
        security::add_oauth(operation);
        errors::add(operation);
        schemas.illustrate(operation);
        tags.extend(operation.tags.iter().flatten().cloned());
    }
    document.tags = Some(described(&tags));
}

fn operations_of(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [
        &mut item.get,
        &mut item.put,
        &mut item.post,
        &mut item.delete,
        &mut item.patch,
    ]
    .into_iter()
    .flatten()
}

fn describe_callers(operation: &mut Operation) {
    let callers = security::sentence(operation);
    let description = operation.description.take().filter(|it| !it.is_empty());
    operation.description = Some(match description {
        Some(description) => format!("{description}\n\n{callers}"),
        None => callers,
    });
}

fn described(used: &[String]) -> Vec<Tag> {
    let known = TAGS
        .iter()
        .filter(|(name, _)| used.iter().any(|it| it == name));
    known
        .map(|(name, description)| {
            TagBuilder::new()
                .name(*name)
                .description(Some(*description))
                .build()
        })
        .collect()
}

#[cfg(test)]
mod tests;
