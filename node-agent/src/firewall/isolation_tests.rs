//! What packets do: a client, a node with the table, and an internet, in three network namespaces.
//! A veth stands in for the WireGuard interface; the rules know it only by its name.

use std::io::Write;
use std::net::{TcpListener, UdpSocket};
use std::process::Command;
use std::thread;

use super::*;
use crate::host::netns::{in_private_netns, run};

/// The neighbours' namespaces, which have names of their own and are removed at the end.
struct World {
    client: String,
    internet: String,
}

impl Drop for World {
    fn drop(&mut self) {
        for space in [&self.client, &self.internet] {
            let _ = Command::new("ip").args(["netns", "del", space]).status();
        }
    }
}

const INTERNET: [&str; 6] = [
    "198.41.0.4/32",
    "192.168.50.1/32",
    "169.254.169.254/32",
    "100.64.7.7/32",
    "2620:fe::fe/128",
    "fd99::1/128",
];

impl World {
    /// The calling thread's namespace becomes the node.
    fn new(name: &str) -> Self {
        let id = std::process::id();
        let world = Self {
            client: format!("{name}{id}c"),
            internet: format!("{name}{id}i"),
        };
        let Self { client, internet } = &world;
        for space in [client, internet] {
            run(&format!("ip netns add {space}"));
            run(&format!("ip -n {space} link set lo up"));
        }
        run(&format!(
            "ip link add wg-test address 02:00:00:00:00:01 type veth \
             peer name tunnel address 02:00:00:00:00:02 netns {client}"
        ));
        run(&format!(
            "ip link add uplink type veth peer name node netns {internet}"
        ));
        for (place, device, v4, v6) in [
            ("", "wg-test", "10.8.0.1/24", "fd00:8::1/64"),
            (client, "tunnel", "10.8.0.2/24", "fd00:8::2/64"),
            ("", "uplink", "45.33.1.2/24", "2600:1::2/64"),
            (internet, "node", "45.33.1.1/24", "2600:1::1/64"),
        ] {
            let ip = if place.is_empty() {
                "ip".to_owned()
            } else {
                format!("ip -n {place}")
            };
            run(&format!("{ip} addr add {v4} dev {device}"));
            run(&format!("{ip} addr add {v6} dev {device} nodad"));
            run(&format!("{ip} link set {device} up"));
        }
        // WireGuard asks for no neighbours, and the table lets nobody ask.
        for (ip, device, address, mac) in [
            ("ip".to_owned(), "wg-test", "fd00:8::2", "02:00:00:00:00:02"),
            (
                format!("ip -n {client}"),
                "tunnel",
                "fd00:8::1",
                "02:00:00:00:00:01",
            ),
        ] {
            run(&format!(
                "{ip} neigh add {address} lladdr {mac} dev {device} nud permanent"
            ));
        }
        for address in INTERNET {
            run(&format!("ip -n {internet} addr add {address} dev lo"));
        }
        run("ip route add default via 45.33.1.1");
        run("ip route add default via 2600:1::1");
        run(&format!("ip -n {client} route add default via 10.8.0.1"));
        run(&format!("ip -n {client} route add default via fd00:8::1"));
        run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        world
    }

    fn ping(&self, from: &str, to: &str) -> bool {
        let status = Command::new("ip")
            .args(["netns", "exec", from, "ping", "-c1", "-W0.5", "-q", to])
            .output();
        status.unwrap().status.success()
    }

    /// Whether the client's connection is answered at all; a refusal is an answer.
    fn knock(&self, to: &str, port: u16) -> bool {
        let script = format!("exec 3<>/dev/tcp/{to}/{port}");
        let output = Command::new("ip")
            .args(["netns", "exec", &self.client, "timeout", "0.5"])
            .args(["bash", "-c", &script])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        output.status.success() || said.contains("refused")
    }
}

fn setup() -> FirewallSetup {
    FirewallSetup {
        addresses: vec![
            "10.8.0.1/24".parse().unwrap(),
            "fd00:8::1/64".parse().unwrap(),
        ],
        resolvers: vec!["192.168.50.1".parse().unwrap()],
        ..FirewallSetup::default()
    }
}

#[test]
fn a_client_reaches_the_internet_and_nothing_else() {
    in_private_netns(async || {
        let world = World::new("iso");
        let client = world.client.as_str();
        let firewall = Firewall::new("wg-test".parse().unwrap());
        firewall.apply(&setup()).await.unwrap();

        // The internet has no route back to a client, so an answer proves the translation.
        for open in ["198.41.0.4", "2620:fe::fe", "10.8.0.1", "fd00:8::1"] {
            assert!(world.ping(client, open), "{open} shall answer");
        }
        for closed in [
            "192.168.50.1",
            "169.254.169.254",
            "100.64.7.7",
            "fd99::1",
            "45.33.1.2",
            "2600:1::2",
        ] {
            assert!(!world.ping(client, closed), "{closed} shall not answer");
        }
        for (to, port, answers) in [
            ("198.41.0.4", 443, true),
            ("198.41.0.4", 25, false),
            ("10.8.0.1", 53, true),
            ("10.8.0.1", 22, false),
            ("45.33.1.2", 53, false),
            ("192.168.50.1", 53, true),
            ("192.168.50.1", 443, false),
        ] {
            assert_eq!(world.knock(to, port), answers, "{to} port {port}");
        }
    });
}

