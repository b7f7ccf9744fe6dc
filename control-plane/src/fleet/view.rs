//! The fleet in memory: what selection and `GET /servers` read without a query.
//!
//! A [`FleetView`] is an immutable catalogue; every server in it points to a cell with the figures
//! that move (load, ping, pool, liveness). The cells outlive a refresh of the catalogue, so that a
//! report of a node reaches every view at once and assignments in flight are never forgotten.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};
use ipnet::IpNet;
use shared::ids::ServerId;
use shared::protocol::NextKey;
use shared::wireguard::PublicKey;
use uuid::Uuid;

use super::lock;
use super::pages::Pages;

/// How long after its last sign of life a node still counts as there, and gets new clients.
pub const FRESHNESS: Duration = Duration::from_secs(15);

/// The operator's word on a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerStatus {
    Active,
    Maintenance,
    Offline,
}

impl ServerStatus {
    /// Reads the database's word; an unknown one takes no clients.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text {
            "active" => Self::Active,
            "maintenance" => Self::Maintenance,
            _ => Self::Offline,
        }
    }

    /// The database's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Maintenance => "maintenance",
            Self::Offline => "offline",
        }
    }
}

/// What a server is, as the catalogue has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    pub id: ServerId,
    pub hostname: String,
    pub country: String,
    /// ISO 3166-1 alpha-2.
    pub country_code: String,
    pub city: String,
    /// A label such as `us-east`.
    pub location: String,
    pub ip_address: IpAddr,
    /// Where clients reach WireGuard, `host:port`.
    pub endpoint: String,
    pub public_key: PublicKey,
    pub status: ServerStatus,
    pub tier: i16,
    pub subnet: IpNet,
    pub subnet_v6: Option<IpNet>,
    pub capacity: u32,
    pub download_mbps: u32,
    pub upload_mbps: u32,
    pub protocols: Vec<String>,
    pub streaming_services: Vec<String>,
    pub features: Vec<String>,
    /// The operator wants no new clients there.
    pub is_drained: bool,
    /// The key that the node will have, once it has made it.
    pub next_key: Option<NextKey>,
}

/// The figures of a server that move.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Live {
    /// 0–100, the worst component of the host.
    pub load: f64,
    /// Round trip between the plane and the node in milliseconds.
    pub ping: u32,
    pub peers: u32,
    /// Addresses in use or in quarantine.
    pub pool_used: u32,
    pub draining: bool,
    /// The newest version of the protocol that the node speaks.
    pub protocol: u16,
    pub last_seen: Option<DateTime<Utc>>,
    /// The replica that holds the node's session.
    pub replica: Option<Uuid>,
    /// Assignments that the node's last report did not know of yet.
    pub pending: u32,
}

impl Live {
    /// Whether the node answers: it has a session and gave a sign of life lately.
    #[must_use]
    pub fn is_online(&self, now: DateTime<Utc>) -> bool {
        self.replica.is_some()
            && self
                .last_seen
                .is_some_and(|seen| (now - seen).to_std().unwrap_or_default() <= FRESHNESS)
    }
}

/// What callers see of the figures that move.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seen {
    pub is_online: bool,
    pub is_draining: bool,
    /// To one decimal.
    pub load: f64,
    pub ping: u32,
}

impl Live {
    #[must_use]
    pub fn seen(&self, now: DateTime<Utc>) -> Seen {
        Seen {
            is_online: self.is_online(now),
            is_draining: self.draining,
            load: (self.load * 10.0).round() / 10.0,
            ping: self.ping,
        }
    }
}

/// A server: its profile and its live figures.
#[derive(Debug)]
pub struct Server {
    profile: Profile,
    cell: Arc<LiveCell>,
}

impl Server {
    #[must_use]
    pub fn new(profile: Profile, live: Live) -> Self {
        let cell = Arc::new(LiveCell::default());
        lock(&cell.0).figures = live;
        Self::over(profile, cell)
    }

    fn over(profile: Profile, cell: Arc<LiveCell>) -> Self {
        Self { profile, cell }
    }

    /// The figures at this moment.
    #[must_use]
    pub fn live(&self) -> Live {
        self.cell.read()
    }

    /// Counts a client on its way to this server until the node's reports include it.
    #[must_use]
    pub fn assign(&self) -> Assignment {
        lock(&self.cell.0).in_flight += 1;
        Assignment {
            cell: Arc::clone(&self.cell),
            released: false,
        }
    }

    /// Whether a client's word for a place means this server: its location, country, ISO code or
    /// city, without regard to case.
    #[must_use]
    pub fn is_at(&self, place: &str) -> bool {
        self.places().into_iter().any(|name| is_same(name, place))
    }

