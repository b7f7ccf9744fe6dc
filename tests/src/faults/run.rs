//! Carries a schedule out over the lab and holds what is left to the invariants.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use diesel_async::SimpleAsyncConnection;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use shared::ids::ConnectionId;
use shared::wireguard::{PrivateKey, PublicKey};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::audit::{Audit, Booked};
use super::books::{self, Row};
use super::client::{Client, Held, Scene, Tally, post};
use super::schedule::{Event, Shape, Step, Wish, schedule};
use super::stage::{REST, Stage};
use super::traffic::{PACKET, Traffic};
use crate::api;
use crate::lab::{Backend, Site, WgClient, dump, try_connect};
use crate::wait::scaled;

const NODES: u8 = 2;
/// Clients that connect once and stay.
const STEADY: usize = 2;
const CHURNING: usize = 5;
/// Connections of the crowd that live at once.
const CROWD: usize = 8;
const WATCH_EVERY: Duration = Duration::from_millis(200);
const SUPERVISE_EVERY: Duration = Duration::from_millis(100);
/// For everything to be as it shall be after the last fault: a node dials again within a quarter
/// of a minute, and cleanup asks twice.
const SETTLE: Duration = Duration::from_secs(90);

/// What a node that is cut off goes on sending to a client that has left: WireGuard greets one that does not
/// answer every five seconds, for ninety, with 148 bytes.
const GREETINGS: u64 = 90 / 5 * 148;

const USUAL_SEED: u64 = 7;

/// `FAULT_SEED` and `FAULT_SECONDS`, or the usual seed and this length: what runs on every change is
/// the same each time, and `scripts/faults` looks further.
#[must_use]
pub fn from_environment(seconds: u64) -> (u64, Duration) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = number("FAULT_SEED").unwrap_or(USUAL_SEED);
    let seconds = number("FAULT_SECONDS").unwrap_or(seconds);
    (seed, Duration::from_secs(seconds))
}

/// The whole test. Panics with every violation.
pub async fn run(backend: Backend, seed: u64, length: Duration) {
    println!("FAULT_SEED={seed} FAULT_SECONDS={}", length.as_secs());
    let mut stage = Stage::set(backend, NODES).await;
    let (scene, mut clients, crowd) = cast(&stage, backend).await;
    for client in &mut clients {
        // Half of them on each node.
        client.connect(Some(client.lane % usize::from(NODES))).await;
    }
    let watchers = watch(&scene);
    let churning = clients.split_off(STEADY);
    let shape = Shape::of(length, usize::from(NODES), churning.len());
    let actors = Actors::start(churning, crowd, seed);
    play(&mut stage, &actors, &schedule(seed, &shape)).await;
    println!("{} the last fault is over", Utc::now());
    stage.recover().await;
    clients.extend(actors.finish(&mut stage).await);
    for agent in &mut stage.agents {
        agent.wait_connected().await;
    }
    settle(&mut stage, &scene).await;
    linger(&clients).await;
    watchers.into_iter().for_each(|it| it.abort());
    let rows = balance(&mut stage, &scene).await;
    compare_with_the_api(&scene, &clients).await;
    judge(&scene, &clients, &rows);
    conclude(&stage, &scene, &rows, seed);
}

/// People with devices, and one who is many.
async fn cast(stage: &Stage, backend: Backend) -> (Arc<Scene>, Vec<Client>, api::Client) {
    let (count, anybody) = (STEADY + CHURNING, stage.plane.client());
    let mut wgs = Vec::new();
    for number in 0..count {
        let number = u8::try_from(number).expect("few clients");
        let wg = WgClient::numbered(&stage.world, stage.folder.path(), backend, number).await;
        wgs.push(Arc::new(wg));
    }
    let mut people = Vec::new();
    for number in 0..=count {
        let email = format!("person{number}@example.org");
        people.push(anybody.sign_up(&email).await);
    }
    let mut database = stage.postgres.connect().await;
    database
        .batch_execute(
            "INSERT INTO plans (id, name, plan_type, max_devices, max_connections, tier, download_mbps, upload_mbps)
             VALUES ('test', 'Test', 'monthly', 1000, 1000, 1, NULL, NULL),
                    ('limited', 'Limited', 'monthly', 1000, 1000, 1, 500, 400);
             UPDATE subscriptions SET plan_id = 'test', plan_type = 'monthly',
                 end_date = now() + interval '1 day'",
        )
        .await
        .expect("plans can be made");
    let names: Vec<_> = wgs.iter().map(|wg| wg.interface()).collect();
    let scene = Arc::new(Scene {
        traffic: Traffic::start(&stage.world, &names),
        audit: Mutex::new(Audit::default()),
        sites: stage.world.sites().to_vec(),
        servers: books::servers(&mut database).await,
        database: stage.postgres.url(),
        held: Mutex::new(HashMap::new()),
        tally: Mutex::new(Tally::default()),
    });
    let crowd = people.pop().expect("somebody is the crowd");
    let clients = people.into_iter().zip(wgs).enumerate();
    let clients = clients
        .map(|(lane, (person, wg))| Client::new(lane, person, wg, &scene))
        .collect();
    (scene, clients, crowd)
}

