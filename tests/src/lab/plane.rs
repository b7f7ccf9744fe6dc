//! The control plane as a process, with TLS as in production.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::unistd::Pid;

use crate::api::Client;
use crate::redis::{free_port, shared_url};
use crate::{init, wait_until};

use super::process::{Process, binary};

/// What a plane is started with.
#[derive(Debug, Clone)]
pub struct PlaneSettings {
    pub address: Ipv4Addr,
    pub database_url: String,
    /// TLS makes the node's wire what it is in production; a bench does without.
    pub tls: bool,
    /// Further variables.
    pub more: Vec<(&'static str, String)>,
}

/// A running `control-plane serve`.
#[derive(Debug)]
pub struct Plane {
    process: Process,
    folder: PathBuf,
    url: String,
    root: Option<String>,
    environment: BTreeMap<String, String>,
}

impl Plane {
    /// Starts it over a migrated database and waits until it is ready.
    pub async fn start(folder: &Path, settings: &PlaneSettings) -> Self {
        init();
        let port = free_port();
        let mut environment = environment(settings, port);
        let (scheme, root) = if settings.tls {
            (
                "https",
                Some(certificates(folder, settings.address, &mut environment)),
            )
        } else {
            ("http", None)
        };
        let plane = Self {
            process: spawn(folder, &environment),
            folder: folder.to_owned(),
            url: format!("{scheme}://{}:{port}", settings.address),
            root,
            environment,
        };
        plane.ready().await
    }

    async fn ready(mut self) -> Self {
        let client = self.client();
        wait_until("the plane is ready", Duration::from_secs(30), async || {
            assert!(
                self.process.is_running(),
                "the plane ended:\n{}",
                self.process.output()
            );
            client.is_ready().await
        })
        .await;
        self
    }

    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where it tells its metrics.
    #[must_use]
    pub fn metrics_url(&self) -> String {
        let port = self.environment.get("METRICS_PORT").expect("a port");
        format!("http://127.0.0.1:{port}")
    }

    #[must_use]
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// The environment it was started with.
    #[must_use]
    pub fn environment(&self) -> &BTreeMap<String, String> {
        &self.environment
    }

    /// The file with the certificate that signs the plane's.
    #[must_use]
    pub fn root_file(&self) -> PathBuf {
        self.folder.join("plane.pem")
    }

    #[must_use]
    pub fn client(&self) -> Client {
        match &self.root {
            Some(root) => Client::trusting(&self.url, root),
            None => Client::new(&self.url),
        }
    }

    /// `kill -9`. [`Plane::restart`] brings it back.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Whether the process is there.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Starts the process again, as a supervisor does: whether it comes up is another question.
    pub fn run(&mut self) {
        self.process.kill();
        self.process = spawn(&self.folder, &self.environment);
    }

    /// The same plane on the same port.
    pub async fn restart(mut self) -> Self {
        self.run();
        self.ready().await
    }

    /// Runs one of the plane's own commands.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let output = Command::new(binary("CONTROL_PLANE_BIN", "control-plane"))
            .args(arguments)
            .env_clear()
            .envs(&self.environment)
            .current_dir(&self.folder)
            .output()
            .expect("the plane's program runs");
        assert!(
            output.status.success(),
            "control-plane {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// A token that enrols this host, from the command that operators use.
    #[must_use]
    pub fn enrolment_token(&self, hostname: &str) -> String {
        let place = [
            "--country",
            "Germany",
            "--country-code",
            "DE",
            "--city",
            "Frankfurt",
        ];
        let command = ["node", "enrolment-token", "--hostname", hostname];
        let location = ["--location", "eu-central"];
        self.cli(&[&command[..], &place, &location].concat())
    }
}

fn environment(settings: &PlaneSettings, port: u16) -> BTreeMap<String, String> {
    let address = settings.address.to_string();
    let hosts = format!("{address},127.0.0.1,localhost");
    let (port, metrics_port) = (port.to_string(), free_port().to_string());
    let own = settings.more.iter().any(|(name, _)| *name == "REDIS_URL");
    let redis = if own { String::new() } else { shared_url() };
    let fixed = [
        ("DATABASE_URL", settings.database_url.as_str()),
        ("REDIS_URL", &redis),
        ("HOST", &address),
        ("PORT", &port),
        ("METRICS_PORT", &metrics_port),
        ("ALLOWED_HOSTS", &hosts),
        // Whoever calls it is a test, and few are about protection.
        ("DDOS_WHITELIST_IPS", "0.0.0.0/0,::/0"),
        ("SECRET_KEY", "a-secret-of-the-tests-that-is-long-enough"),
        ("JWT_SECRET_KEY", "another-secret-of-the-tests-long-enough"),
        ("RUST_LOG", "info"),
        (
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        ),
    ];
    let more = settings
        .more
        .iter()
        .map(|(name, value)| (*name, value.as_str()));
    fixed
        .into_iter()
        .chain(more)
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn spawn(folder: &Path, environment: &BTreeMap<String, String>) -> Process {
    let mut command = Command::new(binary("CONTROL_PLANE_BIN", "control-plane"));
    command
        .arg("serve")
        .env_clear()
        .envs(environment)
        .current_dir(folder);
    Process::spawn("control-plane", folder, &mut command)
}

/// Writes a certificate for the address and names its files; gives what a client must trust.
fn certificates(
    folder: &Path,
    address: Ipv4Addr,
    environment: &mut BTreeMap<String, String>,
) -> String {
    let names = vec![
        address.to_string(),
        "127.0.0.1".to_owned(),
        "localhost".to_owned(),
    ];
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate can be made");
    let certificate = made.cert.pem();
    for (variable, name, text) in [
        ("TLS_CERT_FILE", "plane.pem", certificate.clone()),
        (
            "TLS_KEY_FILE",
            "plane.key",
            made.signing_key.serialize_pem(),
        ),
    ] {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("the certificate can be written");
        environment.insert(variable.to_owned(), path.display().to_string());
    }
    certificate
}
