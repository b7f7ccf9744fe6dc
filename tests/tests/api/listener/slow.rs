//! Whoever is slow with a handshake, a head or a body.

use std::time::Duration;

use futures_util::future::join_all;
use rstest::rstest;
use serde_json::json;

use super::{HEALTH, Target, asks, attacker, connect, drip, plane_of, send, until_closed, with};

const HEAD: &str = "GET /health HTTP/1.1\r\nHost: localhost\r\nX-Drop: ";

#[tokio::test(flavor = "multi_thread")]
async fn slow_heads_are_cut_off_while_others_are_answered() {
    let target = Target::start(false, &[("REQUEST_HEAD_TIMEOUT", "3s")]).await;
    let attack = join_all((0..400).map(|number| {
        let to = target.address();
        async move { drip(connect(attacker(number / 20), to).await, HEAD, "x").await }
    }));
    let others = async {
        target.wait_counted("connections_open", 400).await;
        for _ in 0..20 {
            target.answers_quickly().await;
        }
    };
    let (cut, ()) = tokio::join!(attack, others);
    for (answer, took) in cut {
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        assert!(took >= Duration::from_secs(2), "{took:?}");
    }
    target.wait_open(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_says_nothing_is_cut_off() {
    let app = with(&[("REQUEST_HEAD_TIMEOUT", "1s")]).await;
    let mut silent = connect(attacker(1), plane_of(&app)).await;
    assert!(until_closed(&mut silent).await.starts_with("HTTP/1.1 408"));
    app.finish(&[]).await;
}

#[rstest]
#[case::of_its_own("")]
#[case::behind_a_whole_one("G")]
#[tokio::test(flavor = "multi_thread")]
async fn a_second_head_has_no_more_time_than_the_first(#[case] pipelined: &str) {
    let app = with(&[("REQUEST_HEAD_TIMEOUT", "1s")]).await;
    let mut stream = connect(attacker(1), plane_of(&app)).await;
    assert!(asks(&mut stream).await);
    let beginning = format!("{HEALTH}{pipelined}");
    let (answer, took) = drip(stream, &beginning, "E").await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert!(took < Duration::from_secs(60), "{took:?}");
    app.finish(&[]).await;
}

#[rstest]
#[case::nothing(&[])]
#[case::half_a_hello(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03])]
#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_has_its_time(#[case] hello: &[u8]) {
    let target = Target::start(true, &[("REQUEST_HEAD_TIMEOUT", "1s")]).await;
    let mut stream = connect(attacker(1), target.address()).await;
    send(&mut stream, hello).await;
    assert_eq!(until_closed(&mut stream).await, "");
    let refused = "connections_refused_total{why=\"slow_handshake\"}";
    target.wait_counted(refused, 1).await;
    let _ = target.plane.client().get("/health").await.expect(200);
}

#[rstest]
#[case::of_known_length("Content-Length: 1000", "{", "x")]
#[case::in_chunks("Transfer-Encoding: chunked", "1\r\n{\r\n", "1\r\nx\r\n")]
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_body_is_refused_and_its_connection_closed(
    #[case] header: &str,
    #[case] first: &str,
    #[case] drop: &str,
) {
    let app = with(&[
        ("REQUEST_BODY_TIMEOUT", "1s"),
        ("REQUEST_HEAD_TIMEOUT", "2s"),
    ])
    .await;
    let beginning = format!(
        "POST /api/v1/auth/register HTTP/1.1\r\nHost: localhost\r\n\
         Content-Type: application/json\r\n{header}\r\n\r\n{first}"
    );
    let stream = connect(attacker(1), plane_of(&app)).await;
    let (answer, _) = drip(stream, &beginning, drop).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("Did not arrive in time"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    app.finish(&[]).await;
}

#[rstest]
#[case::of_known_length("Content-Length: 1000000", "x")]
#[case::in_chunks("Transfer-Encoding: chunked", "1\r\nx\r\n")]
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_nobody_reads_is_not_taken_for_long(#[case] header: &str, #[case] drop: &str) {
    let app = with(&[("REQUEST_HEAD_TIMEOUT", "1s")]).await;
    for (method, path, status) in [("GET", "/health", "200"), ("POST", "/nothing", "404")] {
        let beginning = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{header}\r\n\r\n");
        let stream = connect(attacker(1), plane_of(&app)).await;
        let (answer, took) = drip(stream, &beginning, drop).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
        assert!(took < Duration::from_secs(20), "{path} {took:?}");
    }
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_stay_open_beyond_every_time() {
    let app = with(&[
        ("REQUEST_HEAD_TIMEOUT", "1s"),
        ("REQUEST_BODY_TIMEOUT", "1s"),
        ("SEND_TIMEOUT", "1s"),
    ])
    .await;
    let node = app.node("long-lived").await;
    let user = app.user().await;
    let socket = user.metrics(user.user(), user.token()).await;
    let mut socket = socket.expect("a socket of metrics");
    // Longer than all of them together, with others coming and going.
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let _ = app.client().get("/health").await.expect(200);
    }
    let _tunnel = user.connected(&json!({ "server_id": node.server() })).await;
    let _ = socket.next_of("connected").await;
    assert_eq!(node.session().welcomed, 1, "the node had to dial again");
    app.finish(&[&node]).await;
}
