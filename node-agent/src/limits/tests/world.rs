//! Clients, a node and an internet in three network namespaces, and measurements between them.
//!
//! A veth stands in for the WireGuard interface; the rules know it only by its name. All clients are
//! one namespace with many addresses.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::host::netns::run;

pub(super) const INTERFACE: &str = "wg-test";
pub(super) const INTERNET: &str = "45.33.1.1";

/// The neighbours' namespaces, which have names of their own and are removed at the end.
pub(super) struct World {
    clients: String,
    internet: String,
}

/// The way of the bytes that are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Up,
    Down,
}

impl World {
    /// The calling thread's namespace becomes the node.
    pub(super) fn new(name: &str) -> Self {
        let id = std::process::id();
        let world = Self {
            clients: format!("{name}{id}c"),
            internet: format!("{name}{id}i"),
        };
        let Self { clients, internet } = &world;
        for space in [clients, internet] {
            run(&format!("ip netns add {space}"));
            run(&format!("ip -n {space} link set lo up"));
        }
        for (device, far, space) in [(INTERFACE, "tunnel", clients), ("uplink", "node", internet)] {
            run(&format!(
                "ip link add {device} mtu 1420 type veth peer name {far} mtu 1420 netns {space}"
            ));
        }
        for (place, device, v4, v6) in [
            ("", INTERFACE, "10.8.0.1/16", "fd00:8::1/64"),
            (clients, "tunnel", "10.8.0.2/16", "fd00:8::2/64"),
            ("", "uplink", "45.33.1.2/24", "2600:1::2/64"),
            (internet, "node", "45.33.1.1/24", "2600:1::1/64"),
        ] {
            let ip = match place {
                "" => "ip".to_owned(),
                space => format!("ip -n {space}"),
            };
            run(&format!("{ip} addr add {v4} dev {device}"));
            run(&format!("{ip} addr add {v6} dev {device} nodad"));
            run(&format!("{ip} link set {device} up"));
        }
        run(&format!("ip -n {clients} addr add 10.8.0.3/16 dev tunnel"));
        run(&format!("ip -n {clients} route add default via 10.8.0.1"));
        run(&format!("ip -n {clients} route add default via fd00:8::1"));
        run(&format!("ip -n {internet} route add default via 45.33.1.2"));
        run(&format!("ip -n {internet} route add default via 2600:1::2"));
        run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        world
    }

    fn command(space: &str, line: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", space]);
        command.args(line.split_ascii_whitespace());
        command
    }

    pub(super) fn in_internet(&self, line: &str) -> String {
        run(&format!("ip netns exec {} {line}", self.internet))
    }

    /// A transfer between a client's address and the internet, for so many seconds.
    pub(super) fn transfer(&self, client: &str, port: u16, way: Way, seconds: u32) -> Transfer {
        let server = format!("iperf3 -s -1 --forceflush -p {port}");
        let mut server = Self::command(&self.internet, &server);
        let mut server = Running(server.stdout(Stdio::piped()).spawn().expect("iperf3 runs"));
        let said = server.0.stdout.take().expect("piped");
        let mut lines = BufReader::new(said).lines();
        while !lines
            .next()
            .expect("iperf3 listens")
            .expect("text")
            .contains("listening")
        {}
        // It may say more, which nobody reads.
        std::thread::spawn(move || for _ in lines {});
        let reverse = if way == Way::Down { "-R" } else { "" };
        let (internet, bind) = match client.contains(':') {
            true => ("2600:1::1", client),
            false => (INTERNET, client),
        };
        let line = format!("iperf3 -J -c {internet} -B {bind} -p {port} -t {seconds} {reverse}");
        let mut client = Self::command(&self.clients, &line);
        let client = client.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        Transfer {
            client: Running(client.expect("iperf3 runs")),
            _server: server,
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for space in [&self.clients, &self.internet] {
            let _ = Command::new("ip").args(["netns", "del", space]).status();
        }
    }
}

/// A child that ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running transfer. Dropping it ends it.
pub(super) struct Transfer {
    client: Running,
    _server: Running,
}

impl Transfer {
    /// Megabits a second that arrived, once it is over.
    pub(super) fn megabits(mut self) -> f64 {
        let output = self.client.0.stdout.take().expect("piped");
        let report: Value = serde_json::from_reader(output).expect("JSON");
        let rate = report.pointer("/end/sum_received/bits_per_second");
        let rate = rate.and_then(Value::as_f64);
        rate.unwrap_or_else(|| panic!("no rate in {report}")) / 1e6
    }
}

/// Waits for a condition.
pub(super) async fn until(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let begin = Instant::now();
    while !is().await {
        assert!(begin.elapsed() < Duration::from_secs(60), "not {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
