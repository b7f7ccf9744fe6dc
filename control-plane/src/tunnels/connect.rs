//! Connecting: entitlement, choice of server, the row, the node's word for it, the answer.
//!
//! Nothing is told to the client before the node acknowledged, and nothing stays behind when it does
//! not: a connection that failed is ended, which also tells the node. The work runs in a task of its
//! own, so that a client that hangs up in the middle cannot leave it half done.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use diesel::result::{DatabaseErrorKind, Error};
use shared::ids::{ConnectionId, DeviceId, ServerId, UserId};
use shared::protocol::Addresses;
use shared::wireguard::{PresharedKey, PrivateKey, PublicKey};
use tokio::sync::oneshot;

use super::decision::{Decision, Request, decide, opening};
use super::end::end;
use super::model::{Connection, EndReason, ServerSummary, Status};
use super::offers;
use super::psk;
use super::store::{self, Entitlement, Insertion, NewConnection, NewLease};
use crate::app::AppState;
use crate::error::{ApiError, Code};
use crate::fleet::desired::NodeAnswer;
use crate::fleet::selection::{Criteria, rank};
use crate::fleet::{AnswerTimings, Answered, Server, Unanswered};

/// Nodes asked for one connect.
const MAX_CANDIDATES: usize = 3;
/// How often a connect starts over because somebody took its key or place at the same moment.
const MAX_ROUNDS: usize = 8;
/// Places tried when several of a user's connects run at once.
const MAX_PLACE_RETRIES: usize = 8;
/// How often a connect looks after another request's, which is on its way already.
const JOIN_POLL: Duration = Duration::from_millis(25);

/// A connection that its client can use.
#[derive(Debug)]
pub(super) struct Established {
    pub(super) connection: ConnectionId,
    pub(super) server: ServerSummary,
    pub(super) addresses: Addresses,
    pub(super) public_key: PublicKey,
    /// Only where the pair was made here. It is in this answer and nowhere else.
    pub(super) private_key: Option<PrivateKey>,
    pub(super) preshared_key: Option<PresharedKey>,
    pub(super) started_at: DateTime<Utc>,
    pub(super) expires_at: Option<DateTime<Utc>>,
    pub(super) spent: Spent,
    /// Whether this request made it.
    is_new: bool,
}

/// Where a connect's time went.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Spent {
    pub(super) db: Duration,
    pub(super) node: AnswerTimings,
    pub(super) total: Duration,
}

/// Connects, or says why not. When the caller is gone before the answer is there, the connection
/// ends again.
pub(super) async fn connect(
    state: Arc<AppState>,
    user: UserId,
    request: Request,
) -> Result<Established, ApiError> {
    let (answer, answered) = oneshot::channel();
    let tasks = state.tasks().clone();
    tasks.spawn(async move {
        let attempt = Attempt {
            state: &state,
            user,
            request: &request,
            offer: None,
            started: Instant::now(),
        };
        let Err(Ok(unwanted)) = answer.send(attempt.run().await) else {
            return;
        };
        if unwanted.is_new
            && let Err(error) = end(&state, unwanted.connection, EndReason::Abandoned, None).await
        {
            tracing::warn!(connection = %unwanted.connection, %error, "tunnels.abandon_failed");
        }
    });
    answered
        .await
        .map_err(|_| ApiError::internal("a connect ended without an answer"))?
}

/// What a connection is offered in place of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Move {
    pub(super) of: ConnectionId,
    /// The server to get away from.
    pub(super) from: ServerId,
    /// How long it stands unused.
    pub(super) lifetime: Duration,
}

/// Makes a connection that stands ready on another server for the same client, near the old one where
/// that can be. False when no server can take it.
pub(super) async fn offer(
    state: &AppState,
    user: UserId,
    public_key: PublicKey,
    device: Option<DeviceId>,
    new: Move,
) -> Result<bool, ApiError> {
    let view = state.fleet().view();
    let near = view.get(new.from).map(|server| server.location.clone());
    for location in [near, None] {
        let request = Request {
            public_key: Some(public_key),
            device,
            location,
            ..Request::default()
        };
        let attempt = Attempt {
            state,
            user,
            request: &request,
            offer: Some(new),
            started: Instant::now(),
        };
        if attempt
            .run_offer(Keys::of(Some(public_key)), new.of)
            .await?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A live connection of the user's as connect answers with it; none where it is not live.
pub(super) async fn there(
    state: &AppState,
    user: UserId,
    connection: ConnectionId,
) -> Result<Option<Established>, ApiError> {
    let attempt = Attempt {
        state,
        user,
        request: &Request::default(),
        offer: None,
        started: Instant::now(),
    };
    let row = attempt.row(connection).await?;
    row.filter(|row| row.status == Status::Connected)
        .map(|row| attempt.joined(row))
        .transpose()
}

/// One request to connect.
struct Attempt<'a> {
    state: &'a AppState,
    user: UserId,
    request: &'a Request,
    /// What is made only stands ready.
    offer: Option<Move>,
    started: Instant,
}

/// Why a node did not become the connection's server.
enum Refusal {
    /// The next node may do better.
    Node,
    /// Somebody took the key, the place, the idempotency key or the quota meanwhile: look again.
    Collision(Code),
    Final(ApiError),
}

impl Refusal {
    /// The user or a rule ended the connection before the node answered.
    fn ended() -> Self {
        Self::Final(
            ApiError::new(Code::Conflict)
                .with_message("The connection was ended while it was being made"),
        )
    }
}

impl<E: Into<ApiError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::Final(error.into())
    }
}

