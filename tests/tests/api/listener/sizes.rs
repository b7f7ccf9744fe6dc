//! Requests that are too large.

use rstest::rstest;

use super::{attacker, connect, plane_of, send, until_closed, with};

fn many_headers(count: usize) -> String {
    (0..count)
        .map(|number| format!("X-{number}: x\r\n"))
        .collect()
}

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Connection: close\r\n\r\n")
}

#[rstest]
#[case::headers(get("/health", &many_headers(90)), "200")]
#[case::too_many_headers(get("/health", &many_headers(200)), "4")]
#[case::long_header(get("/health", &format!("X: {}\r\n", "x".repeat(60_000))), "200")]
#[case::too_long_header(get("/health", &format!("X: {}\r\n", "x".repeat(200_000))), "431")]
#[case::long_path(get(&format!("/{}", "x".repeat(60_000)), ""), "404")]
#[case::long_query(get(&format!("/health?{}", "x".repeat(60_000)), ""), "200")]
#[case::too_long_path(get(&format!("/{}", "x".repeat(100_000)), ""), "400")]
#[case::endless_path(format!("GET /{}", "x".repeat(200_000)), "431")]
#[tokio::test(flavor = "multi_thread")]
async fn a_head_has_a_bound(#[case] request: String, #[case] status: &str) {
    let app = with(&[]).await;
    let mut stream = connect(attacker(1), plane_of(&app)).await;
    // It may hang up before it has everything.
    let _sent = tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await;
    let answer = until_closed(&mut stream).await;
    let expected = format!("HTTP/1.1 {status}");
    assert!(answer.starts_with(&expected), "{answer}");
    let _ = app.client().get("/health").await.expect(200);
    app.finish(&[]).await;
}

const REGISTER: &str = "POST /api/v1/auth/register HTTP/1.1\r\nHost: localhost\r\n\
    Content-Type: application/json\r\n";

/// Bodies of a megabyte, where 64 KiB are allowed.
#[rstest]
#[case::announced("Content-Length: 1000000\r\n\r\n", "")]
#[case::sent("Content-Length: 1000000\r\n\r\n", "x")]
#[case::in_chunks("Transfer-Encoding: chunked\r\n\r\n", "10000\r\n")]
#[tokio::test(flavor = "multi_thread")]
async fn a_body_has_a_bound(#[case] header: &str, #[case] filling: &str) {
    let app = with(&[("REQUEST_HEAD_TIMEOUT", "1s")]).await;
    let mut stream = connect(attacker(1), plane_of(&app)).await;
    send(&mut stream, format!("{REGISTER}{header}")).await;
    let body = match filling {
        "" => String::new(),
        "x" => "x".repeat(1_000_000),
        chunk => format!("{chunk}{}\r\n", "x".repeat(0x10000)).repeat(16),
    };
    let _sent = tokio::io::AsyncWriteExt::write_all(&mut stream, body.as_bytes()).await;
    let answer = until_closed(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("PAYLOAD_TOO_LARGE"), "{answer}");
    app.finish(&[]).await;
}

/// A length and chunks at once is how requests are smuggled past a proxy.
#[rstest]
#[case("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n")]
#[case("Content-Length: 5\r\nContent-Length: 6\r\n")]
#[case("Content-Length: +5\r\n")]
#[case("Transfer-Encoding: chunked, identity\r\n")]
#[tokio::test(flavor = "multi_thread")]
async fn a_length_is_told_once(#[case] lengths: &str) {
    let app = with(&[]).await;
    let mut stream = connect(attacker(1), plane_of(&app)).await;
    send(
        &mut stream,
        format!("{REGISTER}{lengths}\r\n0\r\n\r\n{}", super::HEALTH),
    )
    .await;
    let answer = until_closed(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    app.finish(&[]).await;
}
