//! The whole application without its dependencies: what needs neither Postgres nor Redis.

use std::time::Duration;

use actix_web::body::BoxBody;
use actix_web::dev::ServiceResponse;
use actix_web::http::{Method, StatusCode};
use actix_web::test::{TestRequest, call_service, init_service, read_body, read_body_json};
use actix_web::web;
use chrono::Utc;
use rstest::rstest;
use secrecy::ExposeSecret;
use serde_json::Value;
use shared::ids::UserId;
use utoipa::openapi::path::Operation;

use super::*;
use crate::accounts::{Role, SessionId};
use crate::config::{Config, Variables};

/// Names a database and a Redis that are not there.
fn state() -> web::Data<AppState> {
    let variables = [
        ("DEBUG", "true"),
        ("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none"),
        ("REDIS_URL", "redis://127.0.0.1:1"),
    ];
    let variables: Variables = variables
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    web::Data::new(AppState::new(Config::read(&variables).unwrap()).unwrap())
}

async fn call(request: TestRequest) -> ServiceResponse<BoxBody> {
    call_on(&state(), request.insert_header(("host", "localhost"))).await
}

async fn call_on(state: &web::Data<AppState>, request: TestRequest) -> ServiceResponse<BoxBody> {
    let service = init_service(app(state, &web::Data::new(Documentation::new()))).await;
    call_service(&service, request.to_request()).await
}

fn header<'a>(response: &'a ServiceResponse<BoxBody>, name: &str) -> &'a str {
    response
        .headers()
        .get(name)
        .map_or("", |value| value.to_str().unwrap())
}

/// The envelope, after holding it to the headers.
async fn error(response: ServiceResponse<BoxBody>) -> Value {
    let id = header(&response, "x-request-id").to_owned();
    let body: Value = read_body_json(response).await;
    assert_eq!(body["error"]["request_id"], id);
    body["error"].clone()
}

fn register(content_type: &str, body: impl Into<web::Bytes>) -> TestRequest {
    TestRequest::post()
        .uri("/api/v1/auth/register")
        .insert_header(("content-type", content_type))
        .set_payload(body)
}

#[rstest]
#[case("/nothing")]
#[case("/api/v1/nothing")]
#[case("/api/v2/users/me")]
#[case("/auth/login")]
#[actix_web::test]
async fn an_unknown_path_is_not_found(#[case] path: &str) {
    let response = call(TestRequest::get().uri(path)).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(error(response).await["code"], "NOT_FOUND");
}

#[rstest]
#[case("/api/v1/users/me", Method::POST, "GET, HEAD, PUT, DELETE")]
#[case("/users/me", Method::DELETE, "GET, HEAD")]
#[case("/api/v1/auth/login", Method::GET, "POST")]
#[actix_web::test]
async fn another_method_is_not_allowed(
    #[case] path: &str,
    #[case] method: Method,
    #[case] allowed: &str,
) {
    let response = call(TestRequest::default().method(method).uri(path)).await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(header(&response, "allow"), allowed);
    assert_eq!(error(response).await["code"], "METHOD_NOT_ALLOWED");
}

#[rstest]
#[case("/health")]
#[case("/nothing")]
#[case("/docs/")]
#[actix_web::test]
async fn every_response_has_the_frame(#[case] path: &str) {
    let request = TestRequest::get()
        .uri(path)
        .insert_header(("x-request-id", "mine-1"));
    let response = call(request).await;
    assert_eq!(header(&response, "x-request-id"), "mine-1");
    assert_eq!(header(&response, "x-api-version"), "1.0");
    assert_eq!(header(&response, "x-content-type-options"), "nosniff");
    assert_eq!(header(&response, "x-frame-options"), "DENY");
    assert!(header(&response, "content-security-policy").contains("default-src"));
}

