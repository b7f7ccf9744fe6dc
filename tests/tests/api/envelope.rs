//! One envelope, whatever goes wrong.

use reqwest::Method;
use serde_json::json;
use tests::TestApp;

const LOGIN: &str = "/api/v1/auth/login";

/// Method, path, content type and body; status and code.
type Case = (
    Method,
    &'static str,
    Option<(&'static str, &'static str)>,
    u16,
    &'static str,
);

const JSON: &str = "application/json";

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_has_the_envelope() {
    let app = TestApp::start().await;
    let user = app.user().await;
    let table: [Case; 9] = [
        (Method::GET, "/api/v1/nothing", None, 404, "NOT_FOUND"),
        (Method::GET, "/nothing", None, 404, "NOT_FOUND"),
        (
            Method::GET,
            "/api/v1/servers/not-a-uuid",
            None,
            400,
            "INVALID_INPUT",
        ),
        (Method::DELETE, LOGIN, None, 405, "METHOD_NOT_ALLOWED"),
        (
            Method::POST,
            LOGIN,
            Some((JSON, "{\"email\":")),
            400,
            "INVALID_INPUT",
        ),
        (
            Method::POST,
            LOGIN,
            Some((JSON, "[]")),
            400,
            "INVALID_INPUT",
        ),
        (Method::POST, LOGIN, Some((JSON, "")), 400, "INVALID_INPUT"),
        (
            Method::POST,
            LOGIN,
            Some((JSON, "\"\\ud800\"")),
            400,
            "INVALID_INPUT",
        ),
        (
            Method::POST,
            LOGIN,
            Some(("text/plain", "hello")),
            415,
            "UNSUPPORTED_MEDIA_TYPE",
        ),
    ];
    for (method, path, body, status, code) in table {
        let mut request = user.request(method, path);
        if let Some((content_type, body)) = body {
            request = request.header("content-type", content_type).body(body);
        }
        let reply = user.send(request).await;
        reply.expect_error(status, code);
        assert_eq!(reply.header("x-api-version"), Some("1.0"));
        assert_eq!(reply.header("content-type"), Some(JSON));
    }
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_megabytes_is_refused() {
    let app = TestApp::start().await;
    let body = json!({ "email": "a@example.org", "password": "x".repeat(4 << 20) });
    let reply = app.client().post("/api/v1/auth/register", &body).await;
    reply.expect_error(413, "PAYLOAD_TOO_LARGE");
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn request_ids_come_back() {
    let app = TestApp::start().await;
    let client = app.client();
    let endless = "x".repeat(300);
    for (id, taken) in [
        ("abc-123", true),
        (endless.as_str(), false),
        ("a b", false),
        ("", false),
    ] {
        for path in ["/health", "/api/v1/nothing"] {
            let request = client.request(Method::GET, path).header("x-request-id", id);
            let reply = client.send(request).await;
            let echoed = reply
                .header("x-request-id")
                .expect("every answer has an id");
            assert_eq!(echoed == id, taken, "{echoed}");
            assert!(!echoed.is_empty() && echoed.len() < 200);
            assert_eq!(reply.header("x-api-version"), Some("1.0"));
        }
    }
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_requests_have_two_ids() {
    let app = TestApp::start().await;
    let client = app.client();
    let (one, two) = (client.get("/health").await, client.get("/health").await);
    assert_ne!(one.header("x-request-id"), two.header("x-request-id"));
    app.finish(&[]).await;
}
