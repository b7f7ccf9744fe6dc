//! Behind a proxy that passes connections on: who the client is, and whose word is believed.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use rstest::rstest;
use rustls_pki_types::pem::PemObject;
use tests::TestApp;
use tests::redis::TestRedis;
use tests::wait::scaled;
use tokio::net::TcpStream;

use super::{HEALTH, SOON, asks, attacker, connect, drip, plane_of, send, until_closed, with};

const PROXY: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 1);
const ON: [(&str, &str); 2] = [
    ("PROXY_PROTOCOL", "true"),
    ("TRUSTED_PROXIES", "127.77.0.0/16"),
];

async fn behind_a_proxy(more: &[(&'static str, &'static str)]) -> TestApp {
    with(&[&ON[..], more].concat()).await
}

fn version_1(client: &str) -> Vec<u8> {
    let family = if client.contains(':') { "TCP6" } else { "TCP4" };
    let proxy = if client.contains(':') {
        "::1"
    } else {
        "127.0.0.1"
    };
    format!("PROXY {family} {client} {proxy} 40000 443\r\n").into_bytes()
}

fn version_2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let length = u16::try_from(addresses.len()).expect("short").to_be_bytes();
    let head = [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length].concat();
    [head, addresses.to_vec()].concat()
}

fn version_2_of(client: Ipv4Addr) -> Vec<u8> {
    let ports = [0x9c, 0x40, 0x01, 0xbb];
    version_2(
        0x21,
        0x11,
        &[&client.octets()[..], &[127, 0, 0, 1], &ports].concat(),
    )
}

fn version_2_of_ipv6(client: Ipv6Addr) -> Vec<u8> {
    let (proxy, ports) = (Ipv6Addr::LOCALHOST, [0x9c, 0x40, 0x01, 0xbb]);
    version_2(
        0x21,
        0x21,
        &[&client.octets()[..], &proxy.octets(), &ports].concat(),
    )
}

/// The status of a request on a connection that begins with this header.
async fn status(app: &TestApp, header: &[u8], more: &str) -> Option<u16> {
    let mut stream = connect(PROXY, plane_of(app)).await;
    let request =
        format!("GET /health HTTP/1.1\r\nHost: localhost\r\n{more}Connection: close\r\n\r\n");
    send(&mut stream, [header, request.as_bytes()].concat()).await;
    let answer = until_closed(&mut stream).await;
    answer.split(' ').nth(1)?.parse().ok()
}

