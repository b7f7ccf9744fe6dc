//! Changing `SECRET_KEY`.

use control_plane::config::Config;
use control_plane::jobs;
use control_plane::secrets::KeyRing;
use control_plane::secrets::rotation::{COLUMNS, Rotated, rotate};
use serde_json::json;
use tests::api::PASSWORD;
use tests::{TestApp, TestDb, variables};

use crate::mfa::{Authenticator, EMAIL};

const OLD: &str = "a-secret-of-the-tests-that-is-long-enough";
const NEW: &str = "a-new-secret-of-the-tests-of-enough-length";

fn keys(current: &str, old: &str) -> KeyRing {
    let mut variables = variables("postgres://localhost/none");
    variables.insert("SECRET_KEY".to_owned(), current.to_owned());
    variables.insert("SECRET_KEYS_OLD".to_owned(), old.to_owned());
    let config = Config::read(&variables).expect("a configuration");
    KeyRing::new(&config.app.keys).expect("keys")
}

async fn rotate_all(db: &TestDb, keys: &KeyRing) -> Vec<Rotated> {
    let mut connection = db.connect().await;
    let mut all = Vec::new();
    for column in COLUMNS {
        let rotated = rotate(&mut connection, keys, *column).await;
        all.push(rotated.expect("the column can be rotated"));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_sealed_again_and_still_opens() {
    let app = TestApp::start().await;
    let person = app.client().sign_up(EMAIL).await;
    let authenticator = Authenticator::enabled(&person).await;
    // This replica will not have the new key: what it has to do, it does before.
    app.jobs_end().await;
    let rotated = rotate_all(app.db(), &keys(NEW, OLD)).await;
    assert_eq!(rotated[0].column, "totp_factors.sealed_secret");
    assert_eq!(rotated[0].resealed, 1);
    assert!(rotated[0].unreadable.is_empty(), "{rotated:?}");
    let again = rotate_all(app.db(), &keys(NEW, OLD)).await;
    assert_eq!(again[0].resealed, 0, "nothing is left to do");

    // A replica that never heard of the old key reads the secret.
    let config = |variables: &mut control_plane::config::Variables| {
        variables.insert("DATABASE_URL".to_owned(), app.db().url().to_owned());
        variables.insert("SECRET_KEY".to_owned(), NEW.to_owned());
    };
    let renewed = TestApp::with(config).await;
    let body = json!({
        "email": EMAIL, "password": PASSWORD, "otp": authenticator.next_code(),
    });
    let login = renewed.client().post("/api/v1/auth/login", &body).await;
    let _ = login.expect(200);
    renewed.finish(&[]).await;
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_connections_preshared_key_is_sealed_again() {
    let app = TestApp::start().await;
    let _node = app.node("fra").await;
    let user = app.user().await;
    let (live, over) = (
        user.connected(&json!({})).await,
        user.connected(&json!({})).await,
    );
    user.disconnected(over.connection_id).await;
    let rotated = rotate_all(app.db(), &keys(NEW, OLD)).await;
    assert_eq!(rotated[2].column, "connections.sealed_psk");
    assert_eq!(rotated[2].resealed, 1, "the other has none any more");
    assert!(rotated[2].unreadable.is_empty(), "{rotated:?}");
    let renewed = TestApp::with(|variables| {
        variables.insert("DATABASE_URL".to_owned(), app.db().url().to_owned());
        variables.insert("SECRET_KEY".to_owned(), NEW.to_owned());
    })
    .await;
    let path = format!("/api/v1/connection/{}/config.conf", live.connection_id);
    let config = user.at(renewed.url()).get(&path).await.expect(200).text();
    let key = live.preshared_key.expect("a preshared key");
    assert!(config.contains(&format!("\nPresharedKey = {key}\n")));
    renewed.finish(&[]).await;
    // The first replica has no key for it now.
    drop(app);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_key_opens_is_named_and_left_alone() {
    let app = TestApp::start().await;
    let person = app.client().sign_up(EMAIL).await;
    let _ = Authenticator::enabled(&person).await;
    let stored = "SELECT encode(sealed_secret, 'hex') FROM totp_factors";
    let before = app.db().texts(stored).await;
    let rotated = rotate_all(
        app.db(),
        &keys(NEW, "a-third-secret-which-has-sealed-nothing"),
    )
    .await;
    assert_eq!(rotated[0].resealed, 0);
    let rows: Vec<_> = rotated[0].unreadable.iter().map(|(row, _)| *row).collect();
    assert_eq!(rows, [person.user().0]);
    assert_eq!(app.db().texts(stored).await, before);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_wait_are_sealed_again_however_many() {
    const JOBS: usize = 1001;
    let db = TestDb::new().await;
    let mut connection = db.connect().await;
    for number in 0..JOBS {
        let enqueued = jobs::enqueue(&mut connection, &keys(OLD, ""), "mail", &number).await;
        enqueued.expect("a job");
    }
    db.execute(
        "UPDATE jobs SET status = 'done', sealed = '' WHERE id = (SELECT id FROM jobs LIMIT 1)",
    )
    .await;
    let rotated = rotate_all(&db, &keys(NEW, OLD)).await;
    assert_eq!(rotated[1].column, "jobs.sealed");
    assert_eq!(rotated[1].resealed, JOBS - 1, "all that wait");
    assert!(rotated[1].unreadable.is_empty(), "{rotated:?}");
    let again = rotate_all(&db, &keys(NEW, "")).await;
    assert_eq!(again[1].resealed + again[1].unreadable.len(), 0);
}
