//! A connection's preshared key: with its client and its node, and nowhere else.

use std::str::FromStr;

use serde_json::json;
use shared::wireguard::{PresharedKey, PrivateKey};
use tests::api::{Client, Tunnel};
use tests::{SimNode, TestApp};

fn told(tunnel: &Tunnel) -> PresharedKey {
    let text = tunnel.preshared_key.as_deref().expect("a preshared key");
    PresharedKey::from_str(text).expect("a key")
}

fn held(node: &SimNode, tunnel: &Tunnel) -> Option<PresharedKey> {
    node.peer_of(tunnel.connection_id)?.preshared_key
}

/// Every row of the connections as it is stored.
async fn rows(app: &TestApp) -> String {
    let rows = app.db().texts("SELECT c::text FROM connections c").await;
    rows.join("\n")
}

async fn config(user: &Client, tunnel: &Tunnel) -> String {
    let path = format!("/api/v1/connection/{}/config.conf", tunnel.connection_id);
    user.get(&path).await.expect(200).text()
}

#[tokio::test(flavor = "multi_thread")]
async fn client_and_node_have_the_same_and_each_connection_another() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let user = app.user().await;
    let (first, second) = (
        user.connected(&json!({})).await,
        user.connected(&json!({})).await,
    );
    for tunnel in [&first, &second] {
        assert_eq!(held(&node, tunnel), Some(told(tunnel)));
        let line = format!(
            "\nPresharedKey = {}\n",
            told(tunnel).expose_base64().as_str()
        );
        assert!(tunnel.wg_config.contains(&line));
        assert!(config(&user, tunnel).await.contains(&line));
    }
    assert!(told(&first) != told(&second));
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_connect_brings_it_again() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let user = app.user().await;
    let body = json!({ "client_public_key": PrivateKey::generate().public_key() });
    let first = user.connected(&body).await;
    let again = user.connected(&body).await;
    assert_eq!(again.connection_id, first.connection_id);
    assert_eq!(told(&again), told(&first));
    assert_eq!(again.wg_config, first.wg_config);
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_back_gets_it_again() {
    let app = TestApp::start().await;
    let mut node = app.node("fra").await;
    let tunnel = app.user().await.connected(&json!({})).await;
    node.stop().await;
    let mut blank = node.twin();
    blank.start();
    blank.wait_online().await;
    app.assert_in_step(&blank).await;
    assert_eq!(held(&blank, &tunnel), Some(told(&tunnel)));
    app.finish(&[&blank]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_the_database_shows_none() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let user = app.user().await;
    let tunnel = user.connected(&json!({})).await;
    let key = told(&tunnel);
    let copy = rows(&app).await;
    let bytes = key.expose_bytes();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(!copy.contains(&hex) && !copy.contains(key.expose_base64().as_str()));
    let sealed = "SELECT count(*) FROM connections WHERE sealed_psk IS NOT NULL";
    assert_eq!(app.db().number(sealed).await, 1);
    user.disconnected(tunnel.connection_id).await;
    assert_eq!(app.db().number(sealed).await, 0, "it ended");
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_reads_it() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let (ada, eve) = (app.user().await, app.user().await);
    let tunnel = ada.connected(&json!({})).await;
    for form in ["config", "config.conf", "qr.svg", "qr.png"] {
        let path = format!("/api/v1/connection/{}/{form}", tunnel.connection_id);
        eve.get(&path)
            .await
            .expect_error(404, "CONNECTION_NOT_FOUND");
    }
    app.finish(&[&node]).await;
}
