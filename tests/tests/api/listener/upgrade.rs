//! How a connection becomes a WebSocket's.

use rstest::rstest;
use tests::api::Client;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{HEALTH, attacker, connect, plane_of, scaled, send, until_closed, with};
use crate::SOON;

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
/// What RFC 6455 answers to that key.
const ACCEPT: &str = "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=";
/// A ping and its answer; the client's mask is of zeros.
const PING: &[u8] = b"\x89\x84\0\0\0\0mark";
const PONG: &[u8] = b"\x8a\x04mark";

fn handshake(user: &Client, header: &str) -> Vec<u8> {
    let path = format!("/ws/connection/{}", user.user());
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{header}\r\n").into_bytes()
}

fn accepted(user: &Client) -> Vec<u8> {
    let token = user.token();
    handshake(user, &format!("{UPGRADE}Authorization: Bearer {token}\r\n"))
}

/// What comes until this came.
async fn until(stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut came = Vec::new();
    let all = async {
        while !came.windows(end.len()).any(|part| part == end) {
            let read = stream.read_buf(&mut came).await.expect("it is open");
            assert_ne!(read, 0, "{}", String::from_utf8_lossy(&came));
        }
    };
    timeout(scaled(SOON), all).await.expect("it comes");
    came
}

#[rstest]
#[case::alone(b"", b"")]
#[case::behind_a_request(HEALTH.as_bytes(), b"")]
#[case::with_a_frame_behind_it(b"", PING)]
#[case::between_both(HEALTH.as_bytes(), PING)]
#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_opens_a_socket(#[case] before: &[u8], #[case] behind: &[u8]) {
    let app = with(&[]).await;
    let user = app.user().await;
    let mut stream = connect(attacker(1), plane_of(&app)).await;
    send(&mut stream, [before, &accepted(&user), behind].concat()).await;
    if behind.is_empty() {
        send(&mut stream, PING).await;
    }
    let came = until(&mut stream, PONG).await;
    let came = String::from_utf8_lossy(&came).to_lowercase();
    let heads = came.matches("http/1.1 200").count();
    assert_eq!(heads, usize::from(!before.is_empty()), "{came}");
    assert!(came.contains("http/1.1 101"), "{came}");
    assert!(came.contains(ACCEPT), "{came}");
    // A close is answered with one, and with the end of the connection.
    send(&mut stream, b"\x88\x82\0\0\0\0\x03\xe8").await;
    until(&mut stream, b"\x88\x02\x03\xe8").await;
    until_closed(&mut stream).await;
    app.finish(&[]).await;
}

#[rstest]
#[case::of_nobody(UPGRADE, "401", "UNAUTHORIZED")]
#[case::elsewhere(
    "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n",
    "401",
    "UNAUTHORIZED"
)]
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_handshake_ends_its_connection(
    #[case] header: &str,
    #[case] status: &str,
    #[case] code: &str,
) {
    let app = with(&[]).await;
    let user = app.user().await;
    let mut stream = connect(attacker(1), plane_of(&app)).await;
    send(&mut stream, handshake(&user, header)).await;
    let answer = until_closed(&mut stream).await;
    assert!(
        answer.starts_with(&format!("HTTP/1.1 {status}")),
        "{answer}"
    );
    assert!(answer.contains(code), "{answer}");
    assert!(
        answer.to_lowercase().contains("connection: close"),
        "{answer}"
    );
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_without_a_key_is_explained() {
    let app = with(&[]).await;
    let user = app.user().await;
    let mut stream = connect(attacker(1), plane_of(&app)).await;
    let token = user.token();
    let header =
        format!("Connection: Upgrade\r\nUpgrade: websocket\r\nAuthorization: Bearer {token}\r\n");
    send(&mut stream, handshake(&user, &header)).await;
    let answer = until_closed(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(
        answer.contains("\"Upgrade\"") && answer.contains("Not a WebSocket"),
        "{answer}"
    );
    app.finish(&[]).await;
}

/// It is somebody who may watch, but sends what no client of ours does.
#[rstest]
#[case::too_long(&[&b"\x82\xfe\x20\x00\0\0\0\0"[..], &[7; 0x2000]].concat())]
#[case::in_too_many_parts(&[&b"\x02\xfe\x0f\x00\0\0\0\0"[..], &[7; 0xf00]].concat().repeat(2))]
#[case::without_a_mask(b"\x82\x01x")]
#[tokio::test(flavor = "multi_thread")]
async fn a_socket_ends_with_a_message_that_is_none(#[case] message: &[u8]) {
    let app = with(&[]).await;
    let user = app.user().await;
    let mut stream = connect(attacker(1), plane_of(&app)).await;
    send(&mut stream, [accepted(&user), PING.to_vec()].concat()).await;
    until(&mut stream, PONG).await;
    send(&mut stream, message).await;
    until_closed(&mut stream).await;
    app.finish(&[]).await;
}
