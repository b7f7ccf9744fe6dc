//! The agent's configuration: from flags, else from the environment, else a default that is named
//! here once. A wrong value stops the start with the variable's name and what it takes.

use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use chrono::TimeDelta;
use clap::{Args, value_parser};
use ipnet::{Ipv4Net, Ipv6Net};

use crate::firewall::{Destination, FirewallSetup, Ipv6Mode, MalformedDestination};
use crate::ipam::{Pool, SubnetError};
use crate::link::{PlaneUrl, TlsError, tls};
use crate::wireguard::{Backend, InterfaceName};

/// Unique local addresses of our own, for nodes that are not told a range.
const DEFAULT_V6: Ipv6Addr = Ipv6Addr::new(0xfd70, 0x7276, 0x706e, 0, 0, 0, 0, 0);

/// A setting that is missing, or that contradicts another.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{name} is not set: {takes}")]
    Missing {
        name: &'static str,
        takes: &'static str,
    },
    #[error(
        "PLANE_URL: {0} is neither encrypted nor on this host; use https://, or set PLANE_INSECURE=true to send the node's token in the clear"
    )]
    Exposed(PlaneUrl),
    #[error(
        "IPV6_MODE: `routed` needs VPN_SUBNET_V6 to be the prefix that is routed to this host, such as 2001:db8:1:2::/64"
    )]
    NothingRouted,
    #[error("VPN_SUBNET, VPN_SUBNET_V6: {0}")]
    Subnet(#[from] SubnetError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("HOSTNAME is not set and the host does not tell its name: {0}")]
    Hostname(#[source] std::io::Error),
}

/// Where the running agent is spoken to.
#[derive(Debug, Clone, Args)]
pub struct RunDir {
    /// Holds the control socket
    #[arg(
        long,
        env = "RUN_DIR",
        value_name = "RUN_DIR",
        default_value = "/run/prime-node-agent"
    )]
    pub run_dir: PathBuf,
}

impl RunDir {
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.run_dir.join("control.sock")
    }
}

/// Everything that the agent is told.
#[derive(Debug, Clone, Args)]
pub struct Config {
    #[command(flatten)]
    pub plane: PlaneConfig,
    #[command(flatten)]
    pub wireguard: WireguardConfig,
    #[command(flatten)]
    pub network: NetworkConfig,
    #[command(flatten)]
    pub run_dir: RunDir,
    /// Holds the ledger and the private key
    #[arg(
        long,
        env = "STATE_DIR",
        value_name = "STATE_DIR",
        default_value = "/var/lib/prime-node-agent"
    )]
    pub state_dir: PathBuf,
    /// This host's name, as the fleet knows it [default: the system's]
    #[arg(long, env = "HOSTNAME", value_name = "HOSTNAME")]
    pub hostname: Option<String>,
}

/// The control plane.
#[derive(Debug, Clone, Args)]
pub struct PlaneConfig {
    /// The control plane's base address, such as https://vpn.example.com
    #[arg(long = "plane", env = "PLANE_URL", value_name = "PLANE_URL")]
    pub url: Option<PlaneUrl>,
    /// Certificates in PEM form to trust besides the public web's
    #[arg(
        long = "plane-ca-file",
        env = "PLANE_CA_FILE",
        value_name = "PLANE_CA_FILE"
    )]
    pub ca_file: Option<PathBuf>,
    /// Allow http:// to another host (true or false)
    #[arg(
        long = "plane-insecure", env = "PLANE_INSECURE", value_name = "PLANE_INSECURE",
        default_value_t = false, default_missing_value = "true", num_args = 0..=1,
        action = clap::ArgAction::Set
    )]
    pub insecure: bool,
}

