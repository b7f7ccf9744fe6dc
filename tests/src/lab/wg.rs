//! A stock WireGuard client: the configuration that connect returned, `wg`, `ip` and `ping`.

use std::fmt;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;
use shared::wireguard::{PrivateKey, PublicKey};

use super::World;
use super::process::{Process, run, try_run};
use crate::wait::scaled;
use crate::wait_until;

/// Who moves the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Kernel,
    Userspace,
}

impl Backend {
    /// The kernel's where it has one.
    #[must_use]
    pub fn detect() -> Self {
        let interface = format!("wgprobe{:x}", std::process::id());
        let made = try_run("ip", &["link", "add", &interface, "type", "wireguard"]);
        if made.status.success() {
            try_run("ip", &["link", "del", &interface]);
            Self::Kernel
        } else {
            Self::Userspace
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Userspace => "userspace",
        })
    }
}

/// One peer of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WgPeer {
    pub public_key: PublicKey,
    pub allowed_ips: Vec<String>,
    /// Unix seconds; zero for never.
    pub last_handshake: u64,
    /// As the interface counts: what came in is what the peer sent.
    pub received: u64,
    pub sent: u64,
}

/// The peers of an interface, by `wg show … dump`.
#[must_use]
pub fn dump(namespace: &str, interface: &str) -> Vec<WgPeer> {
    let text = run(
        "ip",
        &["netns", "exec", namespace, "wg", "show", interface, "dump"],
    );
    // The first line is the interface itself.
    let mut peers: Vec<_> = text.lines().skip(1).map(peer).collect();
    peers.sort_by_key(|peer| peer.public_key);
    peers
}

fn peer(line: &str) -> WgPeer {
    let fields: Vec<_> = line.split('\t').collect();
    let [
        key,
        _psk,
        _endpoint,
        allowed,
        handshake,
        received,
        sent,
        _keepalive,
    ] = fields[..]
    else {
        panic!("a line of wg show dump that is none: {line}");
    };
    let number = |text: &str| text.parse().expect("a number");
    WgPeer {
        public_key: key.parse().expect("a key"),
        allowed_ips: allowed.split(',').map(ToOwned::to_owned).collect(),
        last_handshake: number(handshake),
        received: number(received),
        sent: number(sent),
    }
}

/// The public half of the private key in a configuration.
#[must_use]
pub fn key_of(wg_config: &str) -> PublicKey {
    let mut lines = wg_config.lines();
    let private = lines.find_map(|line| line.strip_prefix("PrivateKey = "));
    let private: PrivateKey = private.expect("a private key").parse().expect("a key");
    private.public_key()
}

/// The clock that `wg` tells handshakes by.
#[must_use]
pub fn unix_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("the clock is past 1970").as_secs()
}

/// A client's interface in the client's namespace.
#[derive(Debug)]
pub struct WgClient {
    namespace: String,
    interface: String,
    folder: PathBuf,
    /// Its routes' metric.
    number: u8,
    _data_plane: Option<Process>,
}

impl WgClient {
    /// An interface without a configuration.
    pub async fn new(world: &World, folder: &Path, backend: Backend) -> Self {
        Self::within(world.client(), world.interface("c"), folder, backend).await
    }

    /// One of several in the client's namespace. Where nothing else is said, traffic goes through
    /// the one with the lowest number.
    pub async fn numbered(world: &World, folder: &Path, backend: Backend, number: u8) -> Self {
        let interface = world.interface(&format!("k{number}"));
        let mut client = Self::within(world.client(), interface, folder, backend).await;
        client.number = number;
        client
    }

