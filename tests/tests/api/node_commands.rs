//! `control-plane node …`, beside a plane that runs.

use serde_json::json;
use shared::protocol::{Settings, close};
use tests::command::{Said, control_plane};
use tests::{SimNode, TestApp, wait_until};

use crate::SOON;
use crate::admin_servers::acts;

async fn node_command(app: &TestApp, arguments: &[&str]) -> Said {
    let arguments: Vec<_> = ["node"].iter().chain(arguments).copied().collect();
    control_plane(Some(app.db().url()), &arguments, "").await
}

async fn said(app: &TestApp, arguments: &[&str]) -> String {
    node_command(app, arguments).await.expect()
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_are_listed_and_shown() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let list = said(&app, &["list"]).await;
    assert!(list.starts_with("fra\tactive\tonline\t-\t"), "{list}");
    for name in ["fra", "FRA", &node.server().to_string()] {
        let shown = said(&app, &["show", name]).await;
        for word in ["endpoint\t192.0.2.", "backend\tsimulated", "as expected"] {
            assert!(shown.contains(word), "{word} in {shown}");
        }
    }
    let unknown = node_command(&app, &["show", "nyc"]).await;
    assert!(
        !unknown.success && unknown.err.contains("nyc"),
        "{}",
        unknown.err
    );
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_counts_down_to_the_last_client() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let user = app.user().await;
    let tunnel = user.connected(&json!({})).await;
    let late = node_command(&app, &["drain", "fra", "--wait", "--deadline", "1s"]).await;
    assert!(
        !late.success && late.out.trim() == "1 live",
        "{} {}",
        late.out,
        late.err
    );
    wait_until("the node is told", SOON, async || {
        node.session().settings
            == Some(Settings {
                draining: true,
                rotate_key_at: None,
            })
    })
    .await;
    wait_until("selection knows", SOON, async || !app.is_selectable(&node)).await;
    let arguments = ["drain", "fra", "--wait", "--deadline", "30s"];
    let (countdown, _) = tokio::join!(node_command(&app, &arguments), async {
        user.disconnected(tunnel.connection_id).await
    });
    let countdown = countdown.expect();
    assert!(countdown.ends_with("0 live"), "{countdown}");

    assert_eq!(said(&app, &["undrain", "fra"]).await, "takes clients");
    app.wait_selectable(&node).await;
    let names: Vec<_> = acts(&app, node.server()).await;
    let names: Vec<_> = names.iter().map(|act| &act[0]).collect();
    assert_eq!(names, ["server.drain", "server.undrain"]);
    let actor = "SELECT DISTINCT actor_kind FROM audit_log";
    assert_eq!(app.db().texts(actor).await, ["cli"]);
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_rotation_is_planned_and_taken_back() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let planned = said(&app, &["rotate-key", "fra", "--in", "2h"]).await;
    assert!(planned.starts_with("the key changes at "), "{planned}");
    wait_until("the node is told", SOON, async || {
        node.session()
            .settings
            .is_some_and(|it| it.rotate_key_at.is_some())
    })
    .await;
    assert_eq!(
        said(&app, &["rotate-key", "fra", "--cancel"]).await,
        "the key stays"
    );
    wait_until("the node is told", SOON, async || {
        node.session().settings == Some(Settings::default())
    })
    .await;
    let past = node_command(&app, &["rotate-key", "fra", "--at", "2001-01-01T00:00:00Z"]).await;
    assert!(!past.success && past.err.contains("future"), "{}", past.err);
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_renamed_revoked_and_removed() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let _ = app.user().await.connected(&json!({})).await;
    assert_eq!(said(&app, &["rename", "fra", "FRA9"]).await, "fra9");
    let wrong = node_command(&app, &["rename", "fra9", "no_host"]).await;
    assert!(
        !wrong.success && wrong.err.contains("no_host"),
        "{}",
        wrong.err
    );
    let in_use = node_command(&app, &["remove", "fra9"]).await;
    assert!(
        !in_use.success && in_use.err.contains("live connections"),
        "{}",
        in_use.err
    );

    let _ = said(&app, &["revoke", "fra9"]).await;
    wait_until("the session ends", SOON, async || {
        node.session().close_code == Some(close::UNAUTHORIZED)
    })
    .await;
    assert_eq!(said(&app, &["remove", "fra9", "--force"]).await, "removed");
    assert_eq!(app.db().number("SELECT count(*) FROM vpn_servers").await, 0);
    let reason = "SELECT status || ' ' || end_reason FROM connections";
    assert_eq!(app.db().texts(reason).await, ["disconnected server_gone"]);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_the_command_line_enrols_and_is_on_record() {
    let app = TestApp::start().await;
    let arguments = [
        "enrolment-token",
        "--hostname",
        "fra",
        "--country",
        "Germany",
        "--country-code",
        "DE",
        "--city",
        "Frankfurt",
        "--location",
        "eu-central",
        "--plane",
        app.url(),
    ];
    let said = node_command(&app, &arguments).await;
    let line = format!(
        "node-agent enroll --plane {} --token {}",
        app.url(),
        said.out.trim()
    );
    assert!(said.success && said.err.contains(&line), "{}", said.err);
    let node = SimNode::enrol(app.url(), said.out.trim(), app.config("fra")).await;
    let node = node.expect("it enrols");
    app.wait_selectable(&node).await;
    let row = "SELECT action || ' ' || actor_kind FROM audit_log";
    assert_eq!(app.db().texts(row).await, ["enrolment_token.make cli"]);
    app.finish(&[&node]).await;
}
