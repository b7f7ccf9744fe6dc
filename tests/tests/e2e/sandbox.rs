//! The agent with exactly what its systemd unit allows: capabilities, user, system calls, places to
//! write. `scripts/lib/confine.py` reads them from the unit file and applies them without systemd.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tests::lab::{Agent, Backend, Stage, World, binary, run, try_run};
use tests::wait_until;

const SOON: Duration = Duration::from_secs(15);
const PING: Duration = Duration::from_millis(100);
/// The bits of capabilities in `/proc/<pid>/status`.
const BITS: [(&str, u32); 2] = [("CAP_NET_ADMIN", 12), ("CAP_NET_RAW", 13)];

fn repository() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package
        .parent()
        .expect("the package lies in the repository")
}

fn unit() -> PathBuf {
    repository().join("systemd/prime-node-agent.service")
}

/// The words of a setting of the unit.
fn setting(name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(unit()).expect("the unit can be read");
    let values = text
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    values
        .flat_map(str::split_ascii_whitespace)
        .map(ToOwned::to_owned)
        .collect()
}

/// What systemd-sysusers would give the unit's user on this machine, without making it.
fn user(folder: &Path) -> (u32, u32) {
    let root = folder.join("sysusers");
    std::fs::create_dir_all(root.join("etc")).expect("a folder");
    for file in ["passwd", "group"] {
        let copy = root.join("etc").join(file);
        std::fs::copy(Path::new("/etc").join(file), copy).expect("a copy");
    }
    let lines = repository().join("systemd/sysusers.d/prime-node-agent.conf");
    let lines = std::fs::read(lines).expect("the line can be read");
    let mut sysusers = Command::new("systemd-sysusers")
        .arg(format!("--root={}", root.display()))
        .arg("-")
        .stdin(Stdio::piped())
        .spawn()
        .expect("systemd-sysusers runs");
    let mut input = sysusers.stdin.take().expect("piped");
    input.write_all(&lines).expect("it reads");
    drop(input);
    assert!(sysusers.wait().expect("it ends").success());
    let name = setting("User").concat();
    let users = std::fs::read_to_string(root.join("etc/passwd")).expect("it is there");
    let line = users
        .lines()
        .find(|line| line.starts_with(&format!("{name}:")));
    let fields: Vec<_> = line
        .expect("the unit's user is in sysusers.d")
        .split(':')
        .collect();
    let number = |field: usize| fields[field].parse().expect("a number");
    (number(2), number(3))
}

/// The agent's places, and the command line that keeps it in them.
struct Sandbox {
    folder: PathBuf,
    ids: (u32, u32),
}

impl Sandbox {
    fn new(folder: &Path, interface: &str) -> Self {
        let ids = user(folder);
        // The user passes through; only its own places open for it.
        let passable = std::fs::Permissions::from_mode(0o711);
        std::fs::set_permissions(folder, passable).expect("our folder");
        for (setting, place) in [
            ("StateDirectoryMode", "state"),
            ("RuntimeDirectoryMode", "run"),
        ] {
            let mode = self::setting(setting).concat();
            make(&folder.join(place), &mode, ids);
        }
        make(&folder.join("sockets"), "0700", ids);
        std::fs::write(folder.join("node-agent"), "").expect("where the program appears");
        // Where `wg` looks, which runs outside.
        std::fs::create_dir_all("/run/wireguard").expect("root may");
        let socket = format!("{interface}.sock");
        let link = Path::new("/run/wireguard").join(&socket);
        symlink(folder.join("sockets").join(&socket), link).expect("its name is its own");
        let folder = folder.to_owned();
        Self { folder, ids }
    }

    fn confine(&self, agent: &mut Agent, without: Option<&str>) {
        let path = |name: &str| self.folder.join(name).display().to_string();
        let confine = repository().join("scripts/lib/confine.py");
        let program = binary("NODE_AGENT_BIN", "node-agent");
        let mut words = vec![
            "python3".to_owned(),
            confine.display().to_string(),
            unit().display().to_string(),
            format!("--user={}:{}", self.ids.0, self.ids.1),
        ];
        for (from, to) in [
            (path("sockets"), "/run/wireguard".to_owned()),
            (program.display().to_string(), path("node-agent")),
        ] {
            words.extend(["--bind".to_owned(), from, to]);
        }
        for place in ["state", "run"] {
            words.extend(["--writable".to_owned(), path(place)]);
        }
        if let Some(capability) = without {
            words.push(format!("--without={capability}"));
        }
        words.push("--".to_owned());
        agent.confine(words, self.folder.join("node-agent"));
    }
}

fn make(path: &Path, mode: &str, (user, group): (u32, u32)) {
    let mode = u32::from_str_radix(mode, 8).expect("an octal mode");
    let made = std::fs::DirBuilder::new().mode(mode).create(path);
    made.expect("a folder");
    chown(path, Some(user), Some(group)).expect("root may");
}

