//! HTTP/2 is not spoken, so nothing of it can be abused.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rstest::rstest;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::{Target, attacker, connect, send, until_closed};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// `GET / http localhost`, in indexed headers.
const BLOCK: [u8; 4] = [0x82, 0x84, 0x86, 0x81];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let stream = stream.to_be_bytes();
    [&length[1..], &[kind, flags], &stream, payload].concat()
}

/// Streams that are opened and reset at once.
fn rapid_reset() -> Vec<u8> {
    let frames = (0..20_000).flat_map(|number| {
        let stream = 2 * number + 1;
        let headers = frame(1, 0x05, stream, &BLOCK);
        [headers, frame(3, 0, stream, &[0, 0, 0, 8])].concat()
    });
    frames.collect()
}

/// Streams that are opened and never reset.
fn stream_flood() -> Vec<u8> {
    let frames = (0..20_000).flat_map(|number| frame(1, 0x05, 2 * number + 1, &BLOCK));
    frames.collect()
}

/// Headers without an end.
fn continuation_flood() -> Vec<u8> {
    let part = frame(9, 0, 1, &[0; 1000]);
    [frame(1, 0, 1, &BLOCK), part.repeat(1000)].concat()
}

fn client(target: &Target, offered: &[&str]) -> ClientConnection {
    let certificate = CertificateDer::from_pem_file(target.plane.root_file());
    let mut roots = RootCertStore::empty();
    roots
        .add(certificate.expect("a certificate"))
        .expect("a root");
    let mut config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = offered.iter().map(|it| it.as_bytes().to_vec()).collect();
    let name = "localhost".try_into().expect("a name");
    ClientConnection::new(Arc::new(config), name).expect("a client")
}

/// Shakes hands; gives what both will speak.
fn negotiated(mut tls: ClientConnection, to: SocketAddr) -> std::io::Result<Option<Vec<u8>>> {
    let mut tcp = TcpStream::connect(to)?;
    while tls.is_handshaking() {
        tls.complete_io(&mut tcp)?;
    }
    Ok(tls.alpn_protocol().map(<[u8]>::to_vec))
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_agrees_on_http_1_or_on_nothing() {
    let target = Target::start(true, &[]).await;
    for (offered, agreed) in [
        (&["h2", "http/1.1"][..], Some(Some(b"http/1.1".to_vec()))),
        (&[], Some(None)),
        (&["h2"], None),
    ] {
        let (tls, to) = (client(&target, offered), target.address());
        let negotiated = tokio::task::spawn_blocking(move || negotiated(tls, to).ok());
        assert_eq!(negotiated.await.expect("ends"), agreed, "{offered:?}");
    }
}

#[rstest]
#[case::rapid_reset(rapid_reset())]
#[case::streams(stream_flood())]
#[case::continuation(continuation_flood())]
#[tokio::test(flavor = "multi_thread")]
async fn its_frames_are_no_requests(#[case] frames: Vec<u8>) {
    let target = Target::start(false, &[]).await;
    target.answers_quickly().await;
    let before = target.memory();
    for number in 0..20 {
        let mut stream = connect(attacker(number), target.address()).await;
        send(&mut stream, PREFACE).await;
        let _sent = tokio::io::AsyncWriteExt::write_all(&mut stream, &frames).await;
        let answer = until_closed(&mut stream).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
            "{answer}"
        );
        target.answers_quickly().await;
    }
    let grown = target.memory().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB");
    assert_eq!(
        target
            .metric("http_request_duration_seconds_count{method=\"other\"")
            .await,
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_are_they_inside_tls() {
    let target = Target::start(true, &[]).await;
    let (tls, to) = (client(&target, &["http/1.1"]), target.address());
    let attack = tokio::task::spawn_blocking(move || {
        let tcp = TcpStream::connect(to).expect("it listens");
        let mut stream = StreamOwned::new(tls, tcp);
        let _sent = stream.write_all(&[PREFACE, &rapid_reset()].concat());
        let mut answer = Vec::new();
        let _end = stream.read_to_end(&mut answer);
        answer
    });
    let answer = attack.await.expect("ends");
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"));
    let _ = target.plane.client().get("/health").await.expect(200);
}