/// The interface.
#[derive(Debug, Clone, Args)]
pub struct WireguardConfig {
    /// The interface's name
    #[arg(
        long = "interface",
        env = "WIREGUARD_INTERFACE",
        value_name = "WIREGUARD_INTERFACE",
        default_value = "wg0"
    )]
    pub interface: InterfaceName,
    /// The UDP port that clients reach
    #[arg(long = "port", env = "WIREGUARD_PORT", value_name = "WIREGUARD_PORT", default_value_t = 51820, value_parser = value_parser!(u16).range(1..))]
    pub port: u16,
    /// The interface's MTU in bytes
    #[arg(long = "mtu", env = "WIREGUARD_MTU", value_name = "WIREGUARD_MTU", default_value_t = 1420, value_parser = value_parser!(u32).range(1280..=9000))]
    pub mtu: u32,
    /// Which implementation to drive
    #[arg(long, env = "BACKEND", value_name = "BACKEND", default_value = "auto")]
    pub backend: Backend,
    /// The program for the userspace backend
    #[arg(
        long,
        env = "WIREGUARD_GO",
        value_name = "WIREGUARD_GO",
        default_value = "/usr/bin/wireguard-go"
    )]
    pub wireguard_go: PathBuf,
    /// Where clients reach the interface, `host:port`
    #[arg(
        long = "public-endpoint",
        env = "PUBLIC_ENDPOINT",
        value_name = "PUBLIC_ENDPOINT"
    )]
    pub endpoint: Option<Endpoint>,
    /// Make the interface forget where a client is that was idle for 180 s (true or false)
    #[arg(
        long, env = "SCRUB_ENDPOINTS", value_name = "SCRUB_ENDPOINTS",
        default_value_t = false, default_missing_value = "true", num_args = 0..=1,
        action = clap::ArgAction::Set
    )]
    pub scrub_endpoints: bool,
}

/// Clients' addresses and what they may reach.
#[derive(Debug, Clone, Args)]
pub struct NetworkConfig {
    /// Where clients' IPv4 addresses come from, a network of /8 to /30
    #[arg(long, env = "VPN_SUBNET", value_name = "VPN_SUBNET", default_value = "10.8.0.0/16", value_parser = subnet::<Ipv4Net>)]
    pub vpn_subnet: Ipv4Net,
    /// Where clients' IPv6 addresses come from, or `none` [default: unique local addresses]
    #[arg(long, env = "VPN_SUBNET_V6", value_name = "VPN_SUBNET_V6", value_parser = subnet_v6)]
    pub vpn_subnet_v6: Option<SubnetV6>,
    /// How long a freed address rests before another client gets it
    #[arg(
        long,
        env = "QUARANTINE_SECONDS",
        value_name = "QUARANTINE_SECONDS",
        default_value_t = 120
    )]
    pub quarantine_seconds: u32,
    /// How clients' IPv6 packets leave: `nat` as the host's, `routed` as the client's own, from a prefix
    /// that is routed to this host
    #[arg(
        long,
        env = "IPV6_MODE",
        value_name = "IPV6_MODE",
        default_value = "nat"
    )]
    pub ipv6_mode: Ipv6Mode,
    /// Networks that clients may reach although they are private, separated by commas; with a protocol
    /// and port such as `10.1.2.3 tcp/443` that alone
    #[arg(long, env = "FORWARD_ALLOW", value_name = "FORWARD_ALLOW", default_value = "", value_parser = allow)]
    pub forward_allow: List<Destination>,
    /// What clients may not reach, separated by commas: 198.51.100.0/24, tcp/25, `203.0.113.7 udp/1-99`;
    /// goes before FORWARD_ALLOW
    #[arg(long, env = "FORWARD_DENY", value_name = "FORWARD_DENY", default_value = "", value_parser = destinations)]
    pub forward_deny: List<Destination>,
    /// Let the node's resolver answer whatever clients ask on port 53 of anybody (true or false)
    #[arg(
        long, env = "DNS_REDIRECT", value_name = "DNS_REDIRECT",
        default_value_t = false, default_missing_value = "true", num_args = 0..=1,
        action = clap::ArgAction::Set
    )]
    pub dns_redirect: bool,
    /// Resolvers elsewhere that clients may ask although they are private, separated by commas
    #[arg(long, env = "CLIENT_RESOLVERS", value_name = "CLIENT_RESOLVERS", default_value = "", value_parser = resolvers)]
    pub client_resolvers: List<IpAddr>,
    /// The interface whose rates are the node's load [default: the default route's]
    #[arg(long, env = "UPLINK", value_name = "UPLINK")]
    pub uplink: Option<InterfaceName>,
    /// The uplink's capacity in bits a second [default: the interface's speed]
    #[arg(long, env = "UPLINK_CAPACITY", value_name = "UPLINK_CAPACITY", value_parser = value_parser!(u64).range(1..))]
    pub uplink_capacity: Option<u64>,
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(pub String);

