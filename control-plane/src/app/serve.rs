//! Start and stop. Nothing listens before everything works, and nothing is cut off at the end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use actix_web::dev::{Server, ServerHandle};
use actix_web::{App, HttpServer, web};
use futures_util::future::join_all;
use secrecy::ExposeSecret;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;

use super::dependencies::{self, DependencyError};
use super::state::{AppState, StateError};
use super::{metrics, tls, upkeep};
use crate::billing::customers::ClosingJobs;
use crate::billing::refunds::RefundJobs;
use crate::billing::webhook::EventJobs;
use crate::config::Config;
use crate::db::{self, MigrationError};
use crate::guard::CountryError;
use crate::jobs::{self, Handlers};
use crate::mail::{MailError, Postman};
use crate::router::{self, Documentation};
use crate::{analytics, billing, listener, overview, tunnels, usage};

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Dependency(#[from] DependencyError),
    #[error(transparent)]
    Migration(#[from] MigrationError),
    #[error("the database is older than this build: run `control-plane migrate`")]
    PendingMigrations,
    #[error(transparent)]
    Mail(#[from] MailError),
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    #[error(transparent)]
    Country(#[from] CountryError),
    #[error("cannot listen on {address} ({variables})")]
    Listen {
        address: SocketAddr,
        variables: &'static str,
        source: io::Error,
    },
}

/// The whole service in one process.
#[derive(Debug)]
pub struct Application;

impl Application {
    /// Brings everything up. Needs a multi-thread runtime and rustls's provider installed.
    pub async fn start(config: Config) -> Result<RunningApp, StartError> {
        let state = state(config)?;
        dependencies::wait(state.config()).await?;
        migrate(state.config()).await?;
        let handlers = Handlers::new(vec![
            Box::new(Postman::new(state.config())?),
            Box::new(EventJobs::new(state.clone().into_inner())),
            Box::new(ClosingJobs::new(state.clone().into_inner())),
            Box::new(RefundJobs::new(state.clone().into_inner())),
        ]);
        let (server, address) = api_server(&state)?;
        let (metrics_server, metrics_address) = metrics_server(&state)?;
        let handle = server.handle();
        let metrics_handle = metrics_server.handle();
        let server = tokio::spawn(server);
        // The workers open the pool's connections before the tasks do; nobody is answered yet.
        handle.pause().await;
        start_tasks(&state, handlers).await;
        handle.resume().await;
        tokio::spawn(metrics_server);
        tracing::info!(%address, %metrics_address, replica = %state.replica(), "listening");
        Ok(RunningApp {
            address,
            metrics_address,
            state,
            handle,
            metrics_handle,
            server,
        })
    }
}

/// A started application. Dropping it leaves it running.
#[derive(Debug)]
pub struct RunningApp {
    /// Where the API listens; the real port where the configuration said 0.
    pub address: SocketAddr,
    pub metrics_address: SocketAddr,
    state: web::Data<AppState>,
    handle: ServerHandle,
    metrics_handle: ServerHandle,
    server: JoinHandle<io::Result<()>>,
}

impl RunningApp {
    #[must_use]
    pub fn state(&self) -> &AppState {
        &self.state
    }

    /// Ends when the server ends by itself, which it does not unless it failed.
    pub async fn failed(&mut self) -> Result<io::Result<()>, JoinError> {
        (&mut self.server).await
    }

    /// Stops accepting, lets requests finish, then ends the long-lived connections and lets the
    /// background tasks finish, each within the configured time.
    pub async fn stop(self) {
        let deadline = self.state.config().http.shutdown_timeout;
        let stopping = tokio::spawn(self.handle.stop(true));
        self.state.requests().close();
        // A connect needs the node's session until it is answered.
        if timeout(deadline / 2, self.state.requests().wait())
            .await
            .is_err()
        {
            tracing::warn!(
                left = self.state.requests().len(),
                "requests did not end in time"
            );
        }
        self.state.shutdown().cancel();
        if let Err(error) = stopping.await {
            tracing::error!(%error, "the server did not stop in order");
        }
        self.state.tasks().close();
        if timeout(deadline, self.state.tasks().wait()).await.is_err() {
            tracing::warn!(
                left = self.state.tasks().len(),
                "background tasks did not end in time"
            );
        }
        self.metrics_handle.stop(false).await;
        tracing::info!("stopped");
    }
}

fn state(config: Config) -> Result<web::Data<AppState>, StartError> {
    let mut state = AppState::new(config)?;
    state.load()?;
    Ok(web::Data::new(state))
}

async fn migrate(config: &Config) -> Result<(), StartError> {
    let url = config.database.url.expose_secret();
    if !db::pending(url).await? {
        return Ok(());
    }
    if !config.app.auto_migrate {
        return Err(StartError::PendingMigrations);
    }
    for name in db::run(url).await? {
        tracing::info!(name, "migrated");
    }
    Ok(())
}

fn api_server(state: &web::Data<AppState>) -> Result<(Server, SocketAddr), StartError> {
    let config = &state.config().http;
    let documentation = web::Data::new(Documentation::new());
    let shared = state.clone();
    let share = usize::try_from(state.config().database.pool_size).unwrap_or(usize::MAX);
    let share = share.div_ceil(config.workers);
    let tls = match &config.tls {
        Some(files) => {
            let certificate = tls::Certificate::load(files.clone())?;
            let tls = tls::server_config(Arc::clone(&certificate));
            let stop = state.shutdown().clone();
            state.tasks().spawn(certificate.follow(stop));
            Some(tls)
        }
        None => None,
    };
    let serving = listener::serve(state.config(), tls, move || {
        actix_web::rt::spawn(open_connections(shared.clone(), share));
        router::app(&shared, &documentation)
    });
    serving.map_err(|source| StartError::Listen {
        address: SocketAddr::new(config.host, config.port),
        variables: "HOST, PORT",
        source,
    })
}

/// Opens a worker's share of the pool. A connection is served by the thread that opened it, and a
/// request of another thread pays for it with two changes of threads a query.
async fn open_connections(state: web::Data<AppState>, share: usize) {
    // Postgres may be away: then they are opened when they are needed.
    let _opened = join_all((0..share).map(|_| state.db().get())).await;
}

fn metrics_server(state: &web::Data<AppState>) -> Result<(Server, SocketAddr), StartError> {
    let config = &state.config().http;
    let address = SocketAddr::new(config.metrics_host, config.metrics_port);
    let shared = state.clone();
    let server = HttpServer::new(move || {
        App::new()
            .app_data(shared.clone())
            .route("/metrics", web::get().to(metrics::render))
    })
    .workers(1)
    .disable_signals()
    .bind(address)
    .map_err(|source| StartError::Listen {
        address,
        variables: "METRICS_HOST, METRICS_PORT",
        source,
    })?;
    let address = server.addrs().first().copied().unwrap_or(address);
    Ok((server.run(), address))
}

async fn start_tasks(state: &web::Data<AppState>, handlers: Handlers) {
    let tasks = state.tasks();
    tasks.spawn(metrics::upkeep(
        state.metrics().clone(),
        state.shutdown().clone(),
    ));
    state.fleet().start(tasks).await;
    let hearing = state.clone();
    tasks.spawn(async move {
        let revocations = hearing.revocations();
        revocations.run(hearing.db(), hearing.shutdown()).await;
    });
    let counting = state.clone();
    tasks.spawn(async move {
        let stop = counting.shutdown().clone();
        counting.live().run(counting.db(), stop).await;
    });
    let rolling = state.clone();
    tasks.spawn(async move { analytics::run(&rolling).await });
    let guarding = state.clone();
    tasks.spawn(async move { guarding.guard().run(guarding.shutdown()).await });
    let cleaning = state.clone();
    tasks.spawn(async move { tunnels::clean_up(&cleaning).await });
    let offering = state.clone();
    tasks.spawn(async move { tunnels::make_offers(&offering).await });
    let looking = state.clone();
    tasks.spawn(async move { usage::look(&looking).await });
    let watching = state.clone();
    tasks.spawn(async move { usage::keep_watchlist(&watching).await });
    let measuring = state.clone();
    tasks.spawn(async move { usage::keep_round_trips(&measuring).await });
    let reporting = state.clone();
    tasks.spawn(async move { overview::report(&reporting).await });
    let sharing = state.clone();
    tasks.spawn(async move { tunnels::share_quotas(&sharing).await });
    let lapsing = state.clone();
    tasks.spawn(async move { billing::subscription::run(&lapsing).await });
    if state.payments().is_ok() {
        let comparing = state.clone();
        tasks.spawn(async move { billing::reconcile::nightly(&comparing).await });
    }
    tasks.spawn(jobs::run(state.clone().into_inner(), handlers));
    let sweeping = state.clone();
    tasks.spawn(async move { jobs::periodic::run(&sweeping, upkeep::CHORES).await });
}
