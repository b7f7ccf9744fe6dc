//! Numbered packets through every client's tunnel, and an echo of them in the internet.
//!
//! One thread sends and receives for all clients, one answers; neither depends on anything that the
//! test kills.

use std::ffi::OsString;
use std::fs::File;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{setsockopt, sockopt};

use super::trail::Trail;
use crate::lab::World;
use crate::wait::scaled;

const PORT: u16 = 7_777;
const EVERY: Duration = Duration::from_millis(50);
const HEADER: usize = 16;
const LARGEST: usize = 1_200;

/// What one packet may come to on the wire.
pub const PACKET: u64 = 1_400;

/// Streams of packets, one a client.
#[derive(Debug)]
pub struct Traffic {
    lanes: Arc<Vec<Mutex<Lane>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Lane {
    socket: UdpSocket,
    sends: bool,
    due: Instant,
    /// Tells this stretch's answers from late ones of those before.
    stretch: u64,
    trail: Trail,
}

impl Traffic {
    /// Over these interfaces of the client's namespace. Nothing is sent yet.
    #[must_use]
    pub fn start(world: &World, interfaces: &[&str]) -> Self {
        let echo = inside(&world.internet(), || {
            let socket = UdpSocket::bind((World::INTERNET, PORT)).expect("the echo's port is free");
            let patience = Some(Duration::from_millis(200));
            socket.set_read_timeout(patience).expect("a timeout");
            socket
        });
        let sockets = inside(&world.client(), || {
            interfaces.iter().map(|it| bound(it)).collect::<Vec<_>>()
        });
        let lanes: Arc<Vec<_>> = Arc::new(sockets.into_iter().map(Lane::new).collect());
        let stop = Arc::new(AtomicBool::new(false));
        let threads = {
            let (stopped, pumped) = (Arc::clone(&stop), Arc::clone(&lanes));
            let pump = std::thread::spawn(move || pump(&pumped, &stopped));
            let stopped = Arc::clone(&stop);
            vec![pump, std::thread::spawn(move || answer(&echo, &stopped))]
        };
        Self {
            lanes,
            stop,
            threads,
        }
    }

    /// A new stretch begins.
    pub fn begin(&self, lane: usize) {
        let mut lane = self.lane(lane);
        lane.stretch += 1;
        lane.trail = Trail::default();
        lane.sends = true;
        lane.due = Instant::now();
    }

    /// The stretch goes on.
    pub fn resume(&self, lane: usize) {
        self.lane(lane).sends = true;
    }

    /// Nothing more is sent; answers still count.
    pub fn pause(&self, lane: usize) {
        self.lane(lane).sends = false;
    }

    #[must_use]
    pub fn trail(&self, lane: usize) -> Trail {
        self.lane(lane).trail.clone()
    }

    fn lane(&self, lane: usize) -> MutexGuard<'_, Lane> {
        lock(self.lanes.get(lane).expect("every client has a lane"))
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // It panicked, and has said so.
            let _ = thread.join();
        }
    }
}

impl Lane {
    fn new(socket: UdpSocket) -> Mutex<Self> {
        Mutex::new(Self {
            socket,
            sends: false,
            due: Instant::now(),
            stretch: 0,
            trail: Trail::default(),
        })
    }

    fn receive(&mut self) {
        let mut buffer = [0; LARGEST];
        while let Ok((length, _)) = self.socket.recv_from(&mut buffer) {
            let packet = buffer.get(..length).unwrap_or_default();
            if let Some((stretch, number)) = read(packet)
                && stretch == self.stretch
            {
                self.trail.answer(number);
            }
        }
    }

    fn send(&mut self, every: Duration) {
        self.due = Instant::now() + every;
        let number = self.trail.sent();
        let packet = write(self.stretch, number);
        // A socket without a route is between two configurations: nothing was sent.
        if self
            .socket
            .send_to(&packet, (World::INTERNET, PORT))
            .is_ok()
        {
            self.trail.send();
        }
    }
}

fn pump(lanes: &[Mutex<Lane>], stop: &AtomicBool) {
    let every = scaled(EVERY);
    while !stop.load(Ordering::Relaxed) {
        for lane in lanes {
            let mut lane = lock(lane);
            lane.receive();
            if lane.sends && lane.due <= Instant::now() {
                lane.send(every);
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn answer(echo: &UdpSocket, stop: &AtomicBool) {
    let mut buffer = [0; LARGEST];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, from)) = echo.recv_from(&mut buffer) {
            let packet = buffer.get(..length).unwrap_or_default();
            // Whom it cannot reach counts it as lost.
            let _ = echo.send_to(packet, from);
        }
    }
}

/// Sizes differ, so that a byte more or less shows.
fn write(stretch: u64, number: usize) -> Vec<u8> {
    let number = u64::try_from(number).unwrap_or(u64::MAX);
    let mut packet = Vec::with_capacity(LARGEST);
    packet.extend(stretch.to_be_bytes());
    packet.extend(number.to_be_bytes());
    packet.resize(HEADER + (number * 97 % 1_000).try_into().unwrap_or(0), 0);
    packet
}

fn read(packet: &[u8]) -> Option<(u64, usize)> {
    let (stretch, rest) = packet.split_first_chunk()?;
    let (number, _) = rest.split_first_chunk()?;
    let number = usize::try_from(u64::from_be_bytes(*number)).ok()?;
    Some((u64::from_be_bytes(*stretch), number))
}

/// Every packet leaves through this interface, whatever its address is just now.
fn bound(interface: &str) -> UdpSocket {
    let any = SocketAddr::from(([0, 0, 0, 0], 0));
    let socket = UdpSocket::bind(any).expect("a port is free");
    setsockopt(&socket, sockopt::BindToDevice, &OsString::from(interface))
        .expect("root binds to interfaces");
    socket.set_nonblocking(true).expect("it need not wait");
    socket
}

/// Runs something in a network namespace; sockets stay where they were made.
fn inside<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let entered = scope.spawn(|| {
            let door =
                File::open(format!("/run/netns/{namespace}")).expect("the namespace is there");
            setns(door, CloneFlags::CLONE_NEWNET).expect("root enters namespaces");
            work()
        });
        entered.join().expect("the work in the namespace is done")
    })
}

fn lock(lane: &Mutex<Lane>) -> MutexGuard<'_, Lane> {
    lane.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read_as_they_were_written_and_fit() {
        for number in [0, 1, 77, 1_000_000] {
            let packet = write(3, number);
            assert_eq!(read(&packet), Some((3, number)));
            assert!(packet.len() <= LARGEST);
        }
        assert_eq!(read(&[1; 9]), None);
    }
}
