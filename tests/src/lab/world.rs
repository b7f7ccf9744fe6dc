//! The namespaces, and the wires between them.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::process::{run, try_run};

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// The namespaces of a client, the internet and one node or more, removed with this value.
#[derive(Debug)]
pub struct World {
    mark: String,
    sites: Vec<Site>,
    /// This machine's end of the wire to the node: where the plane listens.
    pub plane_address: Ipv4Addr,
}

/// Where a node stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    pub namespace: String,
    /// Its WireGuard interface.
    pub interface: String,
    /// Where clients reach it.
    pub address: Ipv4Addr,
    /// This machine's end of the wire to it.
    plane_link: String,
    /// Its way to the plane, where that is not at the other end of its wire.
    route: Option<String>,
}

/// How the wire between plane and node fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Both ends learn of it.
    Unplugged,
    /// Packets vanish.
    Swallowed,
}

impl Site {
    /// Cuts the wire to the plane.
    pub fn cut(&self, cut: Cut) {
        match cut {
            Cut::Unplugged => {
                self.ip("link set plane down");
            }
            Cut::Swallowed => {
                let chain = |hook: &str| {
                    format!(
                        "chain {hook} {{ type filter hook {hook} priority -400; meta {}ifname plane drop; }}",
                        hook.chars().next().unwrap_or_default()
                    )
                };
                let table = format!(
                    "table inet cut {{ {}; {}; }}",
                    chain("input"),
                    chain("output")
                );
                run("ip", &["netns", "exec", &self.namespace, "nft", &table]);
            }
        }
    }

    /// Undoes every cut.
    pub fn heal(&self) {
        let nft = ["netns", "exec", &self.namespace, "nft", "delete"];
        try_run("ip", &[&nft[..], &["table", "inet", "cut"]].concat());
        self.ip("link set plane up");
        if let Some(route) = &self.route {
            self.ip(&format!("route replace {route}"));
        }
    }

    fn ip(&self, line: &str) {
        let words: Vec<_> = line.split(' ').collect();
        run("ip", &[&["-n", &self.namespace], &words[..]].concat());
    }
}

impl World {
    /// Where clients reach the node.
    pub const NODE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
    /// A host that clients reach through the node alone.
    pub const INTERNET: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
    pub const INTERNET_V6: &str = "2001:db8:1::2";
    /// What the node's firewall must let through, since it is no public address.
    pub const INTERNET_RANGES: &str = "198.51.100.0/24,2001:db8:1::/64";

    /// With one node.
    #[must_use]
    pub fn new() -> Self {
        Self::with_nodes(1)
    }

    /// With up to eight nodes.
    #[must_use]
    pub fn with_nodes(count: u8) -> Self {
        super::require_root();
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:x}{number:x}", std::process::id());
        // A /30 a node of the range for carriers' inner networks, apart from everybody else's by
        // chance.
        let mut hasher = DefaultHasher::new();
        (std::process::id(), number, "plane").hash(&mut hasher);
        let block = u32::try_from(hasher.finish() % (1 << 16)).unwrap_or(0) * 64;
        let base = u32::from(Ipv4Addr::new(100, 64, 0, 0)) + block;
        let mut world = Self {
            mark: id,
            sites: Vec::new(),
            plane_address: Ipv4Addr::from(base + 1),
        };
        world.build(Ipv4Addr::from(base + 2));
        for number in 1..count {
            world.build_further(number, base + 4 * u32::from(number));
        }
        world
    }

    fn build(&mut self, inner: Ipv4Addr) {
        let (node, client, internet) = (self.node(), self.client(), self.internet());
        self.sites.push(Site {
            namespace: node.clone(),
            interface: self.interface("n"),
            address: Self::NODE,
            plane_link: self.plane_link(),
            route: None,
        });
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
        forward(&node);
    }

    /// A node beside the first: it reaches the plane at the first one's wire, and the internet at
    /// an end of its own.
    fn build_further(&mut self, number: u8, base: u32) {
        let (here, inner) = (Ipv4Addr::from(base + 1), Ipv4Addr::from(base + 2));
        let site = Site {
            namespace: self.name(&format!("node{number}")),
            interface: self.interface(&format!("n{number}")),
            address: Ipv4Addr::new(192, 0, 2, 16 * number + 1),
            plane_link: format!("pvt{}p{number}", self.mark),
            route: Some(format!("{}/32 via {here}", self.plane_address)),
        };
        let (node, link) = (site.namespace.clone(), site.plane_link.clone());
        // Entered first: what is half built goes with this value too.
        self.sites.push(site);
        let far = format!("node{number}");
        for line in [
            format!("netns add {node}"),
            format!("-n {node} link set lo up"),
            format!("link add {link} type veth peer name plane netns {node}"),
            format!("address add {here}/30 dev {link}"),
            format!("link set {link} up"),
            format!("-n {node} address add {inner}/30 dev plane"),
            format!("-n {node} link set plane up"),
        ] {
            run("ip", &line.split(' ').collect::<Vec<_>>());
        }
        self.site(usize::from(number)).heal();
        let address = |host: u8| format!("192.0.2.{}/28", 16 * number + host);
        let uplink = |host: u8| format!("192.0.2.{}/28", 128 + 16 * (number % 8) + host);
        join(
            (&node, "internet", &uplink(1)),
            (&self.internet(), &far, &uplink(2)),
        );
        join(
            (&node, "client", &address(1)),
            (&self.client(), &far, &address(2)),
        );
        let gateway = uplink(2);
        let gateway = gateway.trim_end_matches("/28");
        let default = ["-n", &node, "route", "add", "default", "via", gateway];
        run("ip", &default);
        forward(&node);
    }

    /// Where the node of this number stands; the first is 0.
    #[must_use]
    pub fn site(&self, number: usize) -> &Site {
        self.sites.get(number).expect("the world has this node")
    }

    #[must_use]
    pub fn sites(&self) -> &[Site] {
        &self.sites
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

/// As a host is set up for the agent.
/// As a host is set up for the agent.
fn forward(node: &str) {
    for setting in [
        "net.ipv4.ip_forward=1",
        "net.ipv6.conf.all.forwarding=1",
        "net.ipv4.ping_group_range=0 2147483647",
    ] {
        run("ip", &["netns", "exec", node, "sysctl", "-qw", setting]);
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
        for site in &self.sites {
            try_run("ip", &["link", "del", &site.plane_link]);
        }
        let nodes = self.sites.iter().map(|site| site.namespace.clone());
        for namespace in nodes.chain([self.client(), self.internet()]) {
            // Only this world's processes are in there; a data plane outlives its agent on purpose.
            let inside = try_run("ip", &["netns", "pids", &namespace]);
            for process in String::from_utf8_lossy(&inside.stdout).split_whitespace() {
                try_run("kill", &["-9", process]);
            }
            try_run("ip", &["netns", "del", &namespace]);
        }
        // A userspace data plane that was killed leaves its socket.
        let ours = self.interface("");
        for socket in std::fs::read_dir("/run/wireguard").into_iter().flatten() {
            let socket = socket.map(|it| it.path()).unwrap_or_default();
            let name = socket.file_stem().and_then(|name| name.to_str());
            // The mark ends where a role begins, which no hexadecimal digit does.
            let role = name.and_then(|name| name.strip_prefix(&ours));
            if role.is_some_and(|role| role.starts_with(['n', 'k'])) {
                let _ = std::fs::remove_file(socket);
            }
        }
    }
}
