//! The OpenAPI document and the pages that show it.

use actix_web::http::header::{CONTENT_SECURITY_POLICY, ContentType};
use actix_web::middleware::DefaultHeaders;
use actix_web::{HttpResponse, web};
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Components, ContentBuilder, OpenApi, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi as _};
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::error::{Code, ErrorEnvelope};
use crate::router::Documentation;

/// Where the document is served.
pub const DOCUMENT: &str = "/api/v1/openapi.json";

/// Swagger UI's page starts itself by an inline script and styles itself inline.
const PAGE_POLICY: &str = "default-src 'self'; script-src 'self' 'unsafe-inline'; \
     style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'";

const ERROR: &str = "Error";

/// Who may call: the name that an operation's `security(…)` refers to, its format, its meaning.
const TOKENS: [(&str, &str, &str); 4] = [
    (
        "bearer",
        "JWT",
        "A person's access token, from `POST /auth/login`",
    ),
    (
        "operator",
        "Biscuit",
        "An operator's token, from `control-plane token mint`",
    ),
    ("enrolment", "Biscuit", "Good for one enrolment of one host"),
    ("node", "Biscuit", "A node's own token, from its enrolment"),
];

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Prime VPN",
        description = "Accounts, servers and connections. Times are RFC 3339 in UTC, ids are UUIDs, \
                       bytes count from the client's side.",
    ),
    components(schemas(ErrorEnvelope)),
    modifiers(&Shared),
)]
struct Base;

/// What all operations refer to.
struct Shared;

impl Modify for Shared {
    fn modify(&self, document: &mut OpenApi) {
        let components = document.components.get_or_insert_with(Components::new);
        for (name, format, description) in TOKENS {
            let mut scheme = Http::new(HttpAuthScheme::Bearer);
            scheme.bearer_format = Some(format.to_owned());
            scheme.description = Some(description.to_owned());
            components.add_security_scheme(name, SecurityScheme::Http(scheme));
        }
        let codes: Vec<_> = Code::ALL.iter().map(|code| describe(*code)).collect();
        let error = ResponseBuilder::new()
            .description(format!("An error. The codes:\n\n{}", codes.join("\n")))
            .content(
                "application/json",
                ContentBuilder::new()
                    .schema(Some(Ref::from_schema_name("ErrorEnvelope")))
                    .build(),
            )
            .build();
        components
            .responses
            .insert(ERROR.to_owned(), RefOr::T(error));
    }
}

fn describe(code: Code) -> String {
    format!(
        "- `{}` ({}): {}",
        code.as_str(),
        code.status().as_u16(),
        code.message()
    )
}

/// The document without its operations.
#[must_use]
pub fn base() -> OpenApi {
    Base::openapi()
}

/// Says of every operation that it can fail in the one way in which ours fail.
pub fn add_errors(document: &mut OpenApi) {
    for item in document.paths.paths.values_mut() {
        let operations = [
            &mut item.get,
            &mut item.put,
            &mut item.post,
            &mut item.delete,
            &mut item.patch,
        ];
        for operation in operations.into_iter().flatten() {
            add_error(operation);
        }
    }
}

fn add_error(operation: &mut Operation) {
    let error = RefOr::Ref(Ref::from_response_name(ERROR));
    operation
        .responses
        .responses
        .entry("default".to_owned())
        .or_insert(error);
}

/// `/docs` and the document.
pub fn configure(config: &mut web::ServiceConfig) {
    let ui = SwaggerUi::new("/{_:.*}").config(Config::from(DOCUMENT));
    let policy = DefaultHeaders::new().add((CONTENT_SECURITY_POLICY, PAGE_POLICY));
    config
        .route(DOCUMENT, web::get().to(document))
        .service(web::redirect("/docs", "/docs/"))
        .service(web::scope("/docs").wrap(policy).service(ui));
}

async fn document(documentation: web::Data<Documentation>) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(ContentType::json())
        .body(documentation.json())
}