/// Reads interfaces and database over and over until it is aborted.
fn watch(scene: &Arc<Scene>) -> Vec<JoinHandle<()>> {
    let mut tasks: Vec<_> = (0..scene.sites.len())
        .map(|node| {
            let scene = Arc::clone(scene);
            tokio::spawn(async move {
                loop {
                    look(&scene, node).await;
                    tokio::time::sleep(scaled(WATCH_EVERY)).await;
                }
            })
        })
        .collect();
    let scene = Arc::clone(scene);
    tasks.push(tokio::spawn(async move {
        loop {
            if let Some(mut database) = try_connect(&scene.database).await
                && let Ok(shared) = books::shared(&mut database).await
            {
                for address in shared {
                    scene.violate(format!("{address} is two live connections'"));
                }
            }
            tokio::time::sleep(scaled(WATCH_EVERY)).await;
        }
    }));
    tasks
}

async fn look(scene: &Scene, node: usize) {
    let Site {
        namespace,
        interface,
        ..
    } = scene.sites.get(node).expect("the node").clone();
    let peers = tokio::task::spawn_blocking(move || dump(&namespace, &interface)).await;
    let peers = peers.expect("the interface can be read");
    let mut audit = scene.audit.lock().expect("the audit");
    audit.observe(node, Utc::now(), &peers);
}

/// Clients at work.
struct Actors {
    wishes: Vec<mpsc::Sender<Wish>>,
    clients: Vec<JoinHandle<Client>>,
    crowd: mpsc::Sender<usize>,
    mill: JoinHandle<()>,
}

impl Actors {
    fn start(churning: Vec<Client>, crowd: api::Client, seed: u64) -> Self {
        let (mut wishes, mut clients) = (Vec::new(), Vec::new());
        for mut client in churning {
            let (sender, mut receiver) = mpsc::channel(1);
            wishes.push(sender);
            clients.push(tokio::spawn(async move {
                while let Some(wish) = receiver.recv().await {
                    client.fulfil(wish).await;
                }
                client
            }));
        }
        let (sender, receiver) = mpsc::channel(1);
        Self {
            wishes,
            clients,
            crowd: sender,
            mill: tokio::spawn(mill(crowd, receiver, seed)),
        }
    }

    /// A client that is still busy passes a wish over.
    fn wish(&self, client: usize, wish: Wish) {
        if let Some(sender) = self.wishes.get(client) {
            let _ = sender.try_send(wish);
        }
    }

    /// Lets everybody finish what they began.
    async fn finish(self, stage: &mut Stage) -> Vec<Client> {
        drop((self.wishes, self.crowd));
        let mut done = Vec::new();
        for client in self.clients {
            done.push(finished(client, stage).await);
        }
        finished(self.mill, stage).await;
        done
    }
}

async fn finished<T>(mut task: JoinHandle<T>, stage: &mut Stage) -> T {
    loop {
        tokio::select! {
            done = &mut task => return done.expect("the task ends well"),
            () = tokio::time::sleep(SUPERVISE_EVERY) => stage.supervise().await,
        }
    }
}