    /// The same in another namespace.
    pub(super) async fn within(
        namespace: String,
        interface: String,
        folder: &Path,
        backend: Backend,
    ) -> Self {
        let data_plane = match backend {
            Backend::Kernel => {
                run(
                    "ip",
                    &[
                        "-n",
                        &namespace,
                        "link",
                        "add",
                        &interface,
                        "type",
                        "wireguard",
                    ],
                );
                None
            }
            Backend::Userspace => {
                let mut command = World::command(&namespace, Path::new("wireguard-go"));
                command.args(["--foreground", &interface]);
                let name = format!("{interface}-wireguard");
                Some(Process::spawn(&name, folder, &mut command))
            }
        };
        let client = Self {
            namespace,
            interface,
            folder: folder.to_owned(),
            number: 0,
            _data_plane: data_plane,
        };
        wait_until(
            "the client's interface",
            Duration::from_secs(10),
            async || {
                try_run("wg", &["show", &client.interface]).status.success()
                    || client.try_inside("wg", &["show", &client.interface])
            },
        )
        .await;
        client
    }

    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interface
    }

    fn try_inside(&self, program: &str, arguments: &[&str]) -> bool {
        let command = ["netns", "exec", &self.namespace, program];
        try_run("ip", &[&command[..], arguments].concat())
            .status
            .success()
    }

    fn inside(&self, program: &str, arguments: &[&str]) -> String {
        let command = ["netns", "exec", &self.namespace, program];
        run("ip", &[&command[..], arguments].concat())
    }

    /// Takes this configuration and no other, as `wg-quick` does, without touching name servers.
    pub fn configure(&self, wg_config: &str) {
        let (mut addresses, mut stripped) = (Vec::new(), String::new());
        for line in wg_config.lines() {
            match line.split_once(" = ") {
                Some(("Address", list)) => addresses.extend(list.split(", ")),
                Some(("DNS" | "MTU", _)) => {}
                _ => writeln!(stripped, "{line}").expect("a string takes everything"),
            }
        }
        let file = |name: &str, text: &str| {
            let path = self.folder.join(format!("{}.{name}", self.interface));
            std::fs::write(&path, text).expect("the configuration can be written");
            path.display().to_string()
        };
        self.inside(
            "wg",
            &["setconf", &self.interface, &file("conf", &stripped)],
        );
        // In one process: under emulation each costs a tenth of a second.
        let interface = &self.interface;
        let mut batch = format!("address flush dev {interface}\n");
        for address in addresses {
            let nodad = if address.contains(':') { "nodad" } else { "" };
            writeln!(batch, "address add {address} dev {interface} {nodad}").expect("room");
        }
        writeln!(batch, "link set mtu 1420 up dev {interface}").expect("room");
        for all in ["0.0.0.0/0", "::/0"] {
            writeln!(
                batch,
                "route replace {all} dev {interface} metric {}",
                self.number
            )
            .expect("room");
        }
        let batch = file("batch", &batch);
        run("ip", &["-n", &self.namespace, "-batch", &batch]);
    }

    /// Sends nothing more until it is configured again, since it has no key; what it counted can still
    /// be read.
    pub fn fall_silent(&self) {
        self.inside("wg", &["set", &self.interface, "private-key", "/dev/null"]);
    }

    /// One ping; whether the answer came within the deadline.
    #[must_use]
    pub fn pings(&self, target: &str, deadline: Duration) -> bool {
        let seconds = deadline.as_secs_f64().to_string();
        self.try_inside("ping", &["-c", "1", "-W", &seconds, "-q", target])
    }

    /// Whether a TCP connection is refused or swallowed.
    #[must_use]
    pub fn reaches_tcp(&self, target: &str, port: u16) -> bool {
        let probe = format!("exec 3<>/dev/tcp/{target}/{port}");
        let seconds = scaled(Duration::from_secs(2)).as_secs().to_string();
        self.try_inside("timeout", &[&seconds, "bash", "-c", &probe])
    }

    /// Pings until it is told to stop.
    #[must_use]
    pub fn keep_pinging(&self, target: &str, interval: Duration) -> Ping {
        let interval = format!("{:.3}", scaled(interval).as_secs_f64());
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace, "ping", "-i", &interval])
            // An answer late by less than this is late, not lost.
            .args(["-W", "10", target]);
        let name = format!("ping-{}", uuid::Uuid::now_v7().simple());
        Ping(Process::spawn(&name, &self.folder, &mut command))
    }

    /// When the node last shook hands, in Unix seconds; zero for never.
    #[must_use]
    pub fn last_handshake(&self) -> u64 {
        let peers = dump(&self.namespace, &self.interface);
        peers.first().map_or(0, |peer| peer.last_handshake)
    }

    /// The client's own counters: sent, received.
    #[must_use]
    pub fn counters(&self) -> (u64, u64) {
        let peers = dump(&self.namespace, &self.interface);
        peers
            .first()
            .map_or((0, 0), |peer| (peer.sent, peer.received))
    }
}

/// A running ping.
#[derive(Debug)]
pub struct Ping(Process);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PingReport {
    pub sent: u32,
    pub answered: u32,
}

impl Ping {
    /// How many answers came so far.
    #[must_use]
    pub fn answers(&self) -> usize {
        self.0.output().matches("bytes from").count()
    }

    /// Waits for this many further answers.
    pub async fn wait_answers(&self, more: usize) {
        let goal = self.answers() + more;
        wait_until(
            "the ping is answered",
            Duration::from_secs(20),
            async || self.answers() >= goal,
        )
        .await;
    }

    /// Ends it and says what was lost; the last one sent may still be on its way.
    pub async fn stop(mut self) -> PingReport {
        self.0.signal(Signal::SIGINT);
        wait_until("ping ends", Duration::from_secs(15), async || {
            !self.0.is_running()
        })
        .await;
        let output = self.0.output();
        let summary = output
            .lines()
            .find(|line| line.contains("packets transmitted"));
        let summary = summary.unwrap_or_else(|| panic!("ping said nothing: {output}"));
        let mut numbers = summary
            .split(|c: char| !c.is_ascii_digit())
            .filter(|it| !it.is_empty());
        let mut next = || {
            numbers
                .next()
                .and_then(|it| it.parse().ok())
                .expect("a number")
        };
        PingReport {
            sent: next(),
            answered: next(),
        }
    }
}

impl PingReport {
    /// Every ping was answered, but for one that was sent in the moment of the end.
    #[must_use]
    pub fn is_whole(self) -> bool {
        self.sent > 0 && self.answered + 1 >= self.sent
    }
}
