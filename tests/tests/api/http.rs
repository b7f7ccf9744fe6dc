//! What holds for every request: where it may come from, over what, and how long it may take.

use std::time::{Duration, Instant};

use reqwest::Method;
use reqwest::header::HeaderMap;
use rstest::rstest;
use tests::TestApp;
use tests::api::Reply;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PAGE: &str = "https://app.example.org";
const LOGIN: &str = "/api/v1/auth/login";

async fn with(variables: &'static [(&'static str, &'static str)]) -> TestApp {
    TestApp::with(|all| {
        for (name, value) in variables {
            all.insert((*name).to_owned(), (*value).to_owned());
        }
    })
    .await
}

async fn ask(app: &TestApp, method: Method, path: &str, headers: &[(&str, &str)]) -> Reply {
    let client = app.client();
    let request = headers
        .iter()
        .fold(client.request(method, path), |request, (name, value)| {
            request.header(*name, *value)
        });
    client.send(request).await
}

fn cors_headers(headers: &HeaderMap) -> Vec<&str> {
    let names = headers.keys().map(reqwest::header::HeaderName::as_str);
    names
        .filter(|name| name.starts_with("access-control-"))
        .collect()
}

/// Sends bytes as they are and reads until the server closes or the deadline is over.
async fn raw(app: &TestApp, request: &str) -> String {
    let address = app.url().trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let sent = stream.write_all(request.as_bytes()).await;
    sent.expect("sent");
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(Duration::from_secs(20), reading).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_an_allowed_origin_may_call() {
    let app = with(&[("CORS_ALLOWED_ORIGINS", "https://app.example.org")]).await;
    let reply = ask(&app, Method::GET, "/api/v1/users/me", &[("origin", PAGE)]).await;
    assert_eq!(reply.status, 401);
    assert_eq!(reply.header("access-control-allow-origin"), Some(PAGE));
    assert_eq!(reply.header("vary"), Some("Origin"));
    assert_eq!(reply.header("access-control-allow-credentials"), None);
    let exposed = reply.header("access-control-expose-headers").expect("some");
    assert!(exposed.contains("X-Request-ID") && exposed.contains("Retry-After"));
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_is_told_the_routes_methods() {
    let app = with(&[("CORS_ALLOWED_ORIGINS", "https://app.example.org")]).await;
    let headers = [
        ("origin", PAGE),
        ("access-control-request-method", "POST"),
        (
            "access-control-request-headers",
            "authorization,content-type",
        ),
    ];
    let reply = ask(&app, Method::OPTIONS, LOGIN, &headers)
        .await
        .expect(204);
    assert_eq!(reply.header("access-control-allow-origin"), Some(PAGE));
    assert_eq!(reply.header("access-control-allow-methods"), Some("POST"));
    assert_eq!(reply.header("access-control-max-age"), Some("3600"));
    let accepted = reply.header("access-control-allow-headers").expect("some");
    for header in ["Authorization", "Content-Type", "Idempotency-Key"] {
        assert!(accepted.contains(header), "{accepted}");
    }
    assert_eq!(reply.header("x-api-version"), Some("1.0"));
    assert!(reply.header("x-request-id").is_some());

    let nowhere = ask(&app, Method::OPTIONS, "/api/v1/nothing", &headers).await;
    nowhere.expect_error(404, "NOT_FOUND");
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_any_other_origin_may_not() {
    let app = with(&[("CORS_ALLOWED_ORIGINS", "https://app.example.org")]).await;
    let preflight = ("access-control-request-method", "POST");
    for origin in ["https://evil.test", "http://app.example.org", "null"] {
        let get = ask(&app, Method::GET, "/health", &[("origin", origin)]).await;
        let options = ask(
            &app,
            Method::OPTIONS,
            LOGIN,
            &[("origin", origin), preflight],
        )
        .await;
        options.expect_error(405, "METHOD_NOT_ALLOWED");
        for reply in [&get, &options] {
            assert_eq!(cors_headers(&reply.headers), [""; 0], "{origin}");
        }
    }
    let plain = app.client().get("/health").await;
    assert_eq!(cors_headers(&plain.headers), [""; 0]);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_turned_away_where_https_is_the_rule() {
    let app = with(&[
        ("HTTPS_ONLY", "true"),
        ("PUBLIC_URL", "https://api.example.org"),
    ])
    .await;
    let get = ask(&app, Method::GET, "/api/v1/servers?page=2", &[]).await;
    assert_eq!(get.status, 308);
    let target = "https://api.example.org/api/v1/servers?page=2";
    assert_eq!(get.header("location"), Some(target));
    assert_eq!(ask(&app, Method::HEAD, "/docs/", &[]).await.status, 308);

    // Nobody is trusted, so nobody's word counts.
    let spoofed = [("x-forwarded-proto", "https")];
    let post = ask(&app, Method::POST, LOGIN, &spoofed).await;
    post.expect_error(403, "HTTPS_REQUIRED");
    assert_eq!(post.header("strict-transport-security"), None);
    let _ = ask(&app, Method::GET, "/health", &[]).await.expect(200);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_says_what_the_client_spoke() {
    let app = with(&[("HTTPS_ONLY", "true"), ("TRUSTED_PROXIES", "127.0.0.1")]).await;
    let https = [("x-forwarded-proto", "https")];
    let reply = ask(&app, Method::GET, "/api/v1/users/me", &https).await;
    reply.expect_error(401, "UNAUTHORIZED");
    assert_eq!(
        reply.header("strict-transport-security"),
        Some("max-age=63072000; includeSubDomains")
    );
    let http = [("x-forwarded-proto", "http")];
    let reply = ask(&app, Method::GET, "/api/v1/users/me", &http).await;
    reply.expect_error(403, "HTTPS_REQUIRED");
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn head_is_get_without_its_body() {
    let app = TestApp::start().await;
    for path in ["/health", "/api/v1/openapi.json", "/api/v1/users/me"] {
        let get = ask(&app, Method::GET, path, &[]).await;
        let head = ask(&app, Method::HEAD, path, &[]).await;
        assert_eq!(head.status, get.status, "{path}");
        assert!(head.body.is_empty());
        assert_eq!(head.header("content-type"), get.header("content-type"));
    }
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_the_security_headers() {
    let app = TestApp::start().await;
    for (path, is_page) in [("/health", false), ("/nothing", false), ("/docs/", true)] {
        let reply = app.client().get(path).await;
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(reply.header("x-frame-options"), Some("DENY"));
        assert_eq!(reply.header("referrer-policy"), Some("no-referrer"));
        let embedding = reply.header("cross-origin-resource-policy");
        assert_eq!(embedding, Some("same-origin"));
        for name in ["permissions-policy", "cross-origin-opener-policy"] {
            assert_eq!(reply.header(name).is_some(), is_page, "{path} {name}");
        }
        assert_eq!(reply.header("strict-transport-security"), None);
    }
    app.finish(&[]).await;
}

#[rstest]
#[case::none("GET /api/v1/nothing HTTP/1.1\r\nConnection: close\r\n\r\n", "400")]
#[case::two(
    "GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.test\r\nConnection: close\r\n\r\n",
    "400"
)]
#[case::foreign(
    "GET /nothing HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n",
    "400"
)]
#[case::absolute(
    "GET http://localhost/nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "404"
)]
#[case::foreign_target(
    "GET http://evil.test/nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "400"
)]
#[case::foreign_header(
    "GET http://localhost/nothing HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n",
    "400"
)]
#[case::no_path(
    "GET nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "4"
)]
#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_named_once_and_is_ours(#[case] request: &str, #[case] status: &str) {
    let app = TestApp::start().await;
    let answer = raw(&app, request).await;
    assert!(
        answer.starts_with(&format!("HTTP/1.1 {status}")),
        "{answer}"
    );
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let app = TestApp::start().await;
    let begun = Instant::now();
    let answer = raw(
        &app,
        "POST /api/v1/auth/register HTTP/1.1\r\nHost: localhost\r\n\
         Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("INVALID_INPUT") && answer.contains("in time"));
    assert!(begun.elapsed() < Duration::from_secs(19));
    app.finish(&[]).await;
}
