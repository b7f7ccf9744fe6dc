//! Ten thousand connections on which nothing happens.

use futures_util::stream::{self, StreamExt};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::TcpStream;

use super::{Target, asks, attacker, connect};

const WANTED: usize = 10_000;
const EACH: usize = 100;
/// What else this process and the plane have open.
const OTHER: usize = 1000;
/// What a connection may cost the plane, in KiB. It has two buffers of 8 KiB and its task; 18 KiB were
/// measured.
const COST: u64 = 24;
/// What the process may grow by besides, in KiB.
const SLACK: u64 = 32 * 1024;

/// As many as there are descriptors for, at both ends.
fn possible() -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("one may raise it");
    let hard = usize::try_from(hard).unwrap_or(usize::MAX);
    let count = WANTED.min(hard.saturating_sub(OTHER));
    if count < WANTED {
        eprintln!("{count} connections instead of {WANTED}: descriptors are few here");
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_crowd_costs_little_and_keeps_nobody_waiting() {
    let count = possible();
    let target = Target::start(false, &[]).await;
    target.answers_quickly().await;
    let before = target.memory();
    let arriving = (0..count).map(|number| {
        let to = target.address();
        async move {
            let mut stream = connect(attacker(number / EACH), to).await;
            // Whoever has asked once may be idle for longer.
            assert!(asks(&mut stream).await, "connection {number}");
            stream
        }
    });
    let open: Vec<TcpStream> = stream::iter(arriving).buffer_unordered(64).collect().await;
    assert!(target.metric("connections_open").await >= u64::try_from(count).expect("few"));
    for _ in 0..20 {
        target.answers_quickly().await;
    }
    let grown = target.memory().saturating_sub(before);
    let bound = u64::try_from(count).expect("few") * COST + SLACK;
    eprintln!("{count} connections cost {grown} KiB");
    assert!(grown < bound, "{grown} KiB for {count} connections");
    drop(open);
    target.wait_open(2).await;
    target.answers_quickly().await;
}
