//! What this host needs to be a VPN node, item by item, each with how to mend it.

use std::fs::{self, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use crate::config::Config;
use crate::control::{Request, Response, ask};
use crate::firewall::{Firewall, FirewallError};
use crate::host::forwarding::Forwarding;
use crate::host::{default_uplink, speed_of};
use crate::ledger::{self, Ledger, LedgerError};
use crate::link::{LinkState, causes, client};
use crate::probe;
use crate::wireguard::{Backend, kernel, userspace};

/// The bit of CAP_NET_ADMIN in the kernel's capability sets.
const CAP_NET_ADMIN: u32 = 12;
/// Further apart, tokens and expiries mean different things to node and plane.
const CLOCK_TOLERANCE: TimeDelta = TimeDelta::seconds(30);
const TOKEN_SHORT: TimeDelta = TimeDelta::hours(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Ok,
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Item {
    pub name: &'static str,
    pub level: Level,
    pub detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

impl Item {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            name,
            level: Level::Ok,
            detail: detail.into(),
            mend: None,
        }
    }

    fn warn(name: &'static str, detail: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            level: Level::Warn,
            mend: Some(mend.into()),
            ..Self::ok(name, detail)
        }
    }

    fn fail(name: &'static str, detail: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            level: Level::Fail,
            ..Self::warn(name, detail, mend)
        }
    }
}

/// Looks at everything. Changes nothing on the host.
pub async fn examine(config: &Config) -> Vec<Item> {
    let mut items = vec![capability()];
    items.extend(wireguard(config).await);
    items.extend(forwarding(config));
    items.push(firewall(config).await);
    items.push(port(config));
    items.push(round_trips(probe::permitted()));
    items.push(uplink(config));
    items.push(state_dir(&config.state_dir));
    items.extend(plane(config).await);
    items.extend(enrolment(config).await);
    items
}

fn capability() -> Item {
    const NAME: &str = "capability";
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    match has_capability(&status, CAP_NET_ADMIN) {
        Some(true) => Item::ok(NAME, "CAP_NET_ADMIN"),
        _ => Item::fail(
            NAME,
            "CAP_NET_ADMIN is missing",
            "run as root, or start the service with AmbientCapabilities=CAP_NET_ADMIN",
        ),
    }
}

/// Reads the effective set in `/proc/<pid>/status`.
fn has_capability(status: &str, capability: u32) -> Option<bool> {
    let set = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    let set = u64::from_str_radix(set.trim(), 16).ok()?;
    Some((set >> capability) & 1 == 1)
}

async fn wireguard(config: &Config) -> Vec<Item> {
    const NAME: &str = "wireguard";
    let program = &config.wireguard.wireguard_go;
    let in_kernel = kernel::available().await;
    let backend = config.wireguard.backend;
    match (backend, in_kernel) {
        (Backend::Auto | Backend::Kernel, Ok(())) => vec![Item::ok(NAME, "in the kernel")],
        (Backend::Kernel, Err(error)) => vec![Item::fail(
            NAME,
            error.to_string(),
            "modprobe wireguard (Debian: it is part of linux-image-amd64), or BACKEND=userspace",
        )],
        (Backend::Auto | Backend::Userspace, _) => {
            let item = match userspace::available(program).await {
                Ok(()) if backend == Backend::Userspace => Item::ok(NAME, "userspace"),
                Ok(()) => Item::warn(
                    NAME,
                    "in userspace only, which is slower",
                    "modprobe wireguard",
                ),
                Err(error) => Item::fail(
                    NAME,
                    error.to_string(),
                    "modprobe wireguard, or apt-get install wireguard-go",
                ),
            };
            vec![item, tun()]
        }
    }
}

fn tun() -> Item {
    const NAME: &str = "tun";
    let path = "/dev/net/tun";
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(_) => Item::ok(NAME, path),
        Err(error) => Item::fail(
            NAME,
            format!("{path}: {error}"),
            "modprobe tun, and in a container pass the device through",
        ),
    }
}

fn forwarding(config: &Config) -> Vec<Item> {
    let v6 = config.network.subnet_v6().map(|_| Forwarding::V6);
    std::iter::once(Forwarding::V4)
        .chain(v6)
        .map(|switch| {
            let name = match switch {
                Forwarding::V4 => "forwarding",
                Forwarding::V6 => "forwarding_v6",
            };
            match switch.is_enabled() {
                Ok(true) => Item::ok(name, format!("{switch} = 1")),
                Ok(false) => Item::warn(
                    name,
                    format!("{switch} = 0"),
                    format!("sysctl -w {switch}=1; the agent tries it when it starts"),
                ),
                Err(error) => Item::fail(name, error.to_string(), format!("sysctl -w {switch}=1")),
            }
        })
        .collect()
}

async fn firewall(config: &Config) -> Item {
    const NAME: &str = "nftables";
    match Firewall::new(config.wireguard.interface.clone())
        .present()
        .await
    {
        Ok(true) => Item::ok(NAME, "our table is there"),
        Ok(false) => Item::ok(NAME, "our table is made when the agent starts"),
        Err(error @ FirewallError::Execute(_)) => {
            Item::fail(NAME, error.to_string(), "apt-get install nftables")
        }
        Err(error) => Item::fail(
            NAME,
            error.to_string(),
            "run as root or with CAP_NET_ADMIN; the kernel needs nf_tables",
        ),
    }
}