    fn places(&self) -> [&str; 4] {
        let Profile {
            location,
            country,
            country_code,
            city,
            ..
        } = &self.profile;
        [location, country, country_code, city]
    }

    pub(super) fn cell(&self) -> &Arc<LiveCell> {
        &self.cell
    }
}

impl std::ops::Deref for Server {
    type Target = Profile;

    fn deref(&self) -> &Profile {
        &self.profile
    }
}

/// A client on its way to a server. Dropped, it counts until the node's next report.
#[derive(Debug)]
pub struct Assignment {
    cell: Arc<LiveCell>,
    released: bool,
}

impl Assignment {
    /// The client does not get there: count it no longer.
    pub fn release(mut self) {
        self.released = true;
    }
}

impl Drop for Assignment {
    fn drop(&mut self) {
        let mut state = lock(&self.cell.0);
        state.in_flight = state.in_flight.saturating_sub(1);
        if !self.released {
            state.settled = state.settled.saturating_add(1);
        }
    }
}

/// The moving figures of one server, shared by every view that has the server.
#[derive(Debug, Default)]
pub(super) struct LiveCell(Mutex<CellState>);

#[derive(Debug, Default)]
struct CellState {
    figures: Live,
    in_flight: u32,
    /// Assignments that ended since the last report.
    settled: u32,
}

impl LiveCell {
    pub(super) fn read(&self) -> Live {
        let state = lock(&self.0);
        Live {
            pending: state.in_flight.saturating_add(state.settled),
            ..state.figures
        }
    }

    /// A node's own report: it knows of every assignment that has ended.
    pub(super) fn report(&self, change: impl FnOnce(&mut Live)) {
        let mut state = lock(&self.0);
        change(&mut state.figures);
        state.settled = 0;
    }

    /// A change that is no report of the node.
    pub(super) fn change(&self, change: impl FnOnce(&mut Live)) {
        change(&mut lock(&self.0).figures);
    }

    /// What the database says. Knows less than a session in this process does.
    fn refresh(&self, stored: Live, replica: Uuid) {
        let mut state = lock(&self.0);
        if state.figures.replica == Some(replica) {
            return;
        }
        if stored.last_seen > state.figures.last_seen {
            state.settled = 0;
        }
        state.figures = stored;
    }
}

/// Whether two words are the same without regard to case.
pub(super) fn is_same(word: &str, other: &str) -> bool {
    lower(word).eq(lower(other))
}

/// The fleet at one moment.
#[derive(Debug, Default)]
pub struct FleetView {
    servers: Vec<Arc<Server>>,
    by_id: HashMap<ServerId, Arc<Server>>,
    /// By each of a server's places in lower case, in the order of `servers`.
    by_place: HashMap<String, Vec<Arc<Server>>>,
    pages: Pages,
}

impl FleetView {
    #[must_use]
    pub fn new(servers: Vec<Server>) -> Self {
        let servers: Vec<_> = servers.into_iter().map(Arc::new).collect();
        let by_id = servers
            .iter()
            .map(|server| (server.id, Arc::clone(server)))
            .collect();
        Self {
            by_place: by_place(&servers),
            servers,
            by_id,
            pages: Pages::default(),
        }
    }

    /// Every server, by hostname.
    #[must_use]
    pub fn servers(&self) -> &[Arc<Server>] {
        &self.servers
    }

    #[must_use]
    pub fn get(&self, id: ServerId) -> Option<&Arc<Server>> {
        self.by_id.get(&id)
    }

    /// The servers at a client's word for a place, by hostname: those that are [`Server::is_at`] it.
    #[must_use]
    pub fn at(&self, place: &str) -> &[Arc<Server>] {
        let there = self.by_place.get(&lower(place).collect::<String>());
        there.map_or(&[], Vec::as_slice)
    }

    pub(super) const fn pages(&self) -> &Pages {
        &self.pages
    }

    /// The next view: the catalogue as just read, the cells kept.
    pub(super) fn next(&self, read: Vec<(Profile, Live)>, replica: Uuid) -> Self {
        let servers = read
            .into_iter()
            .map(|(profile, live)| match self.by_id.get(&profile.id) {
                Some(known) => {
                    known.cell.refresh(live, replica);
                    let cell = Arc::clone(&known.cell);
                    Server::over(profile, cell)
                }
                None => Server::new(profile, live.without(replica)),
            });
        Self::new(servers.collect())
    }
}

fn lower(word: &str) -> impl Iterator<Item = char> {
    word.chars().flat_map(char::to_lowercase)
}