/// Connects keys that no interface holds and ends others. Answers that are lost are not missed: what
/// they were about is to be found, or gone, like everything else.
async fn mill(person: api::Client, mut turns: mpsc::Receiver<usize>, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut known: Vec<ConnectionId> = Vec::new();
    while let Some(count) = turns.recv().await {
        let mut connects = JoinSet::new();
        for _ in 0..count {
            let person = person.clone();
            connects.spawn(async move {
                let body = json!({ "client_public_key": PrivateKey::generate().public_key() });
                let answer = post(&person, "/api/v1/vpn/connect", &body).await.ok()?;
                let id = answer.1.get("connection_id")?.as_str()?.parse().ok()?;
                Some(ConnectionId(id))
            });
        }
        known.extend(connects.join_all().await.into_iter().flatten());
        let ends = known
            .len()
            .saturating_sub(CROWD)
            .max(count.min(known.len()));
        for _ in 0..ends {
            let id = known.swap_remove(rng.random_range(0..known.len()));
            // What is not ended now lives on to the end, which is as good.
            let path = format!("/api/v1/vpn/disconnect/{id}");
            let _ = post(&person, &path, &json!({})).await;
        }
    }
}

async fn play(stage: &mut Stage, actors: &Actors, events: &[Event]) {
    let start = Instant::now();
    for event in events {
        let due = start + scaled(event.at);
        while Instant::now() < due {
            stage.supervise().await;
            tokio::time::sleep_until(due.min(Instant::now() + SUPERVISE_EVERY)).await;
        }
        match event.step {
            Step::Client(client, wish) => actors.wish(client, wish),
            Step::Crowd(count) => {
                let _ = actors.crowd.try_send(count);
            }
            step => {
                println!("{} {:?}: {step:?}", Utc::now(), event.at);
                match step {
                    Step::Kill(victim) => stage.kill(victim),
                    Step::Start(victim) => stage.start(victim).await,
                    Step::Cut(node, cut) => stage.world.site(node).cut(cut),
                    Step::Heal(node) => stage.world.site(node).heal(),
                    Step::Client(..) | Step::Crowd(_) => {}
                }
            }
        }
    }
}