fn in_node(stage: &Stage, words: &[&str]) -> String {
    run(
        "ip",
        &[&["netns", "exec", &stage.world.node()], words].concat(),
    )
}

/// Held against `/proc/<pid>/status`, so that the test cannot pass with more than the unit gives.
fn assert_confined(agent: &Agent, ids: (u32, u32)) {
    let pid = agent.pid().expect("it runs");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let value = |name: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.expect("the kernel tells").trim().to_owned()
    };
    let set = |names: &[String]| -> u64 {
        let bit = |name: &String| {
            let known = BITS.iter().find(|(known, _)| known == name);
            1 << known.unwrap_or_else(|| panic!("say {name}'s bit here")).1
        };
        names.iter().map(bit).sum()
    };
    let (ambient, bounding) = (
        setting("AmbientCapabilities"),
        setting("CapabilityBoundingSet"),
    );
    for (name, names) in [
        ("CapBnd", &bounding),
        ("CapAmb", &ambient),
        ("CapEff", &ambient),
        ("CapPrm", &ambient),
    ] {
        let actual = u64::from_str_radix(&value(name), 16).expect("hexadecimal");
        assert_eq!(actual, set(names), "{name}");
    }
    assert_eq!(value("NoNewPrivs"), "1");
    assert_eq!(value("Seccomp"), "2", "filtered");
    assert!(
        value("Uid").starts_with(&ids.0.to_string()),
        "{}",
        value("Uid")
    );
    assert_eq!(value("Groups"), "", "no other groups");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_does_its_whole_job_with_what_the_unit_allows_and_nothing_more() {
    let mut sandbox = None;
    let mut stage = Stage::with_agent(Backend::Userspace, |agent, world, folder| {
        let made = Sandbox::new(folder, &world.interface("n"));
        made.confine(agent, None);
        sandbox = Some(made);
    })
    .await;
    let sandbox = sandbox.expect("made");
    assert_confined(&stage.agent, sandbox.ids);

    // Peer, addresses, firewall, forwarding, counters.
    let client = stage.client().await;
    let tunnel = stage.tunnel(&client).await;
    let target = World::INTERNET.to_string();
    assert!(client.pings(&target, SOON), "IPv4 through the tunnel");
    assert!(
        client.pings(World::INTERNET_V6, SOON),
        "IPv6 through the tunnel"
    );
    stage.wait_counters_agree(1).await;
    assert!(!client.reaches_tcp("10.77.0.1", 22), "isolated");
    in_node(&stage, &["nft", "flush", "ruleset"]);
    wait_until("the table is back", SOON, async || {
        let status = stage.agent.status();
        status.is_some_and(|it| it.firewall_repairs() == 1)
    })
    .await;

    // Drain, as its own user does.
    for (arguments, draining) in [(&["drain"][..], true), (&["undrain"], false)] {
        let output = stage.agent.execute(arguments);
        assert!(output.status.success(), "{output:?}");
        let status = stage.agent.status().expect("it answers");
        assert_eq!(status.0["draining"], draining);
    }

    // Restart: wireguard-go, which it started, goes on, and is found again.
    let ping = client.keep_pinging(&target, PING);
    ping.wait_answers(5).await;
    stage.agent.terminate().await;
    ping.wait_answers(5).await;
    stage.agent.run();
    stage.agent.wait_connected().await;
    ping.wait_answers(5).await;
    let report = ping.stop().await;
    assert!(report.is_whole(), "{report:?}");
    assert_confined(&stage.agent, sandbox.ids);
    let status = stage.agent.status().expect("it answers");
    assert_eq!(status.operations(), 0, "{status:?}");
    stage.user.disconnected(tunnel.connection_id).await;
    assert!(stage.peers().is_empty());

    // The end: nothing of ours is left in the host's network.
    stage.agent.terminate().await;
    let output = stage.agent.execute(&["teardown"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(in_node(&stage, &["nft", "list", "ruleset"]), "");
    let interface = stage.agent.interface();
    wait_until("the interface is gone", SOON, async || {
        let node = stage.world.node();
        let shown = try_run("ip", &["-n", &node, "link", "show", interface]);
        !shown.status.success()
    })
    .await;

    // Nothing is superfluous: without any one of them it cannot do its job.
    for capability in setting("AmbientCapabilities") {
        sandbox.confine(&mut stage.agent, Some(&capability));
        match capability.as_str() {
            "CAP_NET_ADMIN" => {
                let output = stage.agent.execute(&["run"]);
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(!output.status.success(), "without {capability}: {said}");
                assert!(said.contains("Operation not permitted"), "{said}");
            }
            other => panic!("say here what fails without {other}"),
        }
    }
}
