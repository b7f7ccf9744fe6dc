//! Starting while something is missing: said clearly, waited for, and nothing half-started.

use std::net::TcpStream;

use control_plane::app::{Application, RunningApp, StartError};
use control_plane::config::Config;
use rstest::rstest;
use tests::redis::{TestRedis, free_port};
use tests::wait::scaled;
use tests::{TestDb, init, variables};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::SOON;

async fn start(database_url: &str, changes: &[(&str, &str)]) -> Result<RunningApp, StartError> {
    init();
    let mut variables = variables(database_url);
    for (name, value) in changes {
        variables.insert((*name).to_owned(), (*value).to_owned());
    }
    let config = Config::read(&variables).expect("the configuration is valid");
    Application::start(config).await
}

fn listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

#[rstest]
#[case::postgres(
    "DATABASE_URL",
    "postgresql://prime:none@127.0.0.1:PORT/prime",
    "Postgres does not answer"
)]
#[case::redis("REDIS_URL", "redis://127.0.0.1:PORT", "Redis does not answer")]
#[tokio::test(flavor = "multi_thread")]
async fn a_dependency_that_stays_away_is_named(
    #[case] variable: &str,
    #[case] url: &str,
    #[case] words: &str,
) {
    let db = TestDb::new().await;
    let (nobody, port) = (free_port(), free_port());
    let changes = [
        (variable, url.replace("PORT", &nobody.to_string())),
        ("START_TIMEOUT", "1".to_owned()),
        ("PORT", port.to_string()),
    ];
    let changes = changes
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let error = start(db.url(), &changes)
        .await
        .expect_err("nothing to run on");
    let text = error.to_string();
    assert!(text.contains(words) && text.contains("refused"), "{text}");
    assert!(!listens(port), "a service that did not start listens");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dependency_that_comes_late_is_waited_for() {
    let db = TestDb::new().await;
    let port = free_port();
    // Somebody who hangs up on whoever calls is not Redis, but sees that the plane asks for it.
    let deaf = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let redis_port = deaf.local_addr().expect("bound").port();
    let url = db.url().to_owned();
    let starting = tokio::spawn(async move {
        let (redis, port) = (format!("redis://127.0.0.1:{redis_port}"), port.to_string());
        start(&url, &[("REDIS_URL", &redis), ("PORT", &port)]).await
    });
    let asked = timeout(scaled(SOON), deaf.accept()).await;
    drop(asked.expect("the plane asks for Redis").expect("accepts"));
    drop(deaf);
    assert!(!listens(port), "it listens before everything is there");
    let _redis = TestRedis::start_at(redis_port).await;
    let running = starting.await.expect("no panic").expect("it starts");
    assert!(listens(port));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_schema_is_refused_with_the_mend() {
    let db = TestDb::empty().await;
    let error = start(db.url(), &[]).await.expect_err("no schema");
    assert!(
        error.to_string().contains("control-plane migrate"),
        "{error}"
    );
    let running = start(db.url(), &[("AUTO_MIGRATE", "true")]).await;
    running.expect("migrates by itself").stop().await;
}
