//! Which errors an operation can answer, derived from what it takes and who may call it.
//!
//! A handler names an error only where this rule cannot know it: a conflict, or a not-found of
//! something that is not in the path.

use std::collections::BTreeMap;

use utoipa::openapi::example::{Example, ExampleBuilder};
use utoipa::openapi::path::{Operation, Parameter, ParameterIn};
use utoipa::openapi::{Components, Content, ContentBuilder, Ref, RefOr, Response, ResponseBuilder};

use super::security::{PEOPLE, callers};
use crate::error::{ApiError, Code};

const JSON: &str = "application/json";
const ENVELOPE: &str = "ErrorEnvelope";

/// What can go wrong with any operation, for the statuses that are not listed.
const ANY: &str = "Error";

/// Status, name of the component, what it means.
const RESPONSES: [(u16, &str, &str); 11] = [
    (
        400,
        "BadRequest",
        "The request is not what the operation takes; `details` names the fields",
    ),
    (
        401,
        "Unauthorized",
        "Nobody is known by what the request carries",
    ),
    (403, "Forbidden", "The caller is known and may not do this"),
    (404, "NotFound", "There is nothing by this name"),
    (
        405,
        "MethodNotAllowed",
        "The path exists; `Allow` names its methods",
    ),
    (
        409,
        "Conflict",
        "The state of the resource does not allow this",
    ),
    (413, "PayloadTooLarge", "The body is too large"),
    (
        415,
        "UnsupportedMediaType",
        "The body is of another type than the operation takes",
    ),
    (
        429,
        "TooManyRequests",
        "Too many requests; try again after `Retry-After` seconds",
    ),
    (
        500,
        "InternalError",
        "A fault on our side; its `request_id` finds it in our logs",
    ),
    (
        503,
        "ServiceUnavailable",
        "Something that the operation needs is not there; try again",
    ),
];

/// Adds the responses that operations refer to.
pub(super) fn define(components: &mut Components) {
    for (status, name, description) in RESPONSES {
        let response = response(description, &codes_of(status));
        components
            .responses
            .insert(name.to_owned(), response.into());
    }
    let response = response("Any error", Code::ALL);
    components.responses.insert(ANY.to_owned(), response.into());
}

/// Adds what the operation can answer beyond what its handler says, and examples to what it says.
pub(super) fn add(operation: &mut Operation) {
    let derived = derived(operation);
    let responses = &mut operation.responses.responses;
    for (status, response) in responses.iter_mut() {
        if let (Ok(status), RefOr::T(response)) = (status.parse(), response) {
            illustrate(status, response);
        }
    }
    for (status, name, _) in RESPONSES {
        if derived.contains(&status) {
            let reference = Ref::from_response_name(name);
            responses
                .entry(status.to_string())
                .or_insert(reference.into());
        }
    }
    let any = Ref::from_response_name(ANY);
    responses.entry("default".to_owned()).or_insert(any.into());
}

fn derived(operation: &Operation) -> Vec<u16> {
    let has_body = operation.request_body.is_some();
    let parameters = operation.parameters.as_deref().unwrap_or_default();
    let in_path = |it: &RefOr<_>| matches!(it, RefOr::T(it) if is_in_path(it));
    let callers = callers(operation);
    [
        (400, has_body || !parameters.is_empty()),
        (401, !callers.is_empty()),
        (
            403,
            callers
                .iter()
                .any(|caller| PEOPLE.contains(&caller.as_str())),
        ),
        (404, parameters.iter().any(in_path)),
        (413, has_body),
        (415, has_body),
        (429, true),
        (500, true),
        (503, true),
    ]
    .into_iter()
    .filter_map(|(status, holds)| holds.then_some(status))
    .collect()
}

fn is_in_path(parameter: &Parameter) -> bool {
    matches!(parameter.parameter_in, ParameterIn::Path)
}

/// Gives an envelope that a handler documents its examples: of the codes that its description
/// names, or of all with its status.
fn illustrate(status: u16, response: &mut Response) {
    let all = codes_of(status);
    let named = |code: &&Code| response.description.contains(code.as_str());
    let mut codes: Vec<_> = all.iter().filter(named).copied().collect();
    if codes.is_empty() {
        codes = all;
    }
    for content in response.content.values_mut() {
        if let RefOr::T(content) = content
            && is_envelope(content)
        {
            content.examples = examples(&codes);
        }
    }
}

fn is_envelope(content: &Content) -> bool {
    matches!(&content.schema, Some(RefOr::Ref(schema)) if schema.ref_location.ends_with(ENVELOPE))
}

fn codes_of(status: u16) -> Vec<Code> {
    let has_status = |code: &&Code| code.status().as_u16() == status;
    Code::ALL.iter().filter(has_status).copied().collect()
}

fn response(description: &str, codes: &[Code]) -> Response {
    let list: Vec<_> = codes.iter().copied().map(describe).collect();
    let mut content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name(ENVELOPE)))
        .build();
    content.examples = examples(codes);
    ResponseBuilder::new()
        .description(format!("{description}.\n\n{}", list.join("\n")))
        .content(JSON, content)
        .build()
}

fn describe(code: Code) -> String {
    format!(
        "- `{}` ({}): {}",
        code.as_str(),
        code.status().as_u16(),
        code.message()
    )
}

/// The envelope of each code.
fn examples(codes: &[Code]) -> BTreeMap<String, RefOr<Example>> {
    let example = |code: &Code| {
        let error = match code {
            Code::InvalidInput => ApiError::invalid("email", "Must be a valid email address"),
            code => (*code).into(),
        };
        let envelope = error.envelope("req_0190a0c85b7e7cc39a3e2f6d4c1b8a90");
        let example = ExampleBuilder::new()
            .summary(code.message())
            .value(serde_json::to_value(envelope).ok())
            .build();
        (code.as_str().to_owned(), example.into())
    };
    codes.iter().map(example).collect()
}