#[rstest]
#[case::not_json(
    "application/json",
    "{",
    StatusCode::BAD_REQUEST,
    "INVALID_INPUT",
    Some("body")
)]
#[case::no_body(
    "application/json",
    "",
    StatusCode::BAD_REQUEST,
    "INVALID_INPUT",
    Some("body")
)]
#[case::missing(
    "application/json",
    "{\"email\":\"a@example.org\"}",
    StatusCode::BAD_REQUEST,
    "INVALID_INPUT",
    Some("password")
)]
#[case::charset(
    "application/json; charset=utf-8",
    "{}",
    StatusCode::BAD_REQUEST,
    "INVALID_INPUT",
    Some("email")
)]
#[case::text(
    "text/plain",
    "{}",
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    "UNSUPPORTED_MEDIA_TYPE",
    None
)]
#[actix_web::test]
async fn a_body_that_cannot_be_used_is_explained(
    #[case] content_type: &str,
    #[case] body: &'static str,
    #[case] status: StatusCode,
    #[case] code: &str,
    #[case] field: Option<&str>,
) {
    let response = call(register(content_type, body)).await;
    assert_eq!(response.status(), status);
    let error = error(response).await;
    assert_eq!(error["code"], code);
    assert_eq!(error["details"][0]["field"].as_str(), field);
}

#[actix_web::test]
async fn a_large_body_is_refused() {
    let response = call(register("application/json", vec![b' '; 64 * 1024 + 1])).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(error(response).await["code"], "PAYLOAD_TOO_LARGE");
}

#[rstest]
#[case("application/json", r#"{"email":"a@example.org"}"#, "password")]
#[case(
    "application/x-www-form-urlencoded",
    "username=a%40example.org",
    "password"
)]
#[case(
    "application/x-www-form-urlencoded",
    "password=long+enough",
    "username"
)]
#[actix_web::test]
async fn a_login_names_what_it_misses(
    #[case] content_type: &str,
    #[case] body: &'static str,
    #[case] field: &str,
) {
    let request = TestRequest::post()
        .uri("/api/v1/auth/login")
        .insert_header(("content-type", content_type))
        .set_payload(body);
    let response = call(request).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_eq!(error(response).await["details"][0]["field"], field);
}

#[rstest]
#[case::none(None)]
#[case::basic(Some("Basic YTpi"))]
#[case::empty(Some("Bearer "))]
#[case::noise(Some("Bearer x.y.z"))]
#[actix_web::test]
async fn without_a_token_nobody_gets_in(#[case] authorization: Option<&str>) {
    let mut request = TestRequest::get().uri("/users/me");
    if let Some(value) = authorization {
        request = request.insert_header(("authorization", value));
    }
    let response = call(request).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(header(&response, "www-authenticate"), "Bearer");
    assert_eq!(error(response).await["code"], "UNAUTHORIZED");
}

#[actix_web::test]
async fn an_old_token_is_told_apart() {
    let state = state();
    let yesterday = Utc::now() - Duration::from_secs(86_400);
    let token = state
        .tokens()
        .issue(
            UserId::generate(),
            Role::User,
            SessionId::generate(),
            yesterday,
        )
        .unwrap()
        .token;
    let request = TestRequest::get()
        .uri("/users/me")
        .insert_header(("host", "localhost"))
        .insert_header(("authorization", format!("bearer {}", token.expose_secret())));
    let response = call_on(&state, request).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(error(response).await["code"], "TOKEN_EXPIRED");
}

#[rstest]
#[case("/users/me", StatusCode::BAD_REQUEST)]
#[case("/docs/", StatusCode::BAD_REQUEST)]
#[case("/health", StatusCode::OK)]
#[actix_web::test]
async fn another_host_is_not_answered_for(#[case] path: &str, #[case] status: StatusCode) {
    let request = TestRequest::get()
        .uri(path)
        .insert_header(("host", "evil.test"));
    let response = call_on(&state(), request).await;
    assert_eq!(response.status(), status);
    if status != StatusCode::OK {
        assert_eq!(error(response).await["details"][0]["field"], "Host");
    }
}