fn port(config: &Config) -> Item {
    const NAME: &str = "port";
    let port = config.wireguard.port;
    let interface = config.wireguard.interface.as_str();
    match UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)) {
        Ok(_) => Item::ok(NAME, format!("UDP {port} is free")),
        Err(_) if Path::new("/sys/class/net").join(interface).exists() => Item::ok(
            NAME,
            format!("UDP {port} is in use while {interface} is up"),
        ),
        Err(error) => Item::fail(
            NAME,
            format!("UDP {port}: {error}"),
            format!("find its user with `ss -lunp sport = {port}`, or set WIREGUARD_PORT"),
        ),
    }
}

fn round_trips(permitted: io::Result<()>) -> Item {
    const NAME: &str = "round_trips";
    match permitted {
        Ok(()) => Item::ok(NAME, "echoes can be sent to clients"),
        Err(error) => Item::warn(
            NAME,
            format!("no echo can be sent to clients: {error}"),
            "sysctl -w net.ipv4.ping_group_range=\"0 2147483647\" (systemd/sysctl.d has it)",
        ),
    }
}

/// Load against the uplink's capacity needs to know the capacity.
fn uplink(config: &Config) -> Item {
    const NAME: &str = "uplink";
    let named = config.network.uplink.as_ref().map(ToString::to_string);
    let Some(uplink) = named.or_else(default_uplink) else {
        return Item::warn(
            NAME,
            "there is no default route, so its rates are not measured",
            "set UPLINK to the interface that leads to the internet",
        );
    };
    match config.network.uplink_capacity.or_else(|| speed_of(&uplink)) {
        Some(bits) => Item::ok(NAME, format!("{uplink}, {} Mbit/s", bits / 1_000_000)),
        None => Item::warn(
            NAME,
            format!("{uplink} does not tell its speed, so its rates are no part of the load"),
            "set UPLINK_CAPACITY in bits a second",
        ),
    }
}

