//! Pages for people: complete without scripts, cookies and anything from another place.
//!
//! A page extends `templates/pages/layout.html`. Its policy lets a browser apply the one style sheet
//! that the layout carries, send forms back to us, and nothing else.

use std::sync::LazyLock;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_SECURITY_POLICY, ContentType};
use askama::Template;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};

use crate::error::ApiError;

/// The style sheet, written into every page.
pub const STYLE: &str = include_str!("../../templates/pages/style.css");

static POLICY: LazyLock<String> = LazyLock::new(|| policy("'self'"));

/// What a page's browser may do; its forms may lead to `form_action`, redirects included.
#[must_use]
pub fn policy(form_action: &str) -> String {
    let hash = BASE64_STANDARD.encode(Sha256::digest(STYLE));
    format!(
        "default-src 'none'; style-src 'sha256-{hash}'; form-action {form_action}; \
         frame-ancestors 'none'; base-uri 'none'"
    )
}

/// A page whose forms come back to us.
pub fn page(status: StatusCode, template: &impl Template) -> Result<HttpResponse, ApiError> {
    let body = template.render().map_err(ApiError::internal)?;
    Ok(HttpResponse::build(status)
        .content_type(ContentType::html())
        .insert_header((CONTENT_SECURITY_POLICY, POLICY.as_str()))
        .body(body))
}

/// A heading and a paragraph.
#[derive(Debug, Template)]
#[template(path = "pages/message.html")]
pub struct Message<'a> {
    pub title: &'a str,
    pub text: &'a str,
}

#[cfg(test)]
mod tests {
    use actix_web::body::to_bytes;

    use super::*;

    #[actix_web::test]
    async fn a_page_allows_its_own_style_and_shows_text_as_text() {
        let message = Message {
            title: "<b>Hello</b>",
            text: "a & b",
        };
        let response = page(StatusCode::OK, &message).unwrap();
        let policy = response.headers().get(CONTENT_SECURITY_POLICY).unwrap();
        let policy = policy.to_str().unwrap().to_owned();
        let body = to_bytes(response.into_body()).await.unwrap();
        let body = std::str::from_utf8(&body).unwrap();
        let style = body.split("<style>").nth(1).unwrap();
        let style = style.split("</style>").next().unwrap();
        let hash = BASE64_STANDARD.encode(Sha256::digest(style));
        assert!(
            policy.contains(&format!("style-src 'sha256-{hash}'")),
            "{policy}"
        );
        assert!(
            !body.contains("<b>") && body.contains("a &#38; b"),
            "{body}"
        );
        assert!(!body.contains("://") && !body.contains("<script"), "{body}");
    }
}
