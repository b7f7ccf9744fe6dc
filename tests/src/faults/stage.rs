//! Everything that may be killed, and who starts it again.

use std::collections::HashSet;
use std::time::Duration;

use super::schedule::Victim;
use crate::lab::{Agent, Backend, Plane, PlaneSettings, Postgres, World};
use crate::redis::TestRedis;
use crate::wait::scaled;

/// Clients' addresses rest so long on the nodes.
pub(super) const REST: u32 = 5;

/// The daemons and what they stand on. Fields are dropped in this order.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) agents: Vec<Agent>,
    pub(super) plane: Plane,
    redis: TestRedis,
    pub(super) postgres: Postgres,
    pub(super) world: World,
    pub(super) folder: tempfile::TempDir,
    down: HashSet<Victim>,
}

impl Stage {
    pub(super) async fn set(backend: Backend, nodes: u8) -> Self {
        let world = World::with_nodes(nodes);
        let postgres = Postgres::start().await;
        let redis = TestRedis::start().await;
        let folder = tempfile::tempdir().expect("a folder can be made");
        let patience = scaled(Duration::from_secs(2));
        let settings = PlaneSettings {
            address: world.plane_address,
            database_url: postgres.url(),
            tls: true,
            more: vec![
                ("CONNECT_ACK_TIMEOUT_MS", patience.as_millis().to_string()),
                ("REDIS_URL", redis.url()),
                ("RATE_LIMIT_ENABLED", "false".to_owned()),
                ("DDOS_PROTECTION_ENABLED", "false".to_owned()),
            ],
        };
        let plane = Plane::start(folder.path(), &settings).await;
        let mut agents = Vec::new();
        for (number, site) in world.sites().iter().enumerate() {
            let own = folder.path().join(format!("node{number}"));
            std::fs::create_dir(&own).expect("a folder can be made");
            // Few addresses, and a short rest: they come round again.
            let (subnet, rest) = (format!("10.77.{number}.0/26"), REST.to_string());
            let more = [
                ("VPN_SUBNET", subnet.as_str()),
                ("QUARANTINE_SECONDS", rest.as_str()),
            ];
            let name = format!("node{number}");
            agents.push(Agent::start_at(site, &plane, &own, &name, backend, &more).await);
        }
        Self {
            agents,
            plane,
            redis,
            postgres,
            world,
            folder,
            down: HashSet::new(),
        }
    }

    /// `kill -9`.
    pub(super) fn kill(&mut self, victim: Victim) {
        self.down.insert(victim);
        match victim {
            Victim::Agent(node) => self.agent(node).kill(),
            Victim::Plane => self.plane.kill(),
            Victim::Postgres => self.postgres.kill(),
            Victim::Redis => self.redis.kill(),
        }
    }

    pub(super) async fn start(&mut self, victim: Victim) {
        self.down.remove(&victim);
        match victim {
            Victim::Agent(node) => self.agent(node).run(),
            Victim::Plane => self.plane.run(),
            Victim::Postgres => self.postgres.run(),
            Victim::Redis => self.redis = TestRedis::start_at(self.redis.port()).await,
        }
    }

    /// Starts again what ended by itself, as systemd does: a plane that finds no database, a
    /// Postgres whose predecessor has not quite gone.
    pub(super) async fn supervise(&mut self) {
        let agents = (0..self.agents.len()).map(Victim::Agent);
        for victim in agents.chain([Victim::Plane, Victim::Postgres]) {
            let runs = match victim {
                Victim::Agent(node) => self.agent(node).is_running(),
                Victim::Plane => self.plane.is_running(),
                Victim::Postgres => self.postgres.is_running(),
                Victim::Redis => true,
            };
            if !runs && !self.down.contains(&victim) {
                println!("{victim:?} ended by itself and is started again");
                self.start(victim).await;
            }
        }
    }

    /// Heals and starts everything.
    pub(super) async fn recover(&mut self) {
        for site in self.world.sites() {
            site.heal();
        }
        for victim in self.down.clone() {
            self.start(victim).await;
        }
    }

    fn agent(&mut self, node: usize) -> &mut Agent {
        self.agents.get_mut(node).expect("the node has an agent")
    }
}
