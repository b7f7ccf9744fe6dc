//! The namespaces, and the wires between them.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::process::{run, try_run};

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// Three namespaces, removed with this value.
#[derive(Debug)]
pub struct World {
    mark: String,
    /// This machine's end of the wire to the node: where the plane listens.
    pub plane_address: Ipv4Addr,
}

impl World {
    /// Where clients reach the node.
    pub const NODE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
    /// A host that clients reach through the node alone.
    pub const INTERNET: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
    pub const INTERNET_V6: &str = "2001:db8:1::2";
    /// What the node's firewall must let through, since it is no public address.
    pub const INTERNET_RANGES: &str = "198.51.100.0/24,2001:db8:1::/64";

    #[must_use]
    pub fn new() -> Self {
        super::require_root();
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:x}{number:x}", std::process::id());
        // A /30 of the range for carriers' inner networks, apart from everybody else's by chance.
        let mut hasher = DefaultHasher::new();
        (std::process::id(), number, "plane").hash(&mut hasher);
        let block = u32::try_from(hasher.finish() % (1 << 20)).unwrap_or(0) * 4;
        let base = u32::from(Ipv4Addr::new(100, 64, 0, 0)) + block;
        let world = Self {
            mark: id,
            plane_address: Ipv4Addr::from(base + 1),
        };
        world.build(Ipv4Addr::from(base + 2));
        world
    }

    fn build(&self, inner: Ipv4Addr) {
        let (node, client, internet) = (self.node(), self.client(), self.internet());
        for namespace in [&node, &client, &internet] {
            run("ip", &["netns", "add", namespace]);
            run("ip", &["-n", namespace, "link", "set", "lo", "up"]);
        }
        let plane = self.plane_link();
        run(
            "ip",
            &[
                "link", "add", &plane, "type", "veth", "peer", "name", "plane", "netns", &node,
            ],
        );
        run(
            "ip",
            &[
                "address",
                "add",
                &format!("{}/30", self.plane_address),
                "dev",
                &plane,
            ],
        );
        run("ip", &["link", "set", &plane, "up"]);
        run(
            "ip",
            &[
                "-n",
                &node,
                "address",
                "add",
                &format!("{inner}/30"),
                "dev",
                "plane",
            ],
        );
        run("ip", &["-n", &node, "link", "set", "plane", "up"]);
        join(
            (&node, "internet", "198.51.100.1/24"),
            (&internet, "node", "198.51.100.2/24"),
        );
        join(
            (&node, "client", "203.0.113.1/24"),
            (&client, "node", "203.0.113.2/24"),
        );
        for (namespace, link, address) in [
            (&node, "internet", "2001:db8:1::1/64"),
            (&internet, "node", "2001:db8:1::2/64"),
        ] {
            run(
                "ip",
                &[
                    "-n", namespace, "address", "add", address, "dev", link, "nodad",
                ],
            );
        }
        let default = ["route", "add", "default", "via", "198.51.100.2"];
        run("ip", &[&["-n", &node][..], &default].concat());
        // As a host is set up for the agent.
        for setting in [
            "net.ipv4.ip_forward=1",
            "net.ipv6.conf.all.forwarding=1",
            "net.ipv4.ping_group_range=0 2147483647",
        ] {
            run("ip", &["netns", "exec", &node, "sysctl", "-qw", setting]);
        }
    }

    fn name(&self, role: &str) -> String {
        format!("pvt-{}-{role}", self.mark)
    }

    #[must_use]
    pub fn node(&self) -> String {
        self.name("node")
    }

    #[must_use]
    pub fn client(&self) -> String {
        self.name("client")
    }

    #[must_use]
    pub fn internet(&self) -> String {
        self.name("internet")
    }

    fn plane_link(&self) -> String {
        format!("pvt{}p", self.mark)
    }

    /// A WireGuard interface's name, unique in the machine: userspace sockets are.
    #[must_use]
    pub fn interface(&self, role: &str) -> String {
        format!("wg{}{role}", self.mark)
    }

    /// A command inside a namespace.
    #[must_use]
    pub fn command(namespace: &str, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(program);
        command
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

fn join(here: (&str, &str, &str), there: (&str, &str, &str)) {
    let (namespace, link, address) = here;
    let (far, far_link, far_address) = there;
    let add = ["-n", namespace, "link", "add", link, "type", "veth"];
    run(
        "ip",
        &[&add[..], &["peer", "name", far_link, "netns", far]].concat(),
    );
    for (namespace, link, address) in [(namespace, link, address), (far, far_link, far_address)] {
        run(
            "ip",
            &["-n", namespace, "address", "add", address, "dev", link],
        );
        run("ip", &["-n", namespace, "link", "set", link, "up"]);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        try_run("ip", &["link", "del", &self.plane_link()]);
        for namespace in [self.node(), self.client(), self.internet()] {
            // Only this world's processes are in there; a data plane outlives its agent on purpose.
            let inside = try_run("ip", &["netns", "pids", &namespace]);
            for process in String::from_utf8_lossy(&inside.stdout).split_whitespace() {
                try_run("kill", &["-9", process]);
            }
            try_run("ip", &["netns", "del", &namespace]);
        }
        for role in ["n", "c"] {
            // A userspace data plane that was killed leaves its socket.
            let socket = format!("/run/wireguard/{}.sock", self.interface(role));
            let _ = std::fs::remove_file(socket);
        }
    }
}
