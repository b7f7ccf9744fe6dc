//! A person with one device: wishes come in, requests go out until they are answered, packets flow.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::Utc;
use diesel_async::SimpleAsyncConnection;
use reqwest::Method;
use serde_json::{Value, json};
use shared::ids::{ConnectionId, ServerId};
use shared::wireguard::{PrivateKey, PublicKey};

use super::audit::{Audit, Bytes};
use super::schedule::Wish;
use super::traffic::Traffic;
use super::trail::Trail;
use crate::api::{self, Tunnel};
use crate::lab::{Site, WgClient, dump, try_connect};
use crate::wait::scaled;

/// A request that nobody answers for so long is sent again.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(300);
/// Until a request must have worked, whatever is down meanwhile.
const DEADLINE: Duration = Duration::from_secs(90);
/// For answers that are on their way.
const LATE: Duration = Duration::from_secs(10);
/// For the first answer through a new tunnel.
const HANDSHAKE: Duration = Duration::from_secs(15);
/// Packets whose answers may be on their way while the tunnel lives.
const IN_FLIGHT: usize = 60;

/// What all clients share.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) traffic: Traffic,
    pub(super) audit: Mutex<Audit>,
    pub(super) sites: Vec<Site>,
    pub(super) servers: Vec<ServerId>,
    pub(super) database: String,
    /// What became of tunnels that a client had.
    pub(super) held: Mutex<HashMap<ConnectionId, Held>>,
    pub(super) tally: Mutex<Tally>,
}

/// A tunnel from its client's point of view.
#[derive(Debug, Clone, Default)]
pub(super) struct Held {
    /// With its prefix length. The books may have lost it: a Postgres that is killed takes back the
    /// node's newest acknowledgements, and a connection that ends before the node repeats its word
    /// ends without an address there.
    pub(super) address: String,
    /// The client's own counters after its last packet.
    pub(super) client: Option<Bytes>,
    /// The node's when the client had fallen quiet, just before it asked to end.
    pub(super) quiet: Option<Bytes>,
}

#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) connects: usize,
    pub(super) disconnects: usize,
    pub(super) plans: usize,
    pub(super) packets: usize,
    pub(super) lost: usize,
    pub(super) slowest: Duration,
    /// Answers that were no success, by status; 0 is none at all.
    pub(super) refusals: BTreeMap<u16, usize>,
}

impl Scene {
    pub(super) fn violate(&self, what: String) {
        eprintln!("VIOLATION {}: {what}", Utc::now());
        let mut audit = self.audit.lock().expect("the audit");
        audit.violate(Utc::now(), what);
    }

    pub(super) fn tally(&self, count: impl FnOnce(&mut Tally)) {
        count(&mut self.tally.lock().expect("the tally"));
    }

    fn hold(&self, connection: ConnectionId, change: impl FnOnce(&mut Held)) {
        let mut held = self.held.lock().expect("what is held");
        change(held.entry(connection).or_default());
    }
}

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) lane: usize,
    pub(super) person: api::Client,
    wg: Arc<WgClient>,
    key: PrivateKey,
    scene: Arc<Scene>,
    pub(super) tunnel: Option<Tunnel>,
}

impl Client {
    pub(super) fn new(
        lane: usize,
        person: api::Client,
        wg: Arc<WgClient>,
        scene: &Arc<Scene>,
    ) -> Self {
        Self {
            lane,
            person,
            wg,
            key: PrivateKey::generate(),
            scene: Arc::clone(scene),
            tunnel: None,
        }
    }

    pub(super) fn public_key(&self) -> PublicKey {
        self.key.public_key()
    }

    pub(super) async fn fulfil(&mut self, wish: Wish) {
        match wish {
            Wish::Connect => self.connect(None).await,
            Wish::Move(node) => self.connect(Some(node)).await,
            Wish::Disconnect { quiet } => self.disconnect(quiet).await,
            Wish::Plan { limited } => self.change_plan(limited).await,
        }
    }

    /// Asks until it is connected, there if a node is named.
    pub(super) async fn connect(&mut self, node: Option<usize>) {
        // From here on the old tunnel may end at any moment.
        self.fall_quiet().await;
        let mut body = json!({ "client_public_key": self.public_key() });
        if let (Some(server), Some(body)) = (
            node.and_then(|node| self.scene.servers.get(node)),
            body.as_object_mut(),
        ) {
            body.insert("server_id".to_owned(), json!(server));
        }
        let Some(answer) = self.insist("/api/v1/vpn/connect", &body).await else {
            return;
        };
        let tunnel: Tunnel = serde_json::from_value(answer).expect("a tunnel");
        self.scene.tally(|it| it.connects += 1);
        let same = self
            .tunnel
            .as_ref()
            .is_some_and(|it| it.connection_id == tunnel.connection_id);
        if same {
            self.scene.traffic.resume(self.lane);
        } else {
            self.leave().await;
            let address = format!("{}/32", tunnel.assigned_ip);
            self.scene
                .hold(tunnel.connection_id, |it| it.address = address);
            self.enter(&tunnel).await;
            self.tunnel = Some(tunnel);
        }
    }

    /// Asks until it is not connected.
    async fn disconnect(&mut self, quiet: bool) {
        let Some(tunnel) = self.tunnel.clone() else {
            return;
        };
        if quiet {
            self.fall_quiet().await;
            let seen = self.seen_by_the_node(&tunnel);
            self.scene.hold(tunnel.connection_id, |it| it.quiet = seen);
        } else {
            self.must_be_alive();
        }
        let path = format!("/api/v1/vpn/disconnect/{}", tunnel.connection_id);
        if self.insist(&path, &json!({})).await.is_none() {
            return;
        }
        self.scene.tally(|it| it.disconnects += 1);
        self.scene.traffic.pause(self.lane);
        self.judge(self.scene.traffic.trail(self.lane).until_the_last_answer());
        self.leave().await;
    }