#[actix_web::test]
async fn without_postgres_the_service_is_not_ready_but_alive() {
    let response = call(TestRequest::get().uri("/health/ready")).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let body: Value = read_body_json(response).await;
    assert_eq!(body["status"], "unhealthy");
    assert_eq!(
        call(TestRequest::get().uri("/api/v1/health/live"))
            .await
            .status(),
        StatusCode::OK
    );
}

#[actix_web::test]
async fn the_document_is_served() {
    let response = call(TestRequest::get().uri(docs::DOCUMENT)).await;
    let document: Value = read_body_json(response).await;
    assert_eq!(document["openapi"], "3.1.0");
    let error = &document["paths"]["/api/v1/users/me"]["get"]["responses"]["default"];
    assert_eq!(error["$ref"], "#/components/responses/Error");
    let codes = document["components"]["responses"]["Error"]["description"]
        .as_str()
        .unwrap();
    assert!(Code::ALL.iter().all(|code| codes.contains(code.as_str())));
}

#[actix_web::test]
async fn the_docs_load_from_here_alone() {
    for path in ["/docs/", "/docs/swagger-initializer.js"] {
        let response = call(TestRequest::get().uri(path)).await;
        assert_eq!(response.status(), StatusCode::OK);
        let page = read_body(response).await;
        let page = std::str::from_utf8(&page).unwrap();
        assert!(
            !page.contains("https://") && !page.contains("src=\"//"),
            "{page}"
        );
    }
}

/// Every operation with its method and path.
fn operations(document: &OpenApi) -> Vec<(Method, String, Operation)> {
    let all = document.paths.paths.iter().flat_map(|(path, item)| {
        [
            (Method::GET, &item.get),
            (Method::PUT, &item.put),
            (Method::POST, &item.post),
            (Method::DELETE, &item.delete),
            (Method::PATCH, &item.patch),
        ]
        .map(|(method, operation)| (method, path.clone(), operation.clone()))
    });
    all.filter_map(|(method, path, operation)| Some((method, path, operation?)))
        .collect()
}

#[test]
fn every_operation_decides_who_may_call_it() {
    let documentation = Documentation::new();
    let undecided: Vec<_> = operations(documentation.document())
        .into_iter()
        .filter(|(_, _, operation)| operation.security.is_none())
        .map(|(method, path, _)| format!("{method} {path}"))
        .collect();
    assert!(undecided.is_empty(), "no `security(…)`: {undecided:?}");
}

#[test]
fn every_security_scheme_is_defined() {
    let document = serde_json::to_value(Documentation::new().document()).unwrap();
    let defined = document["components"]["securitySchemes"]
        .as_object()
        .unwrap()
        .clone();
    for (method, path, operation) in operations(Documentation::new().document()) {
        let security = serde_json::to_value(&operation.security).unwrap();
        for name in security
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|it| it.as_object().unwrap().keys())
        {
            assert!(defined.contains_key(name), "{method} {path}: {name}");
        }
    }
}

#[actix_web::test]
async fn every_protected_operation_turns_strangers_away() {
    let documentation = Documentation::new();
    let service = init_service(app(&state(), &web::Data::new(Documentation::new()))).await;
    let mut open = Vec::new();
    for (method, path, operation) in operations(documentation.document()) {
        let security = serde_json::to_value(&operation.security).unwrap();
        if security == serde_json::json!([{}]) {
            continue;
        }
        let mut uri = String::new();
        let nil = uuid::Uuid::nil().to_string();
        ResourceDef::new(path).resource_path_from_iter(&mut uri, std::iter::repeat(nil));
        let request = TestRequest::default().method(method.clone()).uri(&uri);
        let request = request.insert_header(("host", "localhost")).to_request();
        let status = call_service(&service, request).await.status();
        if status != StatusCode::UNAUTHORIZED {
            open.push(format!("{method} {uri}: {status}"));
        }
    }
    assert!(open.is_empty(), "{open:?}");
}
