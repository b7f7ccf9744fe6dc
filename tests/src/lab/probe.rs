//! Services in one namespace and clients in another, over real sockets.

use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use tokio::io::AsyncWriteExt;
use tokio::net;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::wait::scaled;

/// How long an answer may take; what is dropped costs all of it.
const PATIENCE: Duration = Duration::from_secs(3);

/// Does `work` on a thread in the namespace. Sockets that it makes stay there.
fn inside<T: Send>(namespace: &str, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let file = File::open(format!("/run/netns/{namespace}"))?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            setns(file, CloneFlags::CLONE_NEWNET)?;
            work()
        });
        thread.join().expect("the thread does not panic")
    })
}

/// Services that answer everybody, until this value is dropped.
#[derive(Debug, Default)]
pub struct Services(JoinSet<()>);

impl Services {
    /// Listens in `namespace` on TCP and UDP, on each port of each address.
    pub fn listen(&mut self, namespace: &str, addresses: &[&str], ports: &[u16]) {
        for address in addresses {
            let address: IpAddr = address.parse().expect("an address");
            for port in ports {
                let at = SocketAddr::new(address, *port);
                let sockets = inside(namespace, || {
                    let (tcp, udp) = (TcpListener::bind(at)?, UdpSocket::bind(at)?);
                    tcp.set_nonblocking(true)?;
                    udp.set_nonblocking(true)?;
                    Ok((tcp, udp))
                });
                let (tcp, udp) = sockets.unwrap_or_else(|error| panic!("{at}: {error}"));
                let tcp = net::TcpListener::from_std(tcp).expect("a runtime");
                let udp = net::UdpSocket::from_std(udp).expect("a runtime");
                self.0.spawn(serve_tcp(tcp));
                self.0.spawn(serve_udp(udp));
            }
        }
    }
}

async fn serve_tcp(listener: net::TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        // Who asked may have gone.
        let _ = stream.write_all(b"here").await;
    }
}

async fn serve_udp(socket: net::UdpSocket) {
    let mut question = [0; 64];
    loop {
        // An error tells of an answer that nobody took.
        if let Ok((length, from)) = socket.recv_from(&mut question).await {
            let _ = socket
                .send_to(question.get(..length).unwrap_or_default(), from)
                .await;
        }
    }
}

/// What became of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The service answered.
    Yes,
    /// Somebody said no, so that the packet came through.
    Refused,
    Silence,
}

/// Asks services from within a namespace.
#[derive(Debug, Clone)]
pub struct Prober {
    namespace: String,
}

impl Prober {
    #[must_use]
    pub fn new(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
        }
    }

    pub async fn tcp(&self, to: SocketAddr) -> Answer {
        let socket = inside(&self.namespace, || match to {
            SocketAddr::V4(_) => net::TcpSocket::new_v4(),
            SocketAddr::V6(_) => net::TcpSocket::new_v6(),
        });
        let socket = socket.expect("a socket");
        judge(timeout(scaled(PATIENCE), socket.connect(to)).await.ok())
    }

    pub async fn udp(&self, to: SocketAddr) -> Answer {
        let any = match to {
            SocketAddr::V4(_) => "0.0.0.0:0",
            SocketAddr::V6(_) => "[::]:0",
        };
        let socket = inside(&self.namespace, || {
            let socket = UdpSocket::bind(any)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        let socket = net::UdpSocket::from_std(socket.expect("a socket")).expect("a runtime");
        let exchange = async {
            socket.connect(to).await?;
            socket.send(b"there?").await?;
            socket.recv(&mut [0; 64]).await
        };
        judge(timeout(scaled(PATIENCE), exchange).await.ok())
    }
}

fn judge<T>(outcome: Option<io::Result<T>>) -> Answer {
    match outcome {
        Some(Ok(_)) => Answer::Yes,
        Some(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Answer::Refused,
        _ => Answer::Silence,
    }
}