/// Three requests of an address pass here, so the fourth shows whose the others were.
async fn where_three_pass(redis: &TestRedis) -> TestApp {
    let url = redis.url();
    let limits = [
        ("RATE_LIMIT_ENABLED", "true"),
        ("RATE_LIMIT_HEALTH", "3/1m"),
        ("RATE_LIMIT_ADAPTIVE", "false"),
        ("RATE_LIMIT_REDIS_TIMEOUT_MS", "10000"),
        ("REDIS_URL", url.as_str()),
    ];
    with(&[&ON[..], &limits].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_named_client_is_the_one_that_is_limited() {
    let redis = TestRedis::start().await;
    let app = where_three_pass(&redis).await;
    let client = Ipv4Addr::new(203, 0, 113, 9);
    let mapped: Ipv6Addr = "::ffff:203.0.113.9".parse().expect("an address");
    for header in [
        version_1("203.0.113.9"),
        version_2_of(client),
        version_2_of_ipv6(mapped),
    ] {
        assert_eq!(status(&app, &header, "").await, Some(200));
    }
    assert_eq!(
        status(&app, &version_1("::ffff:203.0.113.9"), "").await,
        Some(429)
    );
    assert_eq!(status(&app, &version_2_of(client), "").await, Some(429));
    // It is a client: what it says about others is not believed.
    let forwarded = "X-Forwarded-For: 198.51.100.1\r\n";
    assert_eq!(
        status(&app, &version_2_of(client), forwarded).await,
        Some(429)
    );
    let other = version_1("203.0.113.10");
    assert_eq!(status(&app, &other, "").await, Some(200));
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_of_ipv6_is_one_client() {
    let redis = TestRedis::start().await;
    let app = where_three_pass(&redis).await;
    for host in 1..4_u16 {
        let client = Ipv6Addr::new(0x2001, 0xdb8, 0, 7, 0, 0, 0, host);
        assert_eq!(
            status(&app, &version_2_of_ipv6(client), "").await,
            Some(200)
        );
    }
    assert_eq!(
        status(&app, &version_1("2001:db8:0:7::99"), "").await,
        Some(429)
    );
    assert_eq!(
        status(&app, &version_1("2001:db8:0:8::99"), "").await,
        Some(200)
    );
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_in_front_of_the_proxy_forwards_as_ever() {
    let redis = TestRedis::start().await;
    let app = where_three_pass(&redis).await;
    // The named one is a proxy of ours itself, which adds whom it forwards for.
    let inner = version_1("127.77.0.2");
    let forwarded = "X-Forwarded-For: 203.0.113.9\r\n";
    for _ in 0..3 {
        assert_eq!(status(&app, &inner, forwarded).await, Some(200));
    }
    assert_eq!(status(&app, &inner, forwarded).await, Some(429));
    assert_eq!(status(&app, &version_1("203.0.113.9"), "").await, Some(429));
    app.finish(&[]).await;
}

#[rstest]
#[case::local(version_2(0x20, 0x00, &[]))]
#[case::unknown(b"PROXY UNKNOWN\r\n".to_vec())]
#[case::with_extensions({
    let extension = [0x05, 0, 3, b'i', b'd', b'1'];
    version_2(0x21, 0x11, &[&[203, 0, 113, 9, 127, 0, 0, 1, 1, 1, 1, 1][..], &extension].concat())
})]
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_may_speak_for_itself(#[case] header: Vec<u8>) {
    let app = behind_a_proxy(&[]).await;
    assert_eq!(status(&app, &header, "").await, Some(200));
    app.finish(&[]).await;
}

#[rstest]
#[case::none(vec![])]
#[case::nonsense(b"PROXY TCP4 nobody nowhere 1 2\r\n".to_vec())]
#[case::other_family(b"PROXY TCP4 2001:db8::1 ::1 1 2\r\n".to_vec())]
#[case::endless([&b"PROXY TCP4 "[..], &[b'1'; 5000]].concat())]
#[case::datagrams(version_2(0x21, 0x12, &[0; 12]))]
#[case::short(version_2(0x21, 0x11, &[0; 4]))]
#[case::long(version_2(0x21, 0x11, &[0; 60_000]))]
#[case::other_version(version_2(0x31, 0x11, &[0; 12]))]
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_header_is_no_connection(#[case] header: Vec<u8>) {
    let app = behind_a_proxy(&[("REQUEST_HEAD_TIMEOUT", "1s")]).await;
    let mut stream = connect(PROXY, plane_of(&app)).await;
    let _sent =
        tokio::io::AsyncWriteExt::write_all(&mut stream, &[&header, HEALTH.as_bytes()].concat())
            .await;
    assert_eq!(until_closed(&mut stream).await, "");
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_may_name_a_client_or_come_at_all() {
    let app = behind_a_proxy(&[]).await;
    for beginning in [version_1("203.0.113.9"), vec![]] {
        let mut stream = connect(attacker(1), plane_of(&app)).await;
        let sent = [&beginning, HEALTH.as_bytes()].concat();
        let _sent = tokio::io::AsyncWriteExt::write_all(&mut stream, &sent).await;
        assert_eq!(until_closed(&mut stream).await, "");
    }
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_it_a_header_is_no_request() {
    let app = with(&[("TRUSTED_PROXIES", "127.77.0.0/16")]).await;
    let answer = status(&app, &version_1("203.0.113.9"), "").await;
    assert_eq!(answer, Some(400));
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_header_is_not_waited_for() {
    let app = behind_a_proxy(&[("REQUEST_HEAD_TIMEOUT", "1s")]).await;
    let mut silent = connect(PROXY, plane_of(&app)).await;
    let dripping = drip(connect(PROXY, plane_of(&app)).await, "PROXY TCP4 1", "1");
    let ((answer, took), nothing) = tokio::join!(dripping, until_closed(&mut silent));
    assert_eq!((answer.as_str(), nothing.as_str()), ("", ""));
    assert!(took < scaled(2 * SOON), "{took:?}");
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_headers() {
    let mut app = behind_a_proxy(&[("REQUEST_HEAD_TIMEOUT", "60s")]).await;
    let mut silent = connect(PROXY, plane_of(&app)).await;
    // Once a later one was answered, this one is at the entrance.
    assert_eq!(status(&app, &version_1("203.0.113.9"), "").await, Some(200));
    let begun = Instant::now();
    app.stop_replica(0).await;
    assert!(begun.elapsed() < scaled(Duration::from_secs(4)));
    assert_eq!(until_closed(&mut silent).await, "");
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_the_named_clients() {
    let app = behind_a_proxy(&[("CONNECTIONS_PER_ADDRESS", "3")]).await;
    let open = async |client: &str| -> (TcpStream, bool) {
        let mut stream = connect(PROXY, plane_of(&app)).await;
        send(&mut stream, version_1(client)).await;
        let is_in = asks(&mut stream).await;
        (stream, is_in)
    };
    let mut held = Vec::new();
    for _ in 0..3 {
        let (stream, is_in) = open("203.0.113.9").await;
        assert!(is_in);
        held.push(stream);
    }
    assert!(!open("203.0.113.9").await.1);
    assert!(open("203.0.113.10").await.1);
    app.finish(&[]).await;
}

/// TLS is the client's, through the proxy: its first bytes may come along with the header.
#[tokio::test(flavor = "multi_thread")]
async fn tls_begins_behind_the_header() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("made");
    let write = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let certificate = write("certificate.pem", made.cert.pem());
    let key = write("key.pem", made.signing_key.serialize_pem());
    let files = [
        ("TLS_CERT_FILE", certificate.as_str()),
        ("TLS_KEY_FILE", key.as_str()),
    ];
    let app = with(&[&ON[..], &files[..]].concat()).await;

    let mut roots = rustls::RootCertStore::empty();
    let root =
        rustls_pki_types::CertificateDer::from_pem_file(&certificate).expect("a certificate");
    roots.add(root).expect("a root");
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "localhost".try_into().expect("a name");
    let mut tls = rustls::ClientConnection::new(config.into(), name).expect("a client");
    let mut first = version_1("203.0.113.9");
    tls.write_tls(&mut first).expect("a hello");
    let mut stream = connect(PROXY, plane_of(&app)).await;
    send(&mut stream, &first).await;
    let stream = stream.into_std().expect("a socket");
    stream.set_nonblocking(false).expect("it can wait");
    let asking = tokio::task::spawn_blocking(move || {
        let mut stream = rustls::StreamOwned::new(tls, stream);
        stream.write_all(HEALTH.as_bytes()).expect("sent");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).expect("an answer");
        answer
    });
    assert_eq!(&asking.await.expect("ends"), b"HTTP/1.1 200");
    app.finish(&[]).await;
}
