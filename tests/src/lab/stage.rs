//! Everything that an end-to-end test begins with: a world, a plane, a node and a person.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use shared::wireguard::PublicKey;

use super::{
    Agent, Backend, Plane, PlaneSettings, WgClient, WgPeer, Wire, World, dump, require_root,
};
use crate::api::{Client, Tunnel};
use crate::wait::scaled;
use crate::{TestDb, wait_until};

const SOON: Duration = Duration::from_secs(15);

/// Fields are dropped in this order: what uses something goes before it.
#[derive(Debug)]
pub struct Stage {
    pub agent: Agent,
    pub plane: Plane,
    pub user: Client,
    pub world: World,
    pub folder: tempfile::TempDir,
    pub db: TestDb,
    pub backend: Backend,
}

impl Stage {
    /// With the backend that this machine has.
    pub async fn set() -> Self {
        Self::with(Backend::detect()).await
    }

    pub async fn with(backend: Backend) -> Self {
        Self::with_agent(backend, |_, _, _| {}).await
    }

    /// With an agent that is changed before it enrols.
    pub async fn with_agent(
        backend: Backend,
        prepare: impl FnOnce(&mut Agent, &World, &Path),
    ) -> Self {
        require_root();
        let (world, db) = (World::new(), TestDb::new().await);
        let folder = tempfile::tempdir().expect("a folder can be made");
        // The default, stretched where the processor is emulated.
        let patience = scaled(Duration::from_secs(2));
        let settings = PlaneSettings {
            address: world.plane_address,
            database_url: db.url().to_owned(),
            tls: true,
            more: vec![("CONNECT_ACK_TIMEOUT_MS", patience.as_millis().to_string())],
        };
        let plane = Plane::start(folder.path(), &settings).await;
        let mut agent = Agent::new(&world, &plane, folder.path(), "node", backend);
        prepare(&mut agent, &world, folder.path());
        agent.begin(&plane.enrolment_token("node")).await;
        let user = plane.client().sign_up("ada@example.org").await;
        db.execute(
            "INSERT INTO plans (id, name, plan_type, max_devices, max_connections, tier)
             VALUES ('test', 'Test', 'monthly', 1000, 1000, 1);
             UPDATE subscriptions SET plan_id = 'test', plan_type = 'monthly',
                 end_date = now() + interval '1 day'",
        )
        .await;
        Self {
            agent,
            plane,
            user,
            world,
            folder,
            db,
            backend,
        }
    }

    /// Restarts the agent with a wire to its plane on which the test can speak.
    pub async fn wire(&mut self) -> Wire {
        let wire = Wire::lay(&self.plane, self.world.plane_address).await;
        self.agent.terminate().await;
        self.agent.set("PLANE_URL", wire.url());
        self.agent.set("PLANE_INSECURE", "true");
        self.agent.run();
        self.agent.wait_connected().await;
        wire
    }

    /// A client's interface, not configured yet.
    pub async fn client(&self) -> WgClient {
        WgClient::new(&self.world, self.folder.path(), self.backend).await
    }

    /// The node's peers.
    #[must_use]
    pub fn peers(&self) -> Vec<WgPeer> {
        dump(&self.world.node(), self.agent.interface())
    }

    #[must_use]
    pub fn peer(&self, key: PublicKey) -> Option<WgPeer> {
        self.peers().into_iter().find(|peer| peer.public_key == key)
    }

    /// Connects and brings the tunnel up.
    pub async fn tunnel(&self, client: &WgClient) -> Tunnel {
        let tunnel = self.user.connected(&json!({})).await;
        client.configure(&tunnel.wg_config);
        tunnel
    }

    /// Waits until the API says of every live connection what the interface says, and gives the
    /// interface's sums of received and sent bytes.
    pub async fn wait_counters_agree(&self, tunnels: usize) -> (u64, u64) {
        let mut sums = (0, 0);
        wait_until("the API's counters are the interface's", SOON, async || {
            let before = self.peers();
            let status = self.user.status().await;
            let same = before == self.peers();
            sums = (
                before.iter().map(|peer| peer.received).sum(),
                before.iter().map(|peer| peer.sent).sum(),
            );
            same && agrees(&before, &status, tunnels)
        })
        .await;
        sums
    }
}

/// Each connection's bytes, matched by the address inside the tunnel.
fn agrees(peers: &[WgPeer], status: &Value, tunnels: usize) -> bool {
    let connections = status.get("connections").and_then(Value::as_array);
    let connections = connections.expect("a list of connections");
    let text = |connection: &Value, field: &str| {
        connection
            .get(field)
            .and_then(Value::as_str)
            .map(ToOwned::to_owned)
    };
    let number = |connection: &Value, field: &str| connection.get(field).and_then(Value::as_u64);
    let agreeing = connections.iter().filter(|connection| {
        let address = text(connection, "assigned_ip").map(|address| format!("{address}/32"));
        let peer = peers.iter().find(|peer| {
            address
                .as_ref()
                .is_some_and(|address| peer.allowed_ips.contains(address))
        });
        peer.is_some_and(|peer| {
            number(connection, "bytes_sent") == Some(peer.received)
                && number(connection, "bytes_received") == Some(peer.sent)
        })
    });
    peers.len() == tunnels && connections.len() == tunnels && agreeing.count() == tunnels
}