/// A range for clients' IPv6 addresses, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubnetV6 {
    Off,
    Net(Ipv6Net),
}

/// Values in one variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List<T>(pub Vec<T>);

impl Config {
    pub fn hostname(&self) -> Result<String, ConfigError> {
        match &self.hostname {
            Some(name) => Ok(name.clone()),
            None => std::fs::read_to_string("/proc/sys/kernel/hostname")
                .map(|name| name.trim_end().to_owned())
                .map_err(ConfigError::Hostname),
        }
    }

    /// What the firewall's table is made from.
    pub fn firewall(&self) -> Result<FirewallSetup, ConfigError> {
        let network = &self.network;
        let prefix_is_given = matches!(network.vpn_subnet_v6, Some(SubnetV6::Net(_)));
        if network.ipv6_mode == Ipv6Mode::Routed && !prefix_is_given {
            return Err(ConfigError::NothingRouted);
        }
        Ok(FirewallSetup {
            addresses: self.pool()?.node_addresses(),
            resolvers: network.client_resolvers.0.clone(),
            allow: network.forward_allow.0.clone(),
            deny: network.forward_deny.0.clone(),
            ipv6: network.ipv6_mode,
            redirect_dns: network.dns_redirect,
        })
    }

    pub fn pool(&self) -> Result<Pool, ConfigError> {
        Ok(Pool::new(
            self.network.vpn_subnet,
            self.network.subnet_v6(),
            TimeDelta::seconds(self.network.quarantine_seconds.into()),
        )?)
    }
}

impl PlaneConfig {
    pub fn url(&self) -> Result<PlaneUrl, ConfigError> {
        let url = self.url.clone().ok_or(ConfigError::Missing {
            name: "PLANE_URL",
            takes: "it takes the control plane's base address, such as https://vpn.example.com",
        })?;
        if url.is_exposed() && !self.insecure {
            return Err(ConfigError::Exposed(url));
        }
        Ok(url)
    }

    pub fn tls(&self) -> Result<rustls::ClientConfig, ConfigError> {
        Ok(tls(self
            .ca_file
            .as_deref()
            .filter(|path| *path != Path::new("")))?)
    }
}

impl WireguardConfig {
    pub fn endpoint(&self) -> Result<String, ConfigError> {
        let endpoint = self.endpoint.clone().ok_or(ConfigError::Missing {
            name: "PUBLIC_ENDPOINT",
            takes: "it takes the host and UDP port where clients reach this node, such as vpn1.example.com:51820",
        })?;
        Ok(endpoint.0)
    }
}

impl NetworkConfig {
    /// Without a word on it, as many IPv6 addresses as the IPv4 range has.
    #[must_use]
    pub fn subnet_v6(&self) -> Option<Ipv6Net> {
        match self.vpn_subnet_v6 {
            Some(SubnetV6::Off) => None,
            Some(SubnetV6::Net(net)) => Some(net),
            None => Ipv6Net::new(DEFAULT_V6, 96 + self.vpn_subnet.prefix_len()).ok(),
        }
    }
}

impl FromStr for Endpoint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const TAKES: &str = "it takes a host and a port, such as vpn1.example.com:51820, 192.0.2.1:51820 or [2001:db8::1]:51820";
        let (host, port) = text.rsplit_once(':').ok_or(TAKES)?;
        let port_is_valid = port.parse::<u16>().is_ok_and(|port| port > 0);
        let host_is_valid = match host.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
            Some(v6) => v6.parse::<Ipv6Addr>().is_ok(),
            None => {
                !host.is_empty()
                    && host
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
            }
        };
        if port_is_valid && host_is_valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(TAKES)
        }
    }
}

