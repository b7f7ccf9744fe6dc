//! Whoever asks and does not take the answer.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::{HEALTH, SLACK, Target, narrow, send};

const DOCUMENT: &str = "GET /api/v1/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n";
const READERS: usize = 100;

async fn ask(target: &Target, request: &str, times: usize) -> Vec<TcpStream> {
    join_all((0..READERS).map(async |number| {
        let mut stream = narrow(target, number, 1024).await;
        send(&mut stream, request.repeat(times)).await;
        stream
    }))
    .await
}

async fn target(send_timeout: &'static str) -> Target {
    let target = Target::start(false, &[("SEND_TIMEOUT", send_timeout)]).await;
    target.answers_quickly().await;
    target
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_never_reads_a_large_answer_is_cut_off() {
    let target = target("2s").await;
    let before = target.memory();
    let open = ask(&target, DOCUMENT, 10).await;
    target.wait_counted("connections_open", 100).await;
    target.answers_quickly().await;
    target.wait_open(2).await;
    let grown = target.memory().saturating_sub(before);
    assert!(grown < SLACK, "{grown} KiB");
    drop(open);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_kernel_took_over_is_cut_off_as_well() {
    let target = target("2s").await;
    // All of it fits into the kernel's buffer: the plane itself has done with these answers.
    let open = ask(&target, HEALTH, 16).await;
    target.wait_open(2).await;
    assert_eq!(
        target
            .metric("connections_cut_total{why=\"slow_reader\"}")
            .await,
        0
    );
    drop(open);
}

#[tokio::test(flavor = "multi_thread")]
async fn sips_win_no_time() {
    let target = target("2s").await;
    let mut stream = narrow(&target, 1, 1024).await;
    send(&mut stream, DOCUMENT.repeat(10)).await;
    let sipping = async {
        let mut sip = [0; 16];
        while stream.read(&mut sip).await.is_ok_and(|read| read > 0) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let cut = async {
        let cut = "connections_cut_total{why=\"slow_reader\"}";
        target.wait_counted(cut, 1).await;
    };
    tokio::select! {
        () = cut => {}
        () = async { sipping.await; std::future::pending().await } => {}
    }
    target.wait_open(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_reads_slowly_but_well_gets_it_all() {
    let target = target("1s").await;
    let mut stream = narrow(&target, 1, 16 * 1024).await;
    let begun = Instant::now();
    let request = DOCUMENT.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    send(&mut stream, request).await;
    let (mut whole, mut part) = (0, vec![0; 16 * 1024]);
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        match stream.read(&mut part).await.expect("it goes on") {
            0 => break,
            read => whole += read,
        }
    }
    let document = target.plane.client().get("/api/v1/openapi.json").await;
    assert!(whole > document.body.len(), "{whole}");
    assert!(begun.elapsed() > Duration::from_secs(1), "{begun:?}");
}
