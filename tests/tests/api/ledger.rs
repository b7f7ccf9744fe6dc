//! What the nodes counted is what the books come to, to the byte, whatever is killed or moved meanwhile.
//!
//! The plane is a process, the nodes are simulated. All the time people move bytes, come and go, and
//! interfaces are made anew; all the time the books are read ([`crowd`]): they never go back, never say more
//! than the nodes counted, and rollups agree with connections at every moment. `LEDGER_SEED` plays a run again.

mod crowd;

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use rand::Rng;
use tests::api::metric;
use tests::lab::{Plane, PlaneSettings, Postgres};
use tests::{TestDb, wait_until};

use crate::SOON;
use crowd::Crowd;

/// Kills of the plane; `LEDGER_KILLS` makes it more.
const KILLS: u64 = 5;
/// Within which a kill comes: a frame comes every second, and is stored within two.
const LONGEST: u64 = 2_500;
/// Seconds without Postgres, at least; `LEDGER_AWAY` makes it more. A turn gives up after five.
const AWAY: u64 = 9;
/// Turns that fail meanwhile, at least.
const FAILURES: u64 = 2;
const MOVES: usize = 20;

fn told(variable: &str) -> Option<u64> {
    let told = std::env::var(variable).ok()?;
    Some(told.parse().expect("a number"))
}

/// What this run's moments are made of.
fn seed() -> u64 {
    let seed = told("LEDGER_SEED").unwrap_or_else(rand::random);
    eprintln!("LEDGER_SEED={seed}");
    seed
}

async fn plane(folder: &Path, database_url: &str) -> Plane {
    let settings = PlaneSettings {
        address: Ipv4Addr::LOCALHOST,
        database_url: database_url.to_owned(),
        tls: false,
        more: Vec::new(),
    };
    Plane::start(folder, &settings).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plane_is_killed_between_a_frame_and_its_storing() {
    let (db, folder) = (TestDb::new().await, tempfile::tempdir().expect("a folder"));
    let mut plane = plane(folder.path(), db.url()).await;
    let mut crowd = Crowd::gather(&plane, db.url(), seed()).await;
    let mut unstored = 0;
    for _ in 0..told("LEDGER_KILLS").unwrap_or(KILLS) {
        let moment = crowd.random.random_range(0..LONGEST);
        crowd.move_for(Duration::from_millis(moment)).await;
        plane.kill();
        unstored += crowd.lost_with(plane.url()).await;
        plane = crowd.move_while(plane.restart()).await;
    }
    crowd.leave().await;
    eprintln!("{unstored} totals that the plane had shown died with it; {crowd}");
    assert!(unstored > 0, "no kill came between a frame and its storing");
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_away() {
    let (mut postgres, folder) = (
        Postgres::start().await,
        tempfile::tempdir().expect("a folder"),
    );
    let plane = plane(folder.path(), &postgres.url()).await;
    let mut crowd = Crowd::gather(&plane, &postgres.url(), seed()).await;
    crowd.move_for(Duration::from_secs(1)).await;
    postgres.kill();
    let away = Duration::from_secs(told("LEDGER_AWAY").unwrap_or(AWAY));
    crowd.move_for(away).await;
    let failures = async || metric(&plane.metrics_url(), "usage_flush_failures_total").await;
    crowd
        .move_while(wait_until("turns fail", SOON, async || {
            failures().await >= FAILURES
        }))
        .await;
    let failed = failures().await;
    crowd
        .move_while(wait_until("Postgres is back", SOON, async || {
            if !postgres.is_running() {
                postgres.run();
            }
            postgres.try_connect().await.is_some()
        }))
        .await;
    crowd.leave().await;
    eprintln!("{failed} turns failed while Postgres was away for {away:?}; {crowd}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_move_between_two_replicas() {
    let db = TestDb::new().await;
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let planes = [
        plane(folders[0].path(), db.url()).await,
        plane(folders[1].path(), db.url()).await,
    ];
    let mut crowd = Crowd::gather(&planes[0], db.url(), seed()).await;
    crowd.ask(&planes[1]);
    for number in 1..=MOVES {
        let moment = crowd.random.random_range(0..600);
        crowd.move_for(Duration::from_millis(moment)).await;
        crowd.move_node(0, planes[number % 2].url()).await;
    }
    crowd.leave().await;
    eprintln!("{MOVES} moves; {crowd}");
}