#[test]
fn the_operator_opens_a_range_and_strangers_find_no_client() {
    in_private_netns(async || {
        let world = World::new("opn");
        let firewall = Firewall::new("wg-test".parse().unwrap());
        let mut setup = setup();
        setup.allow = vec!["192.168.50.0/24".parse().unwrap()];
        firewall.apply(&setup).await.unwrap();
        assert!(world.ping(&world.client, "192.168.50.1"));
        assert!(!world.knock("192.168.50.1", 25));
        assert!(!world.ping(&world.client, "169.254.169.254"));

        let internet = world.internet.as_str();
        run(&format!(
            "ip -n {internet} route add 10.8.0.0/24 via 45.33.1.2"
        ));
        assert!(!world.ping(internet, "10.8.0.2"), "a client");
        assert!(
            !world.ping(internet, "10.8.0.1"),
            "the node inside the tunnel"
        );
        assert!(world.ping(internet, "45.33.1.2"), "the node itself");

        firewall.remove().await.unwrap();
        assert!(world.ping(internet, "10.8.0.2"), "without the table");
    });
}

/// Services of the node on port 53 of its own addresses: each answers with its name.
fn resolver() {
    for address in ["10.8.0.1:53", "[fd00:8::1]:53"] {
        let (tcp, udp) = (TcpListener::bind(address), UdpSocket::bind(address));
        let (tcp, udp) = (tcp.unwrap(), udp.unwrap());
        // They end with the test's process.
        thread::spawn(move || {
            for stream in tcp.incoming() {
                stream.unwrap().write_all(b"node").unwrap();
            }
        });
        thread::spawn(move || {
            let mut question = [0; 64];
            while let Ok((_, from)) = udp.recv_from(&mut question) {
                udp.send_to(b"node", from).unwrap();
            }
        });
    }
}

#[test]
fn whomever_a_client_asks_for_a_name_the_node_answers() {
    in_private_netns(async || {
        let world = World::new("dns");
        resolver();
        let answer = |protocol: &str, server: &str| {
            let script = format!("exec 3<>/dev/{protocol}/{server}/53; echo q >&3; head -c4 <&3");
            let output = Command::new("ip")
                .args(["netns", "exec", &world.client, "timeout", "2"])
                .args(["bash", "-c", &script])
                .output();
            String::from_utf8(output.unwrap().stdout).unwrap()
        };
        let firewall = Firewall::new("wg-test".parse().unwrap());
        let mut setup = setup();
        firewall.apply(&setup).await.unwrap();
        assert_eq!(answer("udp", "10.8.0.1"), "node");
        assert_eq!(answer("tcp", "198.41.0.4"), "");

        setup.redirect_dns = true;
        firewall.apply(&setup).await.unwrap();
        for server in [
            "198.41.0.4",
            "10.99.99.99",
            "2620:fe::fe",
            "10.8.0.1",
            "fd00:8::1",
        ] {
            for protocol in ["udp", "tcp"] {
                assert_eq!(answer(protocol, server), "node", "{protocol} {server}");
            }
        }
        assert!(
            world.knock("198.41.0.4", 443),
            "other ports go where they went"
        );
    });
}

#[test]
fn what_is_denied_is_denied_even_where_it_is_allowed() {
    in_private_netns(async || {
        let world = World::new("dny");
        let firewall = Firewall::new("wg-test".parse().unwrap());
        let mut setup = setup();
        setup.allow = ["192.168.50.0/24", "100.64.7.7 tcp/443"]
            .map(|it| it.parse().unwrap())
            .into();
        setup.deny = ["192.168.50.1 tcp/443", "tcp/6000-6010", "2620:fe::/48"]
            .map(|it| it.parse().unwrap())
            .into();
        firewall.apply(&setup).await.unwrap();
        for (to, port, answers) in [
            ("192.168.50.1", 443, false),
            ("192.168.50.1", 444, true),
            ("192.168.50.1", 6005, false),
            ("100.64.7.7", 443, true),
            ("100.64.7.7", 444, false),
            ("198.41.0.4", 5999, true),
            ("198.41.0.4", 6000, false),
            ("198.41.0.4", 6010, false),
            ("198.41.0.4", 6011, true),
            ("2620:fe::fe", 80, false),
        ] {
            assert_eq!(world.knock(to, port), answers, "{to} port {port}");
        }
    });
}

#[test]
fn a_routed_prefix_is_not_translated_and_not_open_to_strangers() {
    in_private_netns(async || {
        let world = World::new("rtd");
        let (client, internet) = (world.client.as_str(), world.internet.as_str());
        let firewall = Firewall::new("wg-test".parse().unwrap());
        let mut setup = setup();
        setup.ipv6 = Ipv6Mode::Routed;
        firewall.apply(&setup).await.unwrap();
        assert!(world.ping(client, "198.41.0.4"), "IPv4 is translated");
        assert!(!world.ping(client, "2620:fe::fe"), "there is no way back");
        run(&format!(
            "ip -n {internet} route add fd00:8::/64 via 2600:1::2"
        ));
        // The internet first looks for its neighbour, which takes a second where the link is new.
        let answered = (0..20).any(|_| world.ping(client, "2620:fe::fe"));
        assert!(answered, "with its own address");
        assert!(!world.ping(internet, "fd00:8::2"), "nobody asked for it");
    });
}
