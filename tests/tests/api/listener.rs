//! The public listener under attack: whoever is slow, many, large or forged is cut off, and everybody
//! else is answered meanwhile. Attackers call from addresses of their own in 127.0.0.0/8.

mod caps;
mod crowd;
mod http2;
mod proxy;
mod sizes;
mod slow;
mod slow_readers;
mod slow_viewers;
mod upgrade;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tests::api::{Client, metric};
use tests::lab::{Plane, PlaneSettings};
use tests::wait::scaled;
use tests::{TestApp, TestDb, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::SOON;

/// Requests of others are answered within this while somebody attacks.
const QUICKLY: Duration = Duration::from_secs(1);

/// What slow readers together may leave behind in the plane's memory, in KiB.
const SLACK: u64 = 32 * 1024;

const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A plane as a process of its own, whose memory and connections are its alone.
struct Target {
    plane: Plane,
    db: TestDb,
    _folder: tempfile::TempDir,
}

impl Target {
    /// Nobody is on its whitelist, and rates are not what is tested.
    async fn start(tls: bool, more: &[(&'static str, &str)]) -> Self {
        let (db, folder) = (TestDb::new().await, tempfile::tempdir().expect("a folder"));
        let own = [
            ("DDOS_WHITELIST_IPS", "192.0.2.1"),
            ("RATE_LIMIT_ENABLED", "false"),
            ("DDOS_PROTECTION_ENABLED", "false"),
            ("DATABASE_POOL_SIZE", "4"),
        ];
        let more = own.iter().chain(more);
        let settings = PlaneSettings {
            address: Ipv4Addr::LOCALHOST,
            database_url: db.url().to_owned(),
            tls,
            more: more
                .map(|(name, value)| (*name, (*value).to_owned()))
                .collect(),
        };
        let plane = Plane::start(folder.path(), &settings).await;
        Self {
            plane,
            db,
            _folder: folder,
        }
    }

    fn address(&self) -> SocketAddr {
        address_of(self.plane.url())
    }

    /// Somebody else's request while an attack runs.
    async fn answers_quickly(&self) {
        let client = Client::new(self.plane.url());
        let begun = Instant::now();
        let _ = client.get("/health").await.expect(200);
        assert!(begun.elapsed() < scaled(QUICKLY), "{:?}", begun.elapsed());
    }

    /// The sum of a metric's series, by the beginning of their names.
    async fn metric(&self, series: &str) -> u64 {
        let port = self.plane.environment().get("METRICS_PORT").expect("set");
        metric(&format!("http://127.0.0.1:{port}"), series).await
    }

    /// Waits until a metric has counted so many: it does so a moment after a connection is closed.
    async fn wait_counted(&self, series: &str, at_least: u64) {
        wait_until(series, SOON, async || self.metric(series).await >= at_least).await;
    }

    /// Waits until no more connections are open than so many.
    async fn wait_open(&self, at_most: u64) {
        wait_until("connections are gone", 3 * SOON, async || {
            self.metric("connections_open").await <= at_most
        })
        .await;
    }

    /// The memory that the process has in use, in KiB.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.plane.pid()));
        let status = status.expect("the plane runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        number
            .and_then(|number| number.parse().ok())
            .expect("a number")
    }
}

fn address_of(url: &str) -> SocketAddr {
    let (_, address) = url.split_once("://").expect("a URL");
    address.parse().expect("an address")
}

fn plane_of(app: &TestApp) -> SocketAddr {
    address_of(app.url())
}

/// A plane in this process; rates are not what is tested, unless the test says so.
async fn with(variables: &[(&str, &str)]) -> TestApp {
    TestApp::with(|all| {
        for (name, value) in [("RATE_LIMIT_ENABLED", "false")].iter().chain(variables) {
            all.insert((*name).to_owned(), (*value).to_owned());
        }
    })
    .await
}

/// A connection from this address.
async fn connect(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((from, 0).into()).expect("an address of ours");
    socket.connect(to).await.expect("the plane listens")
}

/// A connection that has little room for an answer.
async fn narrow(target: &Target, number: usize, room: u32) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(room).expect("a small buffer");
    let from = (attacker(number), 0).into();
    socket.bind(from).expect("an address of ours");
    socket.connect(target.address()).await.expect("it listens")
}

/// One of many attackers' addresses.
fn attacker(number: usize) -> Ipv4Addr {
    let [high, low] = u16::try_from(number).expect("few").to_be_bytes();
    Ipv4Addr::new(127, 66, high, low)
}

async fn send(stream: &mut TcpStream, bytes: impl AsRef<[u8]>) {
    let sent = stream.write_all(bytes.as_ref()).await;
    sent.expect("the plane takes it");
}

/// What the plane says until it hangs up, which it has to.
async fn until_closed(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    // A reset is as good an end, and leaves what came before.
    let _end = timeout(scaled(2 * SOON), reading).await;
    let closed = timeout(scaled(SOON), stream.read(&mut [0; 1])).await;
    assert!(
        matches!(closed, Ok(Ok(0) | Err(_))),
        "the connection stays open"
    );
    String::from_utf8_lossy(&answer).into_owned()
}

/// Sends something a little at a time until the plane has had enough; gives what it said and how long
/// it took.
async fn drip(mut stream: TcpStream, beginning: &str, drop: &str) -> (String, Duration) {
    let begun = Instant::now();
    send(&mut stream, beginning).await;
    let (mut reading, mut writing) = stream.into_split();
    let dripping = async {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if writing.write_all(drop.as_bytes()).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let mut answer = Vec::new();
    let ended = tokio::select! {
        ended = timeout(scaled(3 * SOON), reading.read_to_end(&mut answer)) => ended,
        () = dripping => unreachable!("it drips until the end"),
    };
    assert!(ended.is_ok(), "the connection stays open");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    (answer, begun.elapsed())
}

/// Asks for `/health` on an open connection.
async fn asks(stream: &mut TcpStream) -> bool {
    if stream.write_all(HEALTH.as_bytes()).await.is_err() {
        return false;
    }
    let mut answer = [0; 4096];
    let read = timeout(scaled(SOON), stream.read(&mut answer)).await;
    let read = read.ok().and_then(Result::ok).unwrap_or(0);
    answer[..read].starts_with(b"HTTP/1.1 200")
}
