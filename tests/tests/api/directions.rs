//! What the operator wants of a node as a whole: it is told after every Welcome and at every change.

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::Method;
use serde_json::{Value, json};
use shared::protocol::{AgentMessage, NextKey, Settings};
use shared::wireguard::PrivateKey;
use tests::redis::TestRedis;
use tests::sim::{Message, SimConfig};
use tests::{SimNode, TestApp, wait_until};

use crate::SOON;
use crate::admin_servers::{acts, call, path, view};

async fn wait_told(node: &SimNode, settings: Settings) {
    wait_until(
        &format!("the node is told {settings:?}"),
        SOON,
        async || node.session().settings == Some(settings),
    )
    .await;
}

const PLAIN: Settings = Settings {
    draining: false,
    rotate_key_at: None,
};
const DRAIN: Settings = Settings {
    draining: true,
    rotate_key_at: None,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_reaches_the_node_and_every_selection() {
    let app = TestApp::replicas(2).await;
    let node = app.node("fra").await;
    app.wait_selectable_at(1, &node).await;
    wait_told(&node, PLAIN).await;
    // The session is on the first replica, the administrator at the second.
    let admin = app.user_with_role("admin").await.at(app.url_of(1));
    let tunnel = app.user().await.connected(&json!({})).await;
    let drain = path(node.server(), "/drain");
    let seen = call(&admin, Method::PUT, &drain, json!({}))
        .await
        .expect(200)
        .json();
    let since = seen["draining"]["requested_at"].clone();
    assert!(since.is_string(), "{seen}");
    assert!(!app.is_selectable_at(1, &node), "here before the answer");
    wait_told(&node, DRAIN).await;
    wait_until("nor there", SOON, async || !app.is_selectable(&node)).await;
    assert_eq!(
        node.connections(),
        [tunnel.connection_id],
        "who is there stays"
    );
    let refused = app.user().await.connect(&json!({})).await;
    refused.expect_error(503, "NO_SERVER_AVAILABLE");
    // A repetition changes nothing.
    let seen = call(&admin, Method::PUT, &drain, json!({}))
        .await
        .expect(200)
        .json();
    assert_eq!(seen["draining"]["requested_at"], since);

    node.hang_up().await;
    wait_told(&node, DRAIN).await;
    assert!(
        !app.is_selectable(&node),
        "a new session takes nothing back"
    );

    let _ = admin.delete(&drain).await.expect(200);
    wait_told(&node, PLAIN).await;
    app.wait_selectable_at(0, &node).await;
    app.wait_selectable_at(1, &node).await;
    let acts = acts(&app, node.server()).await;
    let names: Vec<_> = acts.iter().map(|act| &act[0]).collect();
    assert_eq!(names, ["server.drain", "server.undrain"]);
    assert_eq!(acts[0][1], json!({ "drain_requested_at": null }));
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_the_node_is_told_and_selection_knows() {
    let mut redis = TestRedis::start().await;
    let url = redis.url();
    let app = TestApp::replicas_with(2, |vars| {
        vars.insert("REDIS_URL".to_owned(), url.clone());
    })
    .await;
    let node = app.node("fra").await;
    app.wait_selectable_at(1, &node).await;
    let admin = app.user_with_role("admin").await.at(app.url_of(1));
    redis.kill();
    let _ = call(
        &admin,
        Method::PUT,
        &path(node.server(), "/drain"),
        json!({}),
    )
    .await
    .expect(200);
    wait_told(&node, DRAIN).await;
    wait_until("the other replica knows", SOON, async || {
        !app.is_selectable(&node)
    })
    .await;
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_agent_is_told_nothing_and_cannot_be_asked_for_a_key() {
    let app = TestApp::start().await;
    let mut config = app.config("old");
    config.protocol = 1;
    let node = app.node_with(config).await;
    let admin = app.user_with_role("admin").await;
    let _ = call(
        &admin,
        Method::PUT,
        &path(node.server(), "/drain"),
        json!({}),
    )
    .await
    .expect(200);
    assert!(!app.is_selectable(&node));
    let rotation = path(node.server(), "/key-rotation");
    call(&admin, Method::PUT, &rotation, json!({}))
        .await
        .expect_error(409, "CONFLICT");
    let _ = admin
        .delete(&path(node.server(), "/drain"))
        .await
        .expect(200);
    // A connect is behind everything that the plane could have said.
    app.wait_selectable(&node).await;
    app.user().await.connected(&json!({})).await;
    assert_eq!(node.session().settings, None);
    app.finish(&[&node]).await;
}

fn at_of(seen: &Value) -> DateTime<Utc> {
    let at = seen["key_rotation"]["at"].as_str().expect("a plan");
    at.parse().expect("a time")
}

async fn say(node: &SimNode, next: NextKey) {
    node.send(Message::text(AgentMessage::NextKey(next).encode()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_rotation_is_planned_answered_and_ends_with_the_new_key() {
    let app = TestApp::replicas(2).await;
    let mut node = app.node("fra").await;
    let admin = app.user_with_role("admin").await.at(app.url_of(1));
    let rotation = path(node.server(), "/key-rotation");
    let seen = call(&admin, Method::PUT, &rotation, json!({}))
        .await
        .expect(200)
        .json();
    let ahead = at_of(&seen) - Utc::now();
    assert!(
        ahead > TimeDelta::hours(23) && ahead <= TimeDelta::hours(25),
        "{ahead}"
    );
    let wanted = Utc::now() + TimeDelta::hours(1);
    let seen = call(&admin, Method::PUT, &rotation, json!({ "at": wanted }))
        .await
        .expect(200)
        .json();
    let at = at_of(&seen);
    assert_eq!(seen["key_rotation"]["next_public_key"], Value::Null);
    wait_told(
        &node,
        Settings {
            rotate_key_at: Some(at),
            ..PLAIN
        },
    )
    .await;

    let key = PrivateKey::generate().public_key();
    let stale = NextKey {
        public_key: PrivateKey::generate().public_key(),
        at: at - TimeDelta::hours(9),
    };
    say(&node, stale).await;
    say(
        &node,
        NextKey {
            public_key: key,
            at,
        },
    )
    .await;
    wait_until("the next key is known", SOON, async || {
        view(&admin, node.server()).await["key_rotation"]["next_public_key"] == json!(key)
    })
    .await;

    // A new session without the next key has forgotten it; one with it has not.
    node.hang_up().await;
    let seen = view(&admin, node.server()).await;
    assert_eq!(
        (at_of(&seen), &seen["key_rotation"]["next_public_key"]),
        (at, &Value::Null)
    );
    wait_told(
        &node,
        Settings {
            rotate_key_at: Some(at),
            ..PLAIN
        },
    )
    .await;
    node.set_next_key(Some(NextKey {
        public_key: key,
        at,
    }));
    node.hang_up().await;
    let seen = view(&admin, node.server()).await;
    assert_eq!(seen["key_rotation"]["next_public_key"], json!(key));

    // The node changes its key and dials again.
    node.stop().await;
    let config = SimConfig {
        public_key: key,
        ..node.config().clone()
    };
    let mut changed = SimNode::with_identity(app.url(), node.server(), node.token(), config);
    changed.start();
    wait_told(&changed, PLAIN).await;
    let seen = view(&admin, node.server()).await;
    assert_eq!(
        (&seen["key_rotation"], &seen["interface"]["public_key"]),
        (&Value::Null, &json!(key))
    );
    app.wait_selectable_at(1, &changed).await;
    let tunnel = app
        .user()
        .await
        .at(app.url_of(1))
        .connected(&json!({}))
        .await;
    assert_eq!(tunnel.server_public_key, key);
    app.finish(&[&changed]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_is_taken_back_leaves_nothing() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let admin = app.user_with_role("admin").await;
    let rotation = path(node.server(), "/key-rotation");
    let seen = call(&admin, Method::PUT, &rotation, json!({}))
        .await
        .expect(200)
        .json();
    let next = NextKey {
        public_key: PrivateKey::generate().public_key(),
        at: at_of(&seen),
    };
    say(&node, next).await;
    wait_until("the next key is known", SOON, async || {
        view(&admin, node.server()).await["key_rotation"]["next_public_key"].is_string()
    })
    .await;
    let seen = admin.delete(&rotation).await.expect(200).json();
    assert_eq!(seen["key_rotation"], Value::Null);
    wait_told(&node, PLAIN).await;
    // What comes late belongs to no plan.
    say(&node, next).await;
    app.user().await.connected(&json!({})).await;
    assert_eq!(
        view(&admin, node.server()).await["key_rotation"],
        Value::Null
    );
    let _ = admin.delete(&rotation).await.expect(200);
    let acts = acts(&app, node.server()).await;
    let names: Vec<_> = acts.iter().map(|act| &act[0]).collect();
    assert_eq!(
        names,
        ["server.plan_key_rotation", "server.cancel_key_rotation"]
    );
    app.finish(&[&node]).await;
}
