//! The sockets, and the task that owns them.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket as StdSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::warn;

use super::echo::{ECHO_BYTES, reply, request};
use super::rounds::Rounds;
use super::{RoundTrip, Target};
use crate::wireguard::InterfaceName;

/// For all echoes of a round to leave.
const SENDING: Duration = Duration::from_millis(500);
/// Between two looks at what came in while a round is being sent.
const BURST: usize = 16;
/// Messages that are read between two rounds, beyond four for each echo of the last. A client that
/// sends more is not listened to before the next.
const SPARE: usize = 64;

/// Whether this process may open such a socket.
pub fn permitted() -> io::Result<()> {
    Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::ICMPV4)).map(drop)
}

/// One socket for each IP version, opened when it is needed.
#[derive(Debug)]
pub(super) struct Sockets {
    interface: InterfaceName,
    own: Vec<IpAddr>,
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
    rounds: Rounds,
    /// How many messages may still be read before the next round.
    budget: usize,
    /// The reason for the last failure, so that it is told once.
    failed: Option<String>,
}

type Answers = Arc<Mutex<Vec<RoundTrip>>>;

impl Sockets {
    pub(super) fn new(interface: InterfaceName, own: &[IpNet]) -> Self {
        Self {
            interface,
            own: own.iter().map(IpNet::addr).collect(),
            v4: None,
            v6: None,
            rounds: Rounds::default(),
            budget: 0,
            failed: None,
        }
    }

    /// Until nobody asks for rounds any more.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Vec<Target>>, answers: Answers) {
        loop {
            let may_read = self.budget > 0;
            tokio::select! {
                round = queue.recv() => match round {
                    None => return,
                    Some(targets) if targets.is_empty() => (self.v4, self.v6) = (None, None),
                    Some(targets) => self.send(&targets, &answers).await,
                },
                () = readable(self.v4.as_ref()), if may_read => self.read(&answers),
                () = readable(self.v6.as_ref()), if may_read => self.read(&answers),
            }
        }
    }

    async fn send(&mut self, targets: &[Target], answers: &Answers) {
        self.budget = 4 * targets.len() + SPARE;
        let deadline = Instant::now() + SENDING;
        for burst in targets.chunks(BURST) {
            for target in burst {
                let left = deadline.saturating_duration_since(Instant::now());
                let sent = timeout(left, self.ask(*target)).await;
                match sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                    Ok(()) => self.failed = None,
                    Err(error) => return self.fail(&error),
                }
            }
            // Lets the runtime notice what came in, before the socket's buffer is full.
            tokio::task::yield_now().await;
            self.read(answers);
        }
    }

    async fn ask(&mut self, target: Target) -> io::Result<()> {
        self.open(target.address)?;
        let socket = match target.address {
            IpAddr::V4(_) => self.v4.as_ref(),
            IpAddr::V6(_) => self.v6.as_ref(),
        };
        let socket = socket.ok_or(io::ErrorKind::NotConnected)?;
        socket.writable().await?;
        let mark = self.rounds.send(target, Instant::now(), &mut rand::rng());
        let message = request(target.address, mark);
        match socket.try_send_to(&message, SocketAddr::new(target.address, 0)) {
            // Nobody is there: the client has never shaken hands. That is an answer not given.
            Err(error) if is_about_the_client(&error) => Ok(()),
            other => other.map(drop),
        }
    }

    /// The interface may have been made anew, to which old sockets are not bound: all are opened
    /// again at the next round.
    fn fail(&mut self, error: &io::Error) {
        let reason = error.to_string();
        if self.failed.as_ref() != Some(&reason) {
            warn!(
                event = "no_round_trips",
                %error,
                advice = "`node-agent check` says what is missing"
            );
        }
        (self.v4, self.v6, self.failed) = (None, None, Some(reason));
    }

    fn open(&mut self, to: IpAddr) -> io::Result<()> {
        let socket = match to {
            IpAddr::V4(_) => &mut self.v4,
            IpAddr::V6(_) => &mut self.v6,
        };
        if socket.is_none() {
            let own = self.own.iter().find(|own| own.is_ipv4() == to.is_ipv4());
            let own = own.ok_or(io::ErrorKind::AddrNotAvailable)?;
            *socket = Some(open(&self.interface, *own)?);
        }
        Ok(())
    }

    /// Takes what is there. Errors that clients' hosts or the way to them send back are not ours.
    fn read(&mut self, answers: &Answers) {
        let mut buffer = [0; 2 * ECHO_BYTES];
        let mut found = Vec::new();
        for socket in [&self.v4, &self.v6].into_iter().flatten() {
            while self.budget > 0 {
                match socket.try_recv_from(&mut buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(_) => self.budget -= 1,
                    Ok((length, from)) => {
                        self.budget -= 1;
                        let message = buffer.get(..length).unwrap_or_default();
                        let mark = reply(from.ip(), message);
                        found.extend(
                            mark.and_then(|mark| {
                                self.rounds.answer(from.ip(), mark, Instant::now())
                            }),
                        );
                    }
                }
            }
        }
        if !found.is_empty() {
            let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
            answers.append(&mut found);
        }
    }
}

fn open(interface: &InterfaceName, own: IpAddr) -> io::Result<UdpSocket> {
    let (domain, protocol) = match own {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(protocol))?;
    socket.set_nonblocking(true)?;
    socket.bind_device(Some(interface.as_str().as_bytes()))?;
    socket.bind(&SocketAddr::new(own, 0).into())?;
    UdpSocket::from_std(StdSocket::from(socket))
}

/// Also where the socket has an error to tell, which reading takes away.
async fn readable(socket: Option<&UdpSocket>) {
    match socket {
        Some(socket) => drop(socket.readable().await),
        None => std::future::pending().await,
    }
}

/// WireGuard says so of a client without an endpoint or a session that can be begun.
fn is_about_the_client(error: &io::Error) -> bool {
    use nix::errno::Errno;

    if error.kind() == io::ErrorKind::WouldBlock {
        return true;
    }
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(
        errno,
        Some(
            Errno::ENOKEY
                | Errno::EDESTADDRREQ
                | Errno::EHOSTUNREACH
                | Errno::ENETUNREACH
                | Errno::ECONNREFUSED
                | Errno::ENOBUFS
        )
    )
}