fn subnet<T: FromStr>(text: &str) -> Result<T, &'static str> {
    text.parse()
        .map_err(|_| "it takes a network such as 10.8.0.0/16")
}

fn subnet_v6(text: &str) -> Result<SubnetV6, &'static str> {
    if text == "none" {
        return Ok(SubnetV6::Off);
    }
    text.parse()
        .map(SubnetV6::Net)
        .map_err(|_| "it takes a network such as fd00:1::/112, or `none`")
}

fn list<T: FromStr>(text: &str, takes: &str) -> Result<List<T>, String> {
    text.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .map(|item| {
            item.parse()
                .map_err(|_| format!("`{item}` is not one; {takes}, separated by commas"))
        })
        .collect::<Result<_, _>>()
        .map(List)
}

fn resolvers(text: &str) -> Result<List<IpAddr>, String> {
    list(text, "it takes addresses")
}

fn destinations(text: &str) -> Result<List<Destination>, String> {
    list(text, &MalformedDestination.to_string())
}

/// A port of every address would open it in each closed range at once.
fn allow(text: &str) -> Result<List<Destination>, String> {
    let list = destinations(text)?;
    match list.0.iter().find(|it| it.network.is_none()) {
        Some(everywhere) => Err(format!("`{everywhere}` needs a network before it")),
        None => Ok(list),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use rstest::rstest;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        config: Config,
    }

    fn parse(flags: &[&str]) -> Result<Config, String> {
        Cli::try_parse_from(std::iter::once(&"test").chain(flags))
            .map(|cli| cli.config)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_make_a_pool_with_mirrored_addresses() {
        let config = parse(&[]).expect("defaults");
        assert_eq!(config.pool().expect("pool").capacity(), 65_533);
        let v6 = config.network.subnet_v6().expect("on").to_string();
        assert_eq!(v6, "fd70:7276:706e::/112");
        assert_eq!(config.network.forward_allow.0, []);
        let off = parse(&["--vpn-subnet-v6", "none"]).expect("valid");
        assert_eq!(off.network.subnet_v6(), None);
    }

    #[rstest]
    #[case(&["--port", "0"], "WIREGUARD_PORT")]
    #[case(&["--mtu", "100"], "WIREGUARD_MTU")]
    #[case(&["--interface", "wg/0"], "WIREGUARD_INTERFACE")]
    #[case(&["--backend", "windows"], "BACKEND")]
    #[case(&["--vpn-subnet", "10.8.0.0"], "VPN_SUBNET")]
    #[case(&["--vpn-subnet-v6", "10.8.0.0/16"], "VPN_SUBNET_V6")]
    #[case(&["--forward-allow", "10.0.0.0/8,x"], "FORWARD_ALLOW")]
    #[case(&["--forward-allow", "tcp/443"], "FORWARD_ALLOW")]
    #[case(&["--forward-deny", "10.0.0.0/8,tcp/0"], "FORWARD_DENY")]
    #[case(&["--dns-redirect", "perhaps"], "DNS_REDIRECT")]
    #[case(&["--ipv6-mode", "bridged"], "IPV6_MODE")]
    #[case(&["--client-resolvers", "one"], "CLIENT_RESOLVERS")]
    #[case(&["--public-endpoint", "vpn"], "PUBLIC_ENDPOINT")]
    #[case(&["--public-endpoint", "vpn:0"], "PUBLIC_ENDPOINT")]
    #[case(&["--public-endpoint", "2001:db8::1:51820"], "PUBLIC_ENDPOINT")]
    #[case(&["--plane", "vpn.example.com"], "PLANE_URL")]
    #[case(&["--plane-insecure", "perhaps"], "PLANE_INSECURE")]
    #[case(&["--quarantine-seconds=-1"], "QUARANTINE_SECONDS")]
    #[case(&["--scrub-endpoints", "perhaps"], "SCRUB_ENDPOINTS")]
    #[case(&["--uplink-capacity", "0"], "UPLINK_CAPACITY")]
    #[case(&["--uplink-capacity", "fast"], "UPLINK_CAPACITY")]
    fn a_wrong_value_is_named_with_its_variable(#[case] flags: &[&str], #[case] variable: &str) {
        let error = parse(flags).expect_err("refused");
        assert!(error.contains(variable), "{error}");
    }

    #[rstest]
    #[case(&["--plane", "http://192.0.2.1"], false)]
    #[case(&["--plane", "http://192.0.2.1", "--plane-insecure"], true)]
    #[case(&["--plane", "http://127.0.0.1"], true)]
    #[case(&["--plane", "https://192.0.2.1"], true)]
    #[case(&[], false)]
    fn the_token_travels_in_the_clear_only_when_told_so(
        #[case] flags: &[&str],
        #[case] fine: bool,
    ) {
        let url = parse(flags).expect("parses").plane.url();
        assert_eq!(url.is_ok(), fine, "{url:?}");
    }

    #[rstest]
    #[case("10.8.0.0/31", "/30 or shorter")]
    #[case("10.8.0.0/32", "/30 or shorter")]
    #[case("10.0.0.0/7", "/8 or longer")]
    fn a_range_that_is_no_pool_says_what_is(#[case] subnet: &str, #[case] advice: &str) {
        let config = parse(&["--vpn-subnet", subnet]).expect("a network");
        let error = config.pool().expect_err("refused").to_string();
        assert!(
            error.contains("VPN_SUBNET") && error.contains(advice),
            "{error}"
        );
    }

    #[rstest]
    #[case("10.8.0.0/30", 1, "fd70:7276:706e::/126")]
    #[case("10.8.0.0/29", 5, "fd70:7276:706e::/125")]
    #[case("10.0.0.0/8", 16_777_213, "fd70:7276:706e::/104")]
    fn every_range_has_a_twin(#[case] subnet: &str, #[case] capacity: u32, #[case] twin: &str) {
        let config = parse(&["--vpn-subnet", subnet]).expect("valid");
        assert_eq!(config.pool().expect("a pool").capacity(), capacity);
        assert_eq!(config.network.subnet_v6(), twin.parse().ok());
    }

    #[test]
    fn endpoints_are_scrubbed_when_told_so() {
        assert!(!parse(&[]).expect("defaults").wireguard.scrub_endpoints);
        let config = parse(&["--scrub-endpoints"]).expect("valid");
        assert!(config.wireguard.scrub_endpoints);
    }

    #[test]
    fn routed_packets_need_a_prefix_of_their_own() {
        let setup = |flags: &[&str]| parse(flags).expect("parses").firewall();
        for flags in [&[][..], &["--vpn-subnet-v6", "none"]] {
            let error = setup(&[flags, &["--ipv6-mode", "routed"]].concat());
            let error = error.expect_err("refused").to_string();
            assert!(
                error.contains("IPV6_MODE") && error.contains("VPN_SUBNET_V6"),
                "{error}"
            );
            assert_eq!(setup(flags).expect("valid").ipv6, Ipv6Mode::Nat);
        }
        let flags = [
            "--ipv6-mode",
            "routed",
            "--vpn-subnet-v6",
            "2001:db8:1:2::/112",
        ];
        assert_eq!(setup(&flags).expect("valid").ipv6, Ipv6Mode::Routed);
    }

    #[test]
    fn lists_and_endpoints_are_read() {
        let config = parse(&[
            "--forward-deny",
            "198.51.100.0/24, tcp/6667,203.0.113.7 tcp/443",
            "--forward-allow",
            "10.0.0.0/8, fd00::/8,",
            "--public-endpoint",
            "[2001:db8::1]:51820",
        ])
        .expect("valid");
        assert_eq!(config.network.forward_allow.0.len(), 2);
        assert_eq!(config.network.forward_deny.0.len(), 3);
        assert_eq!(
            config.wireguard.endpoint().expect("set"),
            "[2001:db8::1]:51820"
        );
        assert!(parse(&[]).expect("defaults").wireguard.endpoint().is_err());
    }
}
