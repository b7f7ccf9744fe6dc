//! The document and the pages that show it: Swagger UI at `/docs`, ReDoc at `/redoc`. All that they
//! load is built in; their policies let a browser ask nobody else.

use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, ContentType, HeaderName, HeaderValue,
};
use actix_web::middleware::DefaultHeaders;
use actix_web::{HttpResponse, web};
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::router::Documentation;

/// Where the document is served.
pub const DOCUMENT: &str = "/api/v1/openapi.json";

/// Both pages put styles into themselves; ReDoc searches in a worker that it makes of a blob.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; font-src 'self'; connect-src 'self'; worker-src blob:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const REDOC: &[u8] = include_bytes!("../../../assets/redoc/redoc-2.5.4.js.gz");
const REDOC_PAGE: &str = include_str!("../../../assets/redoc/index.html");
const REDOC_START: &str = include_str!("../../../assets/redoc/init.js");

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// For what has its version in its name.
const FOREVER: (HeaderName, HeaderValue) = (
    CACHE_CONTROL,
    HeaderValue::from_static("public, max-age=31536000, immutable"),
);

/// For what changes with a release.
const AN_HOUR: (HeaderName, HeaderValue) = (
    CACHE_CONTROL,
    HeaderValue::from_static("public, max-age=3600"),
);

/// The document itself. It lies below the API's scope and goes before it.
pub fn document(config: &mut web::ServiceConfig) {
    config.route(DOCUMENT, web::get().to(show_document));
}

/// `/docs` and `/redoc`.
pub fn pages(config: &mut web::ServiceConfig) {
    let policy = || DefaultHeaders::new().add((CONTENT_SECURITY_POLICY, PAGE_POLICY));
    let ui = SwaggerUi::new("/{_:.*}").config(Config::from(DOCUMENT));
    let redoc = web::scope("/redoc")
        .wrap(policy())
        .route("", web::get().to(redoc_page))
        .route("/", web::get().to(redoc_page))
        .route("/init.js", web::get().to(redoc_start))
        .route("/redoc-2.5.4.js", web::get().to(redoc_bundle));
    config
        .service(web::redirect("/docs", "/docs/"))
        .service(web::scope("/docs").wrap(policy()).service(ui))
        .service(redoc);
}

async fn show_document(documentation: web::Data<Documentation>) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(ContentType::json())
        .body(documentation.json())
}

async fn redoc_page() -> HttpResponse {
    HttpResponse::Ok()
        .content_type(ContentType::html())
        .body(REDOC_PAGE)
}

async fn redoc_start() -> HttpResponse {
    HttpResponse::Ok()
        .content_type(JAVASCRIPT)
        .insert_header(AN_HOUR)
        .body(REDOC_START)
}

/// Compressed for everybody: there is no browser that does not take it.
async fn redoc_bundle() -> HttpResponse {
    HttpResponse::Ok()
        .content_type(JAVASCRIPT)
        .insert_header((CONTENT_ENCODING, "gzip"))
        .insert_header(FOREVER)
        .body(REDOC)
}
