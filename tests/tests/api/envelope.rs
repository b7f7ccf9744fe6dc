//! One envelope, whatever goes wrong.

use reqwest::Method;
use rstest::rstest;
use serde_json::json;
use tests::TestApp;

const LOGIN: &str = "/api/v1/auth/login";

#[rstest]
#[case::unknown_route(Method::GET, "/api/v1/nothing", None, "", 404, "NOT_FOUND")]
#[case::unknown_root(Method::GET, "/nothing", None, "", 404, "NOT_FOUND")]
#[case::not_an_id(Method::GET, "/api/v1/servers/not-a-uuid", None, "", 404, "SERVER_NOT_FOUND")]
#[case::wrong_method(Method::DELETE, LOGIN, None, "", 405, "METHOD_NOT_ALLOWED")]
#[case::malformed_json(Method::POST, LOGIN, Some("application/json"), "{\"email\":", 400, "INVALID_INPUT")]
#[case::no_object(Method::POST, LOGIN, Some("application/json"), "[]", 400, "INVALID_INPUT")]
#[case::empty(Method::POST, LOGIN, Some("application/json"), "", 400, "INVALID_INPUT")]
#[case::wrong_type(Method::POST, LOGIN, Some("text/plain"), "hello", 415, "UNSUPPORTED_MEDIA_TYPE")]
#[case::not_utf8(Method::POST, LOGIN, Some("application/json"), "\"\\ud800\"", 400, "INVALID_INPUT")]
#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_has_the_envelope(
    #[case] method: Method,
    #[case] path: &str,
    #[case] content_type: Option<&str>,
    #[case] body: &str,
    #[case] status: u16,
    #[case] code: &str,
) {
    let app = TestApp::start().await;
    let user = app.user().await;
    let mut request = user.request(method, path);
    if let Some(content_type) = content_type {
        request = request.header("content-type", content_type).body(body.to_owned());
    }
    let reply = user.send(request).await;
    reply.expect_error(status, code);
    assert_eq!(reply.header("x-api-version"), Some("1.0"));
    assert_eq!(reply.header("content-type"), Some("application/json"));
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

#[rstest]
#[case::taken("abc-123", true)]
#[case::too_long("x".repeat(300), false)]
#[case::with_spaces("a b", false)]
#[tokio::test(flavor = "multi_thread")]
async fn request_ids_come_back(#[case] id: impl Into<String>, #[case] taken: bool) {
    let app = TestApp::start().await;
    let id = id.into();
    let client = app.client();
    for path in ["/health", "/api/v1/nothing"] {
        let request = client.request(Method::GET, path).header("x-request-id", &id);
        let reply = client.send(request).await;
        let echoed = reply.header("x-request-id").expect("every answer has an id");
        assert_eq!(echoed == id, taken, "{echoed}");
        assert!(!echoed.is_empty() && echoed.len() < 200);
        assert_eq!(reply.header("x-api-version"), Some("1.0"));
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
