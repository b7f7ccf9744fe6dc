//! What clients are told when their server's WireGuard key changes.

use serde_json::json;
use shared::wireguard::PrivateKey;
use tests::sim::SimConfig;
use tests::{SimNode, TestApp};

use crate::SOON;

#[tokio::test(flavor = "multi_thread")]
async fn clients_hear_of_a_new_key_early_and_when_it_came() {
    let app = TestApp::start().await;
    let mut node = app.node("fra").await;
    let user = app.user().await;
    let tunnel = user.connected(&json!({})).await;
    let config = format!("/api/v1/connection/{}/config", tunnel.connection_id);
    let before = user.get(&config).await.expect(200).json();
    assert!(before["next_public_key"].is_null(), "{before}");
    let socket = user.metrics(user.user(), user.token()).await;
    let mut socket = socket.expect("the socket opens");
    socket.next_of("metrics").await;

    let next = PrivateKey::generate().public_key();
    let plan = format!(
        "UPDATE nodes SET rotate_key_at = '2030-01-31T12:00:00Z', next_public_key = '{next}'"
    );
    app.db().execute(&plan).await;
    app.refresh().await;
    let event = tokio::time::timeout(SOON, socket.next_of("server_key_changing")).await;
    let event = event.expect("told in time");
    assert_eq!(event["connection_id"], tunnel.connection_id.to_string());
    assert_eq!(event["next_public_key"], next.to_string());
    assert_eq!(event["key_changes_at"], "2030-01-31T12:00:00Z");
    let shown = user.get(&config).await.expect(200).json();
    let status = user.status().await;
    for view in [&shown, &status["connections"][0]] {
        assert_eq!(view["next_public_key"], next.to_string(), "{view}");
        assert_eq!(view["key_changes_at"], "2030-01-31T12:00:00Z", "{view}");
    }

    // The node changes its key and dials again, as an agent does.
    node.stop().await;
    let done = "UPDATE nodes SET rotate_key_at = NULL, next_public_key = NULL";
    app.db().execute(done).await;
    let renewed = SimConfig {
        public_key: next,
        ..node.config().clone()
    };
    let mut node = SimNode::with_identity(app.url(), node.server(), node.token(), renewed);
    node.start();
    node.wait_online().await;
    let event = tokio::time::timeout(SOON, socket.next_of("server_key_changed")).await;
    let event = event.expect("told in time");
    assert_eq!(event["server_public_key"], next.to_string());
    let text = event["wg_config"].as_str().expect("a configuration");
    assert!(text.contains(&format!("PublicKey = {next}\n")), "{text}");
    assert!(text.contains(&tunnel.assigned_ip.to_string()), "{text}");
    let after = user.get(&config).await.expect(200).json();
    assert!(after["next_public_key"].is_null(), "{after}");
    app.finish(&[&node]).await;
}