fn state_dir(directory: &Path) -> Item {
    const NAME: &str = "state_dir";
    let shown = directory.display();
    if !directory.exists() {
        return Item::warn(
            NAME,
            format!("{shown} is not there yet"),
            "`node-agent enroll` makes it",
        );
    }
    let probe = directory.join(format!(".check-{}", std::process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&probe)
        .and_then(|_| fs::remove_file(&probe));
    match written {
        Ok(()) => Item::ok(NAME, format!("{shown} is writable")),
        Err(error) => Item::fail(
            NAME,
            format!("{shown}: {error}"),
            "check its owner and the disk's free space, or set STATE_DIR",
        ),
    }
}

/// Reachability, and how far the clocks are apart: the answer's Date header tells.
async fn plane(config: &Config) -> Vec<Item> {
    const NAME: &str = "plane";
    let fix = "check PLANE_URL, PLANE_CA_FILE, DNS and the way out of this host";
    let (url, tls) = match (config.plane.url(), config.plane.tls()) {
        (Ok(url), Ok(tls)) => (url, tls),
        (Err(error), _) | (_, Err(error)) => {
            return vec![Item::fail(NAME, error.to_string(), "set it and run again")];
        }
    };
    let answer = match client(tls) {
        Ok(client) => client.get(url.http("/health")).send().await,
        Err(error) => Err(error),
    };
    match answer {
        Err(error) => vec![Item::fail(NAME, causes(&error), fix)],
        Ok(answer) => {
            let status = answer.status();
            let reached = if status.is_success() {
                Item::ok(NAME, format!("{url} answers"))
            } else {
                Item::warn(NAME, format!("{url} answers {status}"), fix)
            };
            let date = answer.headers().get("date").and_then(|it| it.to_str().ok());
            vec![reached, clock(date, Utc::now())]
        }
    }
}

fn clock(date: Option<&str>, now: DateTime<Utc>) -> Item {
    const NAME: &str = "clock";
    let Some(theirs) = date.and_then(|it| DateTime::parse_from_rfc2822(it).ok()) else {
        return Item::warn(NAME, "the plane does not tell the time", "compare by hand");
    };
    let off = now.signed_duration_since(theirs);
    if off.abs() <= CLOCK_TOLERANCE {
        Item::ok(NAME, format!("{} s from the plane's", off.num_seconds()))
    } else {
        Item::fail(
            NAME,
            format!("{} s from the plane's", off.num_seconds()),
            "timedatectl set-ntp true",
        )
    }
}

async fn enrolment(config: &Config) -> Vec<Item> {
    const NAME: &str = "enrolment";
    let mend = "`node-agent enroll` with a token of `control-plane node enrolment-token`";
    if let Ok(Response::Status(status)) =
        ask(&config.run_dir.control_socket(), &Request::Status).await
    {
        let session = &status.session;
        let connected = matches!(session.state, LinkState::Connected { .. });
        let detail = format!("server {}, the agent runs", session.server_id);
        let item = match (&session.last_error, connected) {
            (Some(error), false) => Item::warn(
                NAME,
                format!("{detail}, but: {error}"),
                "look at its log; tunnels stay up meanwhile",
            ),
            _ => Item::ok(NAME, detail),
        };
        return vec![item, token(session.token_expires_at, Utc::now())];
    }
    let [file, ..] = ledger::files(&config.state_dir);
    if !file.exists() {
        return vec![Item::fail(NAME, "not enrolled", mend)];
    }
    match Ledger::open(&config.state_dir) {
        Ok((_, stored)) => match stored.identity {
            Some(identity) => vec![
                Item::ok(NAME, format!("server {}", identity.server_id)),
                token(identity.token.expires_at, Utc::now()),
            ],
            None => vec![Item::fail(NAME, "not enrolled", mend)],
        },
        Err(LedgerError::InUse(_)) => vec![Item::warn(
            NAME,
            "the agent runs and does not answer",
            "look at its log",
        )],
        Err(error) => vec![Item::fail(NAME, error.to_string(), mend)],
    }
}

fn token(expires_at: DateTime<Utc>, now: DateTime<Utc>) -> Item {
    const NAME: &str = "token";
    let detail = format!("expires at {expires_at}");
    if expires_at <= now {
        Item::fail(
            NAME,
            format!("expired at {expires_at}"),
            "stop the agent, enrol again and start it; tunnels stay up",
        )
    } else if expires_at - now < TOKEN_SHORT {
        Item::warn(NAME, detail, "start the agent: it renews the token")
    } else {
        Item::ok(NAME, detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("Name:\tx\nCapEff:\t0000000000001000\n", Some(true))]
    #[case("CapPrm:\t0000000000001000\nCapEff:\t0000000000000000\n", Some(false))]
    #[case("CapEff:\t000001ffffffffff\n", Some(true))]
    #[case("CapEff:\tnothing\n", None)]
    #[case("", None)]
    fn reads_the_effective_capabilities(#[case] status: &str, #[case] has: Option<bool>) {
        assert_eq!(has_capability(status, CAP_NET_ADMIN), has);
    }

    fn now() -> DateTime<Utc> {
        "2026-03-01T12:00:00Z".parse().expect("a time")
    }

    #[rstest]
    #[case(Some("Sun, 01 Mar 2026 12:00:00 GMT"), Level::Ok)]
    #[case(Some("Sun, 01 Mar 2026 12:00:30 GMT"), Level::Ok)]
    #[case(Some("Sun, 01 Mar 2026 11:59:29 GMT"), Level::Fail)]
    #[case(Some("yesterday"), Level::Warn)]
    #[case(None, Level::Warn)]
    fn the_clock_may_be_half_a_minute_off(#[case] date: Option<&str>, #[case] level: Level) {
        assert_eq!(clock(date, now()).level, level);
    }

    #[rstest]
    #[case(TimeDelta::hours(20), Level::Ok)]
    #[case(TimeDelta::minutes(59), Level::Warn)]
    #[case(TimeDelta::zero(), Level::Fail)]
    fn a_token_is_judged_by_its_end(#[case] left: TimeDelta, #[case] level: Level) {
        assert_eq!(token(now() + left, now()).level, level);
    }

    #[test]
    fn what_round_trips_need_is_said() {
        assert_eq!(round_trips(Ok(())).level, Level::Ok);
        let refused = round_trips(Err(io::ErrorKind::PermissionDenied.into()));
        assert_eq!(refused.level, Level::Warn);
        assert!(refused.mend.expect("told").contains("ping_group_range"));
    }

    #[rstest]
    #[case(&["--uplink", "lo"], Level::Warn, "UPLINK_CAPACITY")]
    #[case(&["--uplink", "lo", "--uplink-capacity", "2500000000"], Level::Ok, "2500 Mbit/s")]
    fn an_uplink_without_a_speed_wants_a_capacity(
        #[case] flags: &[&str],
        #[case] level: Level,
        #[case] says: &str,
    ) {
        #[derive(Debug, clap::Parser)]
        struct Cli {
            #[command(flatten)]
            config: Config,
        }
        let flags = std::iter::once(&"test").chain(flags);
        let cli: Cli = clap::Parser::try_parse_from(flags).expect("valid");
        let item = uplink(&cli.config);
        assert_eq!(item.level, level);
        let text = format!("{} {}", item.detail, item.mend.unwrap_or_default());
        assert!(text.contains(says), "{text}");
    }

    #[test]
    fn a_state_directory_is_probed_and_left_as_it_was() {
        let directory = tempfile::tempdir().expect("directory");
        assert_eq!(state_dir(directory.path()).level, Level::Ok);
        assert_eq!(fs::read_dir(directory.path()).expect("there").count(), 0);
        assert_eq!(state_dir(&directory.path().join("none")).level, Level::Warn);
        let file = directory.path().join("file");
        fs::write(&file, "").expect("written");
        assert_eq!(state_dir(&file).level, Level::Fail);
    }
}
