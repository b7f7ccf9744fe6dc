//! `node-agent run`: puts the parts together, and takes them apart in the right order.
//!
//! The service is ready when the interface stands as the ledger wants it, plane or not: a node that
//! comes up while the plane is down serves its clients.

use std::future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::config::Config;
use crate::control::Server;
use crate::firewall::{Firewall, Keeper, Memory};
use crate::host::LoadSampler;
use crate::host::forwarding::Forwarding;
use crate::ledger::{self, Lock};
use crate::limits::NftTable;
use crate::link::{Backoff, Link, LinkConfig};
use crate::probe::Prober;
use crate::reconcile::{Ahead, Node, NodeConfig, NodeError, NodeHandle, SCRUB_AFTER};
use crate::wireguard::{self, InterfaceSetup};

const RECONCILE_EVERY: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(15);
/// To say farewell to the plane.
const GRACE: Duration = Duration::from_secs(5);

/// There is no identity to serve with.
#[derive(Debug, thiserror::Error)]
#[error("this node is not enrolled; run `node-agent enroll` first")]
pub(super) struct NotEnrolled;

pub(super) async fn execute(config: Config) -> anyhow::Result<()> {
    let plane = config.plane.url()?;
    let tls = Arc::new(config.plane.tls()?);
    let endpoint = config.wireguard.endpoint()?;
    let pool = config.pool()?;
    let boot_id = boot_id()?;
    // Before anything is read: an agent that has not ended yet changes ledger and interface together.
    let lock = Lock::take(&config.state_dir)?;
    let device = wireguard::open(
        config.wireguard.backend,
        config.wireguard.interface.clone(),
        config.wireguard.wireguard_go.clone(),
    )
    .await;
    let ahead = match &device {
        Ok(device) => Some(Ahead::begin(device).await),
        Err(_) => None,
    };
    let (ledger, stored) = lock.open()?;
    let identity = stored.identity.clone().ok_or(NotEnrolled)?;

    let addresses = pool.node_addresses();
    let rules = config.firewall()?;
    forward(config.network.subnet_v6().is_some());
    let firewall = Firewall::new(config.wireguard.interface.clone());
    // Before the interface: no client is ever there without isolation.
    let memory = Memory::within(&config.state_dir);
    let firewall = Keeper::start(firewall, rules, memory)
        .await
        .context("firewall")?;
    let device = device?;
    let setup = InterfaceSetup {
        private_key: ledger::private_key(&config.state_dir)?,
        listen_port: config.wireguard.port,
        addresses,
        mtu: config.wireguard.mtu,
    };
    let prober = Prober::start(config.wireguard.interface.clone(), &setup.addresses);
    let node = NodeConfig {
        setup,
        pool,
        boot_id,
        reconcile_every: RECONCILE_EVERY,
        limits: Arc::new(NftTable::new(config.wireguard.interface.clone())),
    };
    let mut node = Node::start_from(ledger, stored, device, node, ahead).await?;
    if config.wireguard.scrub_endpoints {
        node = node.scrubbing(SCRUB_AFTER);
    }
    let (handle, commands) = NodeHandle::new();
    let node = tokio::spawn(node.run(commands));

    let uplink = config.network.uplink.as_ref().map(ToString::to_string);
    let sampler = LoadSampler::new(uplink, config.network.uplink_capacity, Instant::now());
    let link = LinkConfig {
        plane,
        tls,
        endpoint,
        subnet: config.network.vpn_subnet,
        subnet_v6: config.network.subnet_v6(),
        boot_id,
        silence: SILENCE,
        backoff: Backoff::default(),
    };
    let (link, status) = Link::new(link, identity, handle.clone(), sampler);
    let link = link.probing(prober);
    let (repairs, look) = (firewall.repairs(), Arc::new(Notify::new()));
    let socket = config.run_dir.control_socket();
    let control = Server::bind(&socket, handle.clone(), status, repairs)?;
    let helpers = [
        tokio::spawn(control.run()),
        tokio::spawn(firewall.run(RECONCILE_EVERY, Arc::clone(&look))),
        tokio::spawn(watchdog(handle.clone())),
    ];
    notify(NotifyState::Ready);
    let stop = CancellationToken::new();
    let link = tokio::spawn(link.run(stop.clone()));
    let ended = serve(&handle, &look, node).await;
    notify(NotifyState::Stopping);
    stop.cancel();
    if timeout(GRACE, link).await.is_err() {
        warn!(event = "farewell_cut_short");
    }
    for helper in helpers {
        helper.abort();
    }
    match ended {
        End::Node(result) => result?.map_err(Into::into),
        End::Signal(node) => {
            // It may have ended by itself in between; its result says so.
            let _ = handle.stop().await;
            node.await??;
            info!(event = "stopped", interface = "stays");
            Ok(())
        }
    }
}

enum End {
    Signal(JoinHandle<Result<(), NodeError>>),
    Node(Result<Result<(), NodeError>, tokio::task::JoinError>),
}

/// Until a signal ends the agent, or the node cannot go on.
async fn serve(
    handle: &NodeHandle,
    firewall: &Notify,
    mut node: JoinHandle<Result<(), NodeError>>,
) -> End {
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hang_up)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
        signal(SignalKind::hangup()),
    ) else {
        error!(event = "signals_not_available");
        return End::Signal(node);
    };
    loop {
        tokio::select! {
            _ = terminate.recv() => return End::Signal(node),
            _ = interrupt.recv() => return End::Signal(node),
            _ = hang_up.recv() => {
                info!(event = "reconcile_requested");
                firewall.notify_one();
                if handle.reconcile().await.is_err() {
                    warn!(event = "node_gone");
                }
            }
            result = &mut node => return End::Node(result),
        }
    }
}

/// Packets of clients are of no use to a host that does not forward; the preflight says so too.
fn forward(v6: bool) {
    for switch in [Some(Forwarding::V4), v6.then_some(Forwarding::V6)]
        .into_iter()
        .flatten()
    {
        if let Err(error) = switch.enable() {
            error!(event = "forwarding_off", %error);
        }
    }
}

/// Tells systemd that the agent lives, as long as the node answers.
async fn watchdog(node: NodeHandle) {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return future::pending().await;
    };
    let mut periodic = interval(limit / 3);
    loop {
        periodic.tick().await;
        if timeout(limit / 3, node.status())
            .await
            .is_ok_and(|it| it.is_ok())
        {
            notify(NotifyState::Watchdog);
        }
    }
}

fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        warn!(event = "service_manager_not_told", %error);
    }
}

fn boot_id() -> anyhow::Result<Uuid> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(path).context(path)?;
    text.trim().parse().context(path)
}