impl Attempt<'_> {
    async fn run(&self) -> Result<Established, ApiError> {
        let mut collision = Code::Conflict;
        for _ in 0..MAX_ROUNDS {
            let entitlement = self.entitlement().await?;
            let decision = decide(self.request, &entitlement, |live| self.fits(live))?;
            let (public_key, replaces) = match decision {
                Decision::Existing(connection) => {
                    return self.join_or_accept(&entitlement, connection).await;
                }
                Decision::End(connection, reason) => {
                    end(self.state, connection, reason, None).await?;
                    continue;
                }
                Decision::Connect {
                    public_key,
                    replaces,
                } => (public_key, replaces),
            };
            let keys = Keys::of(public_key);
            let lease = opening(&entitlement)?;
            match self.on_any_node(&entitlement, keys, replaces, lease).await {
                Ok(established) => return Ok(established),
                Err(Refusal::Collision(code)) => collision = code,
                Err(Refusal::Node) => return Err(Code::NoServerAvailable.into()),
                Err(Refusal::Final(error)) => return Err(error),
            }
        }
        Err(collision.into())
    }

    async fn run_offer(&self, keys: Keys, old: ConnectionId) -> Result<bool, ApiError> {
        let entitlement = self.entitlement().await?;
        match self
            .on_any_node(&entitlement, keys, Some(old), opening(&entitlement)?)
            .await
        {
            Ok(_) => Ok(true),
            Err(Refusal::Node) => Ok(false),
            Err(Refusal::Collision(code)) => Err(code.into()),
            Err(Refusal::Final(error)) => Err(error),
        }
    }

    async fn entitlement(&self) -> Result<Entitlement, ApiError> {
        let mut conn = self.state.db().get().await?;
        let entitlement = store::entitlement(&mut conn, self.user, self.request.device).await?;
        // The token outlived its account.
        entitlement.ok_or_else(|| Code::Unauthorized.into())
    }

    /// Whether a live connection's server is what is asked for now.
    fn fits(&self, live: &store::LiveConnection) -> bool {
        let view = self.state.fleet().view();
        let Some(server) = live.server.and_then(|server| view.get(server)) else {
            return false;
        };
        match (self.request.server, &self.request.location) {
            (Some(wanted), _) => wanted == server.id,
            (None, location) => {
                server.live().is_online(Utc::now())
                    && location.as_deref().is_none_or(|place| server.is_at(place))
            }
        }
    }

    fn candidates(&self, entitlement: &Entitlement) -> Result<Vec<Arc<Server>>, ApiError> {
        let view = self.state.fleet().view();
        if let Some(wanted) = self.request.server {
            let server = view.get(wanted).ok_or(Code::ServerNotFound)?;
            if server.tier > entitlement.bounds.tier {
                return Err(Code::PlanRequired.into());
            }
        }
        let criteria = Criteria {
            server: self.request.server,
            location: self.request.location.clone(),
            tier: entitlement.bounds.tier,
            limits: entitlement.is_limited(),
            ..Criteria::default()
        };
        let left = self.offer.map(|new| new.from);
        let ranked = rank(&view, &criteria, Utc::now());
        let others = ranked.filter(|server| Some(server.id) != left);
        Ok(others.take(MAX_CANDIDATES).map(Arc::clone).collect())
    }

    async fn on_any_node(
        &self,
        entitlement: &Entitlement,
        keys: Keys,
        replaces: Option<ConnectionId>,
        mut lease: Option<NewLease>,
    ) -> Result<Established, Refusal> {
        for server in self.candidates(entitlement)? {
            let asked = self.on_node(&server, entitlement, &keys, replaces, &mut lease);
            match asked.await {
                Ok(up) => {
                    if let Some(old) = replaces.filter(|_| self.offer.is_none()) {
                        self.end_replaced(old).await;
                    }
                    return Ok(self.established(&server, entitlement, keys, up));
                }
                Err(Refusal::Node) => {
                    metrics::counter!("tunnels_connect_refused_total").increment(1);
                }
                Err(refusal) => return Err(refusal),
            }
        }
        Err(Refusal::Node)
    }

    /// Asks one node: the row first, then the node's word.
    async fn on_node(
        &self,
        server: &Server,
        entitlement: &Entitlement,
        keys: &Keys,
        replaces: Option<ConnectionId>,
        lease: &mut Option<NewLease>,
    ) -> Result<Up, Refusal> {
        let connection = ConnectionId::generate();
        let preshared_key = PresharedKey::generate();
        let sealed_psk = psk::seal(self.state.keys(), connection, &preshared_key)?;
        let waiter = self.state.fleet().expect(connection)?;
        let assignment = self.state.fleet().assign(server);
        let stored_key = self.request.stored_key();
        let new = NewConnection {
            id: connection,
            user: self.user,
            server: server.id,
            device: self.request.device,
            public_key: keys.public,
            idempotency_key: stored_key.as_deref(),
            replaces,
            expires_at: entitlement.bounds.end_on(server.tier),
            max_connections: entitlement.bounds.max_connections,
            offered_for: self.offer.map(|new| new.lifetime),
            sealed_psk: &sealed_psk,
            rates: entitlement.rates,
            lease: *lease,
        };
        let started_at = match self.insert(&new).await {
            Ok(started_at) => started_at,
            Err(refusal) => {
                assignment.release();
                return Err(refusal);
            }
        };
        // Should this node not answer, the next one's share is the next after this.
        if let Some(lease) = lease {
            lease.stamp.version += 1;
        }
        let db = self.started.elapsed();
        self.state.fleet().signal(server.id, Some(connection));
        let patience = self.state.config().vpn.connect_ack_timeout;
        let up = |addresses, server_key, node| Up {
            connection,
            preshared_key: preshared_key.clone(),
            addresses,
            server_key,
            started_at,
            db,
            node,
        };
        let refusal = match waiter.answer(patience).await {
            Ok(Answered {
                answer: NodeAnswer::Active(addresses),
                public_key,
                timings,
            }) => {
                return Ok(up(addresses, public_key, timings));
            }
            Ok(Answered {
                answer: NodeAnswer::Failed(_),
                ..
            }) => Refusal::Node,
            Ok(Answered {
                answer: NodeAnswer::Removed,
                ..
            }) => Refusal::ended(),
            // The answer may have been stored and its message lost.
            Err(unanswered) => match self.late_answer(connection).await? {
                Some((addresses, key)) => {
                    return Ok(up(addresses, key, AnswerTimings::default()));
                }
                None => self.give_up(connection, unanswered).await,
            },
        };
        assignment.release();
        Err(refusal)
    }

    async fn insert(&self, new: &NewConnection<'_>) -> Result<DateTime<Utc>, Refusal> {
        let mut conn = self.state.db().get().await?;
        for _ in 0..MAX_PLACE_RETRIES {
            match store::insert(&mut conn, new).await {
                Ok(Insertion::Inserted(started_at)) => return Ok(started_at),
                Ok(Insertion::Full) => return Err(Refusal::Collision(Code::ConnectionLimit)),
                Ok(Insertion::Overtaken) => return Err(Refusal::Collision(Code::Conflict)),
                Err(error) => match violated_index(&error) {
                    Some("connections_user_slot") => {}
                    Some("connections_live_key") => {
                        return Err(Refusal::Collision(Code::KeyInUse));
                    }
                    Some("connections_idempotency" | "connections_offer") => {
                        return Err(Refusal::Collision(Code::Conflict));
                    }
                    // It was removed since it was read.
                    Some("connections_device_id_fkey") => {
                        return Err(Refusal::Final(Code::DeviceNotFound.into()));
                    }
                    _ => return Err(error.into()),
                },
            }
        }
        Err(Refusal::Collision(Code::Conflict))
    }

    async fn late_answer(
        &self,
        connection: ConnectionId,
    ) -> Result<Option<(Addresses, PublicKey)>, ApiError> {
        let row = self.row(connection).await?;
        Ok(row
            .filter(|row| row.status == Status::Connected)
            .and_then(|row| Some((row.addresses?, row.server?.public_key))))
    }

    async fn give_up(&self, connection: ConnectionId, why: Unanswered) -> Refusal {
        tracing::info!(%connection, reason = %why, "tunnels.connect_unanswered");
        match end(self.state, connection, EndReason::NoAnswer, None).await {
            Ok(true) if why == Unanswered::TimedOut => Refusal::Node,
            Ok(true) => Refusal::Final(Code::Unavailable.into()),
            Ok(false) => Refusal::ended(),
            Err(error) => Refusal::Final(error),
        }
    }

    /// Cleanup does it if this fails: the new connection is up, which is what counts.
    async fn end_replaced(&self, old: ConnectionId) {
        if let Err(error) = end(self.state, old, EndReason::Moved, None).await {
            tracing::warn!(connection = %old, %error, "tunnels.move_unfinished");
        }
    }

    /// Answers with a connection that is there, or waits for it where another request is making it.
    async fn join(&self, connection: ConnectionId) -> Result<Established, ApiError> {
        let deadline = Instant::now() + self.state.config().vpn.connect_ack_timeout;
        loop {
            let row = self.row(connection).await?;
            let row = row
                .filter(|row| row.status.is_live())
                .ok_or(Code::NoServerAvailable)?;
            if row.status == Status::Connected {
                return self.joined(row);
            }
            if Instant::now() >= deadline {
                return Err(Code::NoServerAvailable.into());
            }
            tokio::time::sleep(JOIN_POLL).await;
        }
    }

    /// A client that connects to what was offered to it has taken it.
    async fn join_or_accept(
        &self,
        entitlement: &Entitlement,
        connection: ConnectionId,
    ) -> Result<Established, ApiError> {
        let established = self.join(connection).await?;
        let mut live = entitlement.live.iter();
        if let Some(offer) = live.find(|live| live.id == connection && live.is_offer) {
            offers::accept(self.state, self.user, entitlement, offer).await?;
        }
        Ok(established)
    }

    async fn row(&self, connection: ConnectionId) -> Result<Option<Connection>, ApiError> {
        let mut conn = self.state.db().get().await?;
        Ok(store::by_id(&mut conn, self.user, connection).await?)
    }

    fn joined(&self, row: Connection) -> Result<Established, ApiError> {
        let (Some(server), Some(addresses)) = (row.server, row.addresses) else {
            return Err(Code::NoServerAvailable.into());
        };
        let sealed = row.sealed_psk.as_deref();
        let preshared_key = sealed
            .map(|sealed| psk::open(self.state.keys(), row.id, sealed))
            .transpose()?;
        Ok(Established {
            connection: row.id,
            server,
            addresses,
            public_key: row.public_key,
            private_key: None,
            preshared_key,
            started_at: row.started_at,
            expires_at: row.expires_at,
            spent: Spent {
                db: self.started.elapsed(),
                total: self.started.elapsed(),
                ..Spent::default()
            },
            is_new: false,
        })
    }

    fn established(
        &self,
        server: &Server,
        entitlement: &Entitlement,
        keys: Keys,
        up: Up,
    ) -> Established {
        let total = self.started.elapsed();
        metrics::histogram!("tunnels_connect_seconds").record(total.as_secs_f64());
        Established {
            connection: up.connection,
            server: ServerSummary {
                public_key: up.server_key,
                ..ServerSummary::from(server)
            },
            addresses: up.addresses,
            public_key: keys.public,
            private_key: keys.private,
            preshared_key: Some(up.preshared_key),
            started_at: up.started_at,
            expires_at: entitlement.bounds.end_on(server.tier),
            spent: Spent {
                db: up.db,
                node: up.node,
                total,
            },
            is_new: true,
        }
    }
}

/// What a node acknowledged.
struct Up {
    connection: ConnectionId,
    preshared_key: PresharedKey,
    addresses: Addresses,
    server_key: PublicKey,
    started_at: DateTime<Utc>,
    db: Duration,
    node: AnswerTimings,
}

/// The client's key, with its private half where it is made here.
struct Keys {
    public: PublicKey,
    private: Option<PrivateKey>,
}

impl Keys {
    fn of(public_key: Option<PublicKey>) -> Self {
        if let Some(public) = public_key {
            return Self {
                public,
                private: None,
            };
        }
        let private = PrivateKey::generate();
        Self {
            public: private.public_key(),
            private: Some(private),
        }
    }
}

/// The name of the unique index or foreign key that a statement ran into.
fn violated_index(error: &Error) -> Option<&str> {
    use DatabaseErrorKind::{ForeignKeyViolation, UniqueViolation};
    match error {
        Error::DatabaseError(UniqueViolation | ForeignKeyViolation, info) => info.constraint_name(),
        _ => None,
    }
}