fn by_place(servers: &[Arc<Server>]) -> HashMap<String, Vec<Arc<Server>>> {
    let mut by_place: HashMap<_, Vec<Arc<Server>>> = HashMap::new();
    for server in servers {
        let places = server.places().into_iter().map(lower);
        let places: BTreeSet<String> = places.map(Iterator::collect).collect();
        for place in places {
            by_place.entry(place).or_default().push(Arc::clone(server));
        }
    }
    by_place
}

impl Live {
    /// Without a session of this replica that only the database remembers.
    fn without(self, replica: Uuid) -> Self {
        let replica = self.replica.filter(|held_by| *held_by != replica);
        Self { replica, ..self }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::fleet) fn profile(number: u128) -> Profile {
        Profile {
            id: ServerId(Uuid::from_u128(number)),
            hostname: format!("server-{number}.example.net"),
            country: "Germany".to_owned(),
            country_code: "DE".to_owned(),
            city: "Frankfurt".to_owned(),
            location: "eu-central".to_owned(),
            ip_address: IpAddr::from([192, 0, 2, 1]),
            endpoint: "192.0.2.1:51820".to_owned(),
            public_key: PublicKey::from_bytes([7; 32]),
            status: ServerStatus::Active,
            tier: 0,
            subnet: "10.8.0.0/16".parse().expect("a subnet"),
            subnet_v6: None,
            capacity: 1000,
            download_mbps: 1000,
            upload_mbps: 1000,
            protocols: vec!["wireguard".to_owned()],
            streaming_services: Vec::new(),
            features: Vec::new(),
            is_drained: false,
            next_key: None,
        }
    }

    pub(in crate::fleet) fn online(now: DateTime<Utc>) -> Live {
        Live {
            last_seen: Some(now),
            protocol: 2,
            replica: Some(Uuid::from_u128(99)),
            ..Live::default()
        }
    }

    #[test]
    fn assignments_count_until_the_next_report_unless_released() {
        let server = Server::new(profile(1), Live::default());
        let (kept, flying, failed) = (server.assign(), server.assign(), server.assign());
        assert_eq!(server.live().pending, 3);
        drop(kept);
        failed.release();
        assert_eq!(server.live().pending, 2);
        server.cell.report(|live| live.pool_used = 1);
        assert_eq!((server.live().pending, server.live().pool_used), (1, 1));
        drop(flying);
        assert_eq!(server.live().pending, 1);
    }

    #[test]
    fn a_place_has_the_servers_that_are_there_once_each() {
        let at = |number, country: &str, city: &str| {
            let (country, city) = (country.to_owned(), city.to_owned());
            let profile = Profile {
                country,
                city,
                ..profile(number)
            };
            Server::new(profile, Live::default())
        };
        let view = FleetView::new(vec![
            at(1, "Singapore", "Singapore"),
            at(2, "Türkiye", "İzmir"),
            at(3, "Malaysia", "SINGAPORE"),
        ]);
        for place in [
            "singapore",
            "SINGAPORE",
            "türkiye",
            "İZMIR",
            "eu-central",
            "de",
            "nowhere",
        ] {
            let there = view.servers().iter().filter(|server| server.is_at(place));
            let there: Vec<_> = there.map(|server| server.id).collect();
            let found: Vec<_> = view.at(place).iter().map(|server| server.id).collect();
            assert_eq!(found, there, "{place}");
        }
        assert_eq!(view.at("Singapore").len(), 2);
    }

    #[test]
    fn a_refresh_keeps_assignments_and_what_this_replica_knows_better() {
        let (here, there) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let now = Utc::now();
        let held_by = |replica, load| Live {
            load,
            last_seen: Some(now),
            replica: Some(replica),
            ..Live::default()
        };
        let view = FleetView::default().next(vec![(profile(1), held_by(there, 5.0))], here);
        let id = profile(1).id;
        let flying = view.get(id).expect("known").assign();
        let view = view.next(vec![(profile(1), held_by(there, 9.0))], here);
        let live = view.get(id).expect("known").live();
        assert_eq!((live.load, live.pending), (9.0, 1));

        view.get(id)
            .expect("known")
            .cell
            .report(|live| *live = held_by(here, 50.0));
        let view = view.next(vec![(profile(1), held_by(here, 1.0))], here);
        assert_eq!(view.get(id).expect("known").live().load, 50.0);
        drop(flying);
    }

    #[test]
    fn a_session_that_this_replica_forgot_in_a_restart_is_not_online() {
        let here = Uuid::from_u128(1);
        let now = Utc::now();
        let live = Live {
            replica: Some(here),
            ..online(now)
        };
        let view = FleetView::default().next(vec![(profile(1), live)], here);
        assert!(!view.servers()[0].live().is_online(now));
    }
}