/// Until the interfaces hold exactly the live connections, and nothing is on its way.
async fn settle(stage: &mut Stage, scene: &Scene) {
    let end = Instant::now() + scaled(SETTLE);
    loop {
        stage.supervise().await;
        let rows = read(scene).await;
        let pending = rows.iter().filter(|row| row.status.ends_with("ing"));
        let pending: Vec<_> = pending.map(Row::id).collect();
        let wrong = differences(scene, &rows);
        if pending.is_empty() && wrong.is_empty() {
            return;
        }
        if Instant::now() > end {
            scene.violate(format!("pending {pending:?}, different {wrong:?}"));
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Peers that are in an interface or in the books, not in both.
fn differences(scene: &Scene, rows: &[Row]) -> Vec<(usize, String, PublicKey)> {
    let live = rows.iter().filter(|row| row.is_live());
    let booked: BTreeSet<_> = live
        .filter_map(|row| Some(row.booked(&scene.servers, None)?.tunnel))
        .collect();
    let mut held = BTreeSet::new();
    for (node, site) in scene.sites.iter().enumerate() {
        for peer in dump(&site.namespace, &site.interface) {
            let address = peer.allowed_ips.first().cloned().unwrap_or_default();
            held.insert((node, address, peer.public_key));
        }
    }
    booked.symmetric_difference(&held).cloned().collect()
}

async fn read(scene: &Scene) -> Vec<Row> {
    let mut database = crate::wait_for("Postgres answers", SETTLE, async || {
        try_connect(&scene.database).await
    })
    .await;
    books::read(&mut database).await.expect("the connections")
}

/// A moment after everything: who has a tunnel still has it.
async fn linger(clients: &[Client]) {
    tokio::time::sleep(scaled(Duration::from_secs(2))).await;
    for client in clients {
        client.fall_quiet().await;
    }
}

/// Waits until the bill of every live connection is what its interface counts.
async fn balance(stage: &mut Stage, scene: &Scene) -> Vec<Row> {
    let end = Instant::now() + scaled(Duration::from_secs(30));
    loop {
        stage.supervise().await;
        for node in 0..scene.sites.len() {
            look(scene, node).await;
        }
        let rows = read(scene).await;
        let even = {
            let audit = scene.audit.lock().expect("the audit");
            booked(scene, &rows)
                .iter()
                .filter(|it| it.ended_at.is_none())
                .all(|it| audit.judge(it, 0).is_ok())
        };
        if even || Instant::now() > end {
            return rows;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

fn booked(scene: &Scene, rows: &[Row]) -> Vec<Booked> {
    let held = scene.held.lock().expect("what is held");
    rows.iter()
        .filter_map(|row| {
            let known = held.get(&row.id()).map(|held| held.address.as_str());
            row.booked(&scene.servers, known)
        })
        .collect()
}

/// What clients are told is what the books have.
async fn compare_with_the_api(scene: &Scene, clients: &[Client]) {
    for client in clients {
        let Some(tunnel) = &client.tunnel else {
            continue;
        };
        let status = client.person.status().await;
        let connections = status.get("connections").and_then(|it| it.as_array());
        let connection = connections.into_iter().flatten().find(|it| {
            it.get("connection_id").and_then(|id| id.as_str())
                == Some(tunnel.connection_id.to_string().as_str())
        });
        let number = |field| connection.and_then(|it| it.get(field)?.as_u64());
        let told = (number("bytes_sent"), number("bytes_received"));
        let own = client.counters();
        // Packets that keep the tunnel open may have been on their way.
        let near = |told: Option<u64>, own: u64| told.is_some_and(|it| it.abs_diff(own) <= PACKET);
        if !near(told.0, own.sent) || !near(told.1, own.received) {
            let lane = client.lane;
            scene.violate(format!("client {lane} is told {told:?} and counts {own:?}"));
        }
    }
}

fn judge(scene: &Scene, clients: &[Client], rows: &[Row]) {
    let mut found = Vec::new();
    let all = booked(scene, rows);
    let audit = scene.audit.lock().expect("the audit");
    found.extend(audit.shared_addresses(&all, TimeDelta::seconds(REST.into())));
    // What one client sends between two readings, generously.
    let unseen = PACKET * 40;
    found.extend(all.iter().filter_map(|it| audit.judge(it, unseen).err()));
    drop(audit);
    let held = scene.held.lock().expect("what is held").clone();
    let live: HashSet<_> = clients
        .iter()
        .filter_map(|client| Some(client.tunnel.as_ref()?.connection_id))
        .collect();
    for row in rows {
        if let Some(held) = held.get(&row.id()) {
            found.extend(against_the_client(
                row,
                held,
                live.contains(&row.id()),
                scene,
            ));
        }
    }
    for id in live {
        if !rows.iter().any(|row| row.id() == id) {
            found.push(format!("{id} is not in the books"));
        }
    }
    found.into_iter().for_each(|what| scene.violate(what));
}

/// A tunnel's row beside what its client knows.
fn against_the_client(row: &Row, held: &Held, has_it: bool, scene: &Scene) -> Vec<String> {
    let mut found = Vec::new();
    let (id, reason) = (row.id(), row.end_reason.as_deref());
    if has_it && !row.is_live() {
        found.push(format!(
            "{id} ended ({reason:?}), and its client never asked"
        ));
    }
    if !has_it && !matches!(reason, Some("disconnected" | "moved")) {
        found.push(format!("{id} ended for another reason: {reason:?}"));
    }
    let booked = row.booked(&scene.servers, Some(&held.address));
    let Some(bytes) = booked.map(|it| it.bytes) else {
        found.push(format!("{id} is of an unknown node: {}", row.status));
        return found;
    };
    if let Some(client) = held.client
        && bytes.sent > client.sent
    {
        found.push(format!(
            "{id}: booked {bytes:?}, its client sent {client:?}"
        ));
    }
    if let Some(quiet) = held.quiet {
        let sent = quiet.sent..=quiet.sent + PACKET;
        let received = quiet.received..=quiet.received + PACKET + GREETINGS;
        if !sent.contains(&bytes.sent) || !received.contains(&bytes.received) {
            found.push(format!(
                "{id}: booked {bytes:?}, {quiet:?} when it was quiet"
            ));
        }
    }
    found
}

fn conclude(stage: &Stage, scene: &Scene, rows: &[Row], seed: u64) {
    let tally = scene.tally.lock().expect("the tally");
    let audit = scene.audit.lock().expect("the audit");
    println!(
        "{} connections, {} readings of interfaces, {tally:?}",
        rows.len(),
        audit.readings
    );
    for agent in &stage.agents {
        println!("{:?}", agent.status().map(|status| status.0));
    }
    assert!(
        audit.violations.is_empty(),
        "FAULT_SEED={seed}: {:#?}",
        audit.violations
    );
}
