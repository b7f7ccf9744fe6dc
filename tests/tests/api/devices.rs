//! Devices: how many, whose, and what ends with them.

use futures_util::future::join_all;
use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use shared::wireguard::PrivateKey;
use tests::api::{Client, Reply};
use tests::{TestApp, wait_until};

use crate::SOON;

const DEVICES: &str = "/api/v1/users/me/devices";

fn device(name: &str) -> Value {
    let key = PrivateKey::generate().public_key();
    json!({ "name": name, "public_key": key })
}

async fn add(client: &Client, body: &Value) -> Reply {
    client.post(DEVICES, body).await
}

async fn remove(client: &Client, id: &Value) -> Reply {
    let path = format!("{DEVICES}/{}", id.as_str().expect("an id"));
    client.send(client.request(Method::DELETE, &path)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_added_listed_and_removed() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let mut ids = Vec::new();
    for name in ["Phone", "Laptop", "Router"] {
        let body = device(name);
        let added = add(&ada, &body).await.expect(201).json();
        assert_eq!(
            (&added["name"], &added["public_key"]),
            (&body["name"], &body["public_key"])
        );
        ids.push(added["id"].clone());
    }
    let page = ada.get(&format!("{DEVICES}?page=2&per_page=2")).await;
    let page = page.expect(200).json();
    assert_eq!(page["meta"]["total"], 3);
    assert_eq!(page["data"][0]["id"], ids[2]);
    let me = ada.get("/api/v1/users/me").await.expect(200).json();
    assert_eq!(me["devices"].as_array().map(Vec::len), Some(3));

    let _ = remove(&ada, &ids[0]).await.expect(204);
    remove(&ada, &ids[0])
        .await
        .expect_error(404, "DEVICE_NOT_FOUND");
    let rows = "SELECT action FROM audit_log ORDER BY id";
    let added = ["device.add"; 3].into_iter().chain(["device.remove"]);
    assert_eq!(app.db().texts(rows).await, added.collect::<Vec<_>>());
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_device_is_not_there() {
    let app = TestApp::start().await;
    let (ada, eve) = (app.user().await, app.user().await);
    let body = device("Phone");
    let id = add(&ada, &body).await.expect(201).json()["id"].clone();
    remove(&eve, &id)
        .await
        .expect_error(404, "DEVICE_NOT_FOUND");
    remove(&eve, &json!("none"))
        .await
        .expect_error(404, "DEVICE_NOT_FOUND");
    assert_eq!(eve.get(DEVICES).await.expect(200).json()["data"], json!([]));
    add(&ada, &body).await.expect_error(409, "KEY_IN_USE");
    app.finish(&[]).await;
}

#[rstest]
#[case::free("free", 1)]
#[case::premium("premium_monthly", 5)]
#[tokio::test(flavor = "multi_thread")]
async fn the_plans_number_holds_under_a_race(#[case] plan: &str, #[case] places: usize) {
    let app = TestApp::start().await;
    let ada = app.user_on(plan).await;
    let bodies: Vec<_> = (0..12).map(|number| device(&format!("{number}"))).collect();
    let replies = join_all(bodies.iter().map(|body| add(&ada, body))).await;
    let count = |status: u16| {
        let these = replies.iter().filter(|it| it.status.as_u16() == status);
        these.count()
    };
    assert_eq!((count(201), count(403)), (places, 12 - places));
    add(&ada, &device("one more"))
        .await
        .expect_error(403, "DEVICE_LIMIT");
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_one_key_at_once_one_is_added() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let body = device("Phone");
    let (one, two) = tokio::join!(add(&ada, &body), add(&ada, &body));
    let mut statuses = [one.status.as_u16(), two.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409]);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_device_is_refused() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let key = PrivateKey::generate().public_key().to_base64();
    let zero = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    for (name, key, field) in [
        ("", key.as_str(), "name"),
        (&*"x".repeat(101), &key, "name"),
        ("a\0b", &key, "name"),
        ("a\tb", &key, "name"),
        ("Phone", "", "public_key"),
        ("Phone", "abc", "public_key"),
        ("Phone", &key[..43], "public_key"),
        ("Phone", zero, "public_key"),
    ] {
        let refused = add(&ada, &json!({ "name": name, "public_key": key })).await;
        assert_eq!(refused.expect_error(400, "INVALID_INPUT"), [field]);
    }
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_device_is_disconnected_and_the_others_are_not() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let ada = app.user().await;
    let mut devices = Vec::new();
    for name in ["Phone", "Laptop"] {
        devices.push(add(&ada, &device(name)).await.expect(201).json());
    }
    let mut tunnels = Vec::new();
    for device in &devices {
        tunnels.push(ada.connected(&json!({ "device_id": device["id"] })).await);
    }
    assert_eq!(node.peer_count(), 2);
    let _ = remove(&ada, &devices[0]["id"]).await.expect(204);
    wait_until("the node drops the peer", SOON, async || {
        node.connections() == [tunnels[1].connection_id]
    })
    .await;
    let reasons = "SELECT end_reason FROM connections WHERE end_reason IS NOT NULL";
    assert_eq!(app.db().texts(reasons).await, ["device_removed"]);
    let gone = ada.connect(&json!({ "device_id": devices[0]["id"] })).await;
    gone.expect_error(404, "DEVICE_NOT_FOUND");
    app.finish(&[&node]).await;
}