    /// As an operator does it in the database.
    async fn change_plan(&self, limited: bool) {
        let plan = if limited { "limited" } else { "test" };
        let sql = format!(
            "UPDATE subscriptions SET plan_id = '{plan}' WHERE user_id = '{}'",
            self.person.user()
        );
        // Where the database is down there is no change.
        if let Some(mut database) = try_connect(&self.scene.database).await
            && database.batch_execute(&sql).await.is_ok()
        {
            self.scene.tally(|it| it.plans += 1);
        }
    }

    /// Sends nothing more and waits for what is on its way. Whoever has a tunnel that nobody ended
    /// has lost nothing.
    pub(super) async fn fall_quiet(&self) {
        if self.tunnel.is_none() {
            return;
        }
        let traffic = &self.scene.traffic;
        traffic.pause(self.lane);
        let end = Instant::now() + scaled(LATE);
        while !traffic.trail(self.lane).is_quiet() && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.judge(traffic.trail(self.lane));
    }

    fn judge(&self, trail: Trail) {
        let (lost, row) = trail.lost();
        self.scene.tally(|it| {
            it.packets += trail.sent();
            it.lost += lost;
        });
        if row > 1 {
            let (lane, sent) = (self.lane, trail.sent());
            self.scene.violate(format!(
                "client {lane}: {row} packets in a row were lost of {sent}, newest answer {:?}, {:?}",
                trail.newest(),
                self.tunnel.as_ref().map(|it| it.connection_id)
            ));
        }
    }

    pub(super) fn must_be_alive(&self) {
        let trail = self.scene.traffic.trail(self.lane);
        let answered = trail.newest().map_or(0, |newest| newest + 1);
        if trail.sent() > answered + IN_FLIGHT {
            self.judge(trail);
        }
    }

    async fn enter(&self, tunnel: &Tunnel) {
        let private = self.key.expose_base64();
        let config = tunnel
            .wg_config
            .lines()
            .map(|line| match line.starts_with("# PrivateKey") {
                true => format!("PrivateKey = {}\n", private.as_str()),
                false => format!("{line}\n"),
            })
            .collect::<String>();
        let wg = Arc::clone(&self.wg);
        tokio::task::spawn_blocking(move || wg.configure(&config))
            .await
            .expect("the client takes its configuration");
        let traffic = &self.scene.traffic;
        traffic.begin(self.lane);
        let began = Instant::now();
        while !traffic.trail(self.lane).is_open() {
            if began.elapsed() > scaled(HANDSHAKE) {
                let (lane, id) = (self.lane, tunnel.connection_id);
                self.scene
                    .violate(format!("client {lane}: {id} never came up"));
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn leave(&mut self) {
        if let Some(old) = self.tunnel.take() {
            // Else it would greet the node once more after its counters were read.
            self.wg.fall_silent();
            let bytes = self.last_counters().await;
            self.scene
                .hold(old.connection_id, |it| it.client = Some(bytes));
        }
    }

    /// A packet is counted when it has been sent: they have come to rest when two readings agree.
    async fn last_counters(&self) -> Bytes {
        let mut before = self.counters();
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let now = self.counters();
            if now == before {
                return now;
            }
            before = now;
        }
    }

    pub(super) fn counters(&self) -> Bytes {
        let (sent, received) = self.wg.counters();
        Bytes { sent, received }
    }

    fn seen_by_the_node(&self, tunnel: &Tunnel) -> Option<Bytes> {
        let node = self.node_of(tunnel)?;
        let site = self.scene.sites.get(node)?;
        let peers = dump(&site.namespace, &site.interface);
        let peer = peers.iter().find(|it| it.public_key == self.public_key());
        peer.map(Bytes::of)
    }

    pub(super) fn node_of(&self, tunnel: &Tunnel) -> Option<usize> {
        let servers = self.scene.servers.iter();
        servers.clone().position(|it| *it == tunnel.server.id)
    }

    /// Until the answer is a success.
    async fn insist(&self, path: &str, body: &Value) -> Option<Value> {
        let end = Instant::now() + scaled(DEADLINE);
        loop {
            let began = Instant::now();
            let status = match post(&self.person, path, body).await {
                Ok((200, answer)) => {
                    let took = began.elapsed();
                    self.scene.tally(|it| it.slowest = it.slowest.max(took));
                    return Some(answer);
                }
                Ok((status, _)) => status,
                Err(_) => 0,
            };
            self.scene
                .tally(|it| *it.refusals.entry(status).or_default() += 1);
            if Instant::now() > end {
                let lane = self.lane;
                self.scene
                    .violate(format!("client {lane}: {path} never worked: {status}"));
                return None;
            }
            tokio::time::sleep(scaled(PAUSE)).await;
        }
    }
}

/// One request; fails when there is no answer.
pub(super) async fn post(
    person: &api::Client,
    path: &str,
    body: &Value,
) -> reqwest::Result<(u16, Value)> {
    let request = person.request(Method::POST, path).json(body);
    let answer = request.timeout(scaled(PATIENCE)).send().await?;
    let status = answer.status().as_u16();
    Ok((status, answer.json().await?))
}
