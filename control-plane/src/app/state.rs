//! What every handler can reach.

use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use secrecy::ExposeSecret;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::metrics;
use crate::accounts::passwords::{PasswordError, PasswordHasher};
use crate::accounts::sessions::Revocations;
use crate::accounts::tokens::{TokenError, TokenIssuer};
use crate::billing::Payments;
use crate::billing::stripe::StripeSetupError;
use crate::config::Config;
use crate::db::{self, Pool, RedisPool};
use crate::error::{ApiError, Code};
use crate::fleet::identity::{Identity, IdentityError};
use crate::fleet::{self, Fleet};
use crate::guard::{self, CountryError, Guard};
use crate::jobs::Bell;
use crate::operators::{self, Authority};
use crate::overview::Overview;
use crate::secrets::{KeyRing, SealError};
use crate::tunnels::NodeLog;
use crate::usage::Live;

/// How often nodes report counters and load.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// One replica's state. Building it opens no connection.
#[derive(Debug)]
pub struct AppState {
    config: Config,
    db: Pool,
    redis: RedisPool,
    tokens: TokenIssuer,
    passwords: PasswordHasher,
    keys: Arc<KeyRing>,
    operators: Authority,
    revocations: Revocations,
    guard: Guard,
    metrics: PrometheusHandle,
    fleet: Arc<Fleet>,
    live: Arc<Live>,
    payments: Option<Payments>,
    jobs: Bell,
    overview: Overview,
    replica: Uuid,
    shutdown: CancellationToken,
    requests: TaskTracker,
    tasks: TaskTracker,
}

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("REDIS_URL cannot be used")]
    Redis(#[from] redis::RedisError),
    #[error(transparent)]
    Passwords(#[from] PasswordError),
    #[error("NODE_ROOT_KEY cannot be used")]
    Identity(#[from] IdentityError),
    #[error("JWT_PRIVATE_KEY cannot be used")]
    Tokens(#[from] TokenError),
    #[error("SECRET_KEY cannot be used")]
    Keys(#[from] SealError),
    #[error("SECRET_KEY cannot sign operator tokens")]
    Operators(#[from] operators::TokenError),
    #[error(transparent)]
    Stripe(#[from] StripeSetupError),
    #[error(transparent)]
    Metrics(#[from] metrics::MetricsError),
}

impl AppState {
    pub fn new(config: Config) -> Result<Self, StateError> {
        // Before everything that keeps a handle of it.
        let metrics = metrics::recorder()?;
        let db = db::connect(
            config.database.url.expose_secret(),
            config.database.pool_size,
        );
        let redis = redis::Client::open(config.redis.url.expose_secret())?;
        let (replica, shutdown) = (Uuid::new_v4(), CancellationToken::new());
        let live = Arc::new(Live::new());
        let keys = Arc::new(KeyRing::new(&config.app.keys)?);
        let fleet = Fleet::new(fleet::Parts {
            db: db.clone(),
            redis: redis.clone(),
            replica,
            identity: Identity::new(&config.nodes)?,
            desired: Arc::new(NodeLog::new(db.clone(), live.clone(), keys.clone())),
            counters: live.clone(),
            report_interval: REPORT_INTERVAL,
            shutdown: shutdown.clone(),
        });
        Ok(Self {
            db: db.clone(),
            fleet,
            live,
            redis: db::connect_redis(config.redis.url.expose_secret(), config.redis.pool_size)?,
            tokens: TokenIssuer::new(&config.tokens)?,
            passwords: PasswordHasher::new()?,
            keys: keys.clone(),
            operators: Authority::new(&config.app.keys)?,
            guard: Guard::new(guard::Parts {
                config: &config,
                db: db.clone(),
                redis: redis.clone(),
                keys,
            }),
            revocations: Revocations::new(redis, config.tokens.access_token_life),
            payments: Payments::new(&config.stripe)?,
            metrics,
            jobs: Bell::default(),
            overview: Overview::default(),
            replica,
            shutdown,
            requests: TaskTracker::new(),
            tasks: TaskTracker::new(),
            config,
        })
    }

    /// Reads the files that requests are judged by, which building it does not.
    pub(super) fn load(&mut self) -> Result<(), CountryError> {
        self.guard.load()
    }

    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    #[must_use]
    pub const fn db(&self) -> &Pool {
        &self.db
    }

    #[must_use]
    pub const fn redis(&self) -> &RedisPool {
        &self.redis
    }

    #[must_use]
    pub const fn tokens(&self) -> &TokenIssuer {
        &self.tokens
    }

    #[must_use]
    pub const fn passwords(&self) -> &PasswordHasher {
        &self.passwords
    }

    /// What seals sensitive columns.
    #[must_use]
    pub fn keys(&self) -> &KeyRing {
        &self.keys
    }

    /// What signs and reads operator tokens.
    #[must_use]
    pub const fn operators(&self) -> &Authority {
        &self.operators
    }

    /// The sessions that ended and may still have an access token.
    #[must_use]
    pub const fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// Limits and bans.
    #[must_use]
    pub const fn guard(&self) -> &Guard {
        &self.guard
    }

    #[must_use]
    pub const fn metrics(&self) -> &PrometheusHandle {
        &self.metrics
    }

    #[must_use]
    pub const fn fleet(&self) -> &Arc<Fleet> {
        &self.fleet
    }

    /// What the nodes of this replica count at this moment.
    #[must_use]
    pub const fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// What there is where payments are configured; `PAYMENTS_NOT_CONFIGURED` where they are not.
    pub fn payments(&self) -> Result<&Payments, ApiError> {
        let payments = self.payments.as_ref();
        payments.ok_or_else(|| Code::PaymentsNotConfigured.into())
    }

    /// Rung after a commit with a job in it.
    #[must_use]
    pub const fn jobs(&self) -> &Bell {
        &self.jobs
    }

    /// The whole at a glance, as this replica shows it.
    #[must_use]
    pub const fn overview(&self) -> &Overview {
        &self.overview
    }

    /// This process among the replicas, for the time of its run.
    #[must_use]
    pub const fn replica(&self) -> Uuid {
        self.replica
    }

    /// Cancelled when the service stops: long-lived work ends itself then.
    #[must_use]
    pub const fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    /// The requests being answered; each holds a token. They are let finish before `shutdown`.
    #[must_use]
    pub const fn requests(&self) -> &TaskTracker {
        &self.requests
    }

    /// Work that a stop waits for, such as the last flush of the usage.
    #[must_use]
    pub const fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }
}
