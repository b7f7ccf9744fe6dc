//! What runs beside the requests: the view, the heartbeats, the bus.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use shared::ids::ServerId;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::task::TaskTracker;

use super::Fleet;
use super::bus::{Channel, Notice};
use super::session::{Ending, Handle};
use super::store::{self, Beat, Standing};
use crate::error::ApiError;

/// How often the view is read anew without a reason.
const REFRESH_EVERY: Duration = Duration::from_secs(5);
/// Reasons that come closer together than this are one.
const REFRESH_GAP: Duration = Duration::from_millis(200);
const HEARTBEAT_EVERY: Duration = Duration::from_secs(5);
/// How often to look for changes that could not be signalled.
const POLL_EVERY: Duration = Duration::from_secs(1);

pub(super) async fn start(fleet: &Arc<Fleet>, tasks: &TaskTracker) {
    refresh(fleet).await;
    tasks.spawn(keep_view(Arc::clone(fleet)));
    tasks.spawn(keep_beating(Arc::clone(fleet)));
    tasks.spawn(keep_polling(Arc::clone(fleet)));
    let publisher = Arc::clone(fleet);
    tasks.spawn(async move {
        publisher
            .bus
            .run_publisher(publisher.shutdown.clone())
            .await
    });
    let listener = Arc::clone(fleet);
    tasks.spawn(async move {
        let receive = |notice| listener.receive(notice);
        let shutdown = listener.shutdown.clone();
        listener
            .bus
            .run_listener(listener.replica, shutdown, receive)
            .await;
    });
}

async fn keep_view(fleet: Arc<Fleet>) {
    let due = async |fleet: &Fleet| {
        tokio::select! {
            () = fleet.stale.notified() => {}
            () = sleep(REFRESH_EVERY) => {}
        }
    };
    while fleet
        .shutdown
        .run_until_cancelled(due(&fleet))
        .await
        .is_some()
    {
        refresh(&fleet).await;
        sleep(REFRESH_GAP).await;
    }
}

async fn refresh(fleet: &Fleet) {
    if let Err(error) = fleet.refresh().await {
        warn("fleet.view.refresh_failed", &error);
    }
}

async fn keep_beating(fleet: Arc<Fleet>) {
    let mut tick = interval(HEARTBEAT_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while fleet
        .shutdown
        .run_until_cancelled(tick.tick())
        .await
        .is_some()
    {
        if let Err(error) = beat(&fleet).await {
            warn("fleet.heartbeat_failed", &error);
        }
    }
}

/// Writes every session's figures; ends sessions that lost their lease, calls those that lag.
async fn beat(fleet: &Fleet) -> Result<(), ApiError> {
    let sessions = fleet.sessions.all();
    let beats: Vec<_> = sessions
        .iter()
        .map(|session| Beat {
            server: session.server,
            fence: session.fence,
            epoch: session.epoch,
            vitals: session.vitals(),
        })
        .collect();
    if beats.is_empty() {
        return Ok(());
    }
    let held = store::heartbeat(&fleet.db, &beats).await?;
    call_lagging(fleet, &held);
    let held: HashSet<ServerId> = held.into_iter().map(|standing| standing.server).collect();
    let lost = sessions
        .iter()
        .filter(|session| !held.contains(&session.server));
    lost.for_each(|session| session.end(Ending::Replaced));
    Ok(())
}

/// While Redis is away nobody can say that something changed, so the sessions ask, and the catalogue
/// is read as often.
async fn keep_polling(fleet: Arc<Fleet>) {
    let mut tick = interval(POLL_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while fleet
        .shutdown
        .run_until_cancelled(tick.tick())
        .await
        .is_some()
    {
        if fleet.bus.is_up() {
            continue;
        }
        fleet.stale.notify_one();
        let sessions = fleet.sessions.all();
        if sessions.is_empty() {
            continue;
        }
        let servers: Vec<_> = sessions.iter().map(|session| session.server).collect();
        match store::standings(&fleet.db, &servers).await {
            Ok(standings) => {
                call_lagging(&fleet, &standings);
                let is_gone = |session: &&Arc<Handle>| {
                    !standings
                        .iter()
                        .any(|standing| standing.server == session.server)
                };
                let gone = sessions.iter().filter(is_gone);
                gone.for_each(|session| session.end(Ending::Revoked));
            }
            Err(error) => warn("fleet.poll_failed", &error),
        }
    }
}

/// Tells sessions what their signals may have failed to: changes past what was sent, other wishes of
/// the operator, a newer session.
fn call_lagging(fleet: &Fleet, standings: &[Standing]) {
    for standing in standings {
        let Some(session) = fleet.sessions.get(standing.server) else {
            continue;
        };
        let vitals = session.vitals();
        if standing.revision > vitals.sent {
            session.wake();
        }
        if vitals
            .settings
            .is_some_and(|said| said != standing.settings)
        {
            session.redirect();
        }
        if standing.fence > session.fence {
            session.end(Ending::Replaced);
        }
    }
}

fn warn(event: &'static str, error: &ApiError) {
    let source = std::error::Error::source(error);
    tracing::warn!(event, %error, ?source, "fleet.task");
}

impl Fleet {
    fn receive(&self, notice: Notice) {
        match notice {
            Notice::Wake { server, asker } => {
                if !self.sessions.has(server) {
                    return;
                }
                let asker = asker.filter(|(_, replica)| *replica != self.replica);
                if let Some((connection, replica)) = asker
                    && let Some(answered) = self.waiters.ask(connection, replica)
                {
                    let notice = Notice::Answer {
                        connection,
                        answered,
                    };
                    self.bus.publish(Channel::Replica(replica), notice);
                }
                self.sessions.wake(server);
            }
            Notice::Answer {
                connection,
                answered,
            } => {
                self.waiters.resolve(connection, &answered);
            }
            Notice::TakenOver { server, fence } => {
                self.sessions.end_before(server, fence, Ending::Replaced);
            }
            Notice::Revoked { server, fence } => {
                self.sessions.end_before(server, fence, Ending::Revoked);
            }
            Notice::Redirected { server } => self.sessions.redirect(server),
            Notice::FleetChanged => self.stale.notify_one(),
            Notice::TierChanged { user } => self.tiers.forget(user),
            Notice::LookedAt {
                server,
                replica,
                peers,
            } => self.looked_at(server, replica, peers),
            Notice::RoundTrips { server, trips } => self.counters.round_trips(server, &trips),
            Notice::Unknown => {}
        }
    }
}
