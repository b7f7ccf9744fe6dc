//! Enrolment tokens as administrators make, list and take them back.

use rstest::rstest;
use serde_json::{Value, json};
use shared::ids::ServerId;
use tests::api::Client;
use tests::sim::SimConfig;
use tests::{SimNode, TestApp};

use crate::admin_servers::acts;

const TOKENS: &str = "/api/v1/admin/nodes/enrolment-tokens";

fn place(hostname: &str) -> Value {
    json!({ "hostname": hostname, "country": "Germany", "country_code": "de", "city": "Frankfurt",
            "location": "eu-central" })
}

async fn states(admin: &Client, query: &str) -> Vec<(String, String)> {
    let list = admin.get(&format!("{TOKENS}?{query}")).await.expect(200);
    assert!(
        !list.text().contains("token\":"),
        "the token is shown once: {}",
        list.text()
    );
    let list = list.json();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let tokens = list["data"].as_array().expect("a list").iter();
    tokens
        .map(|it| (text(&it["hostname"]), text(&it["state"])))
        .collect()
}

fn pair(hostname: &str, state: &str) -> (String, String) {
    (hostname.to_owned(), state.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_shown_once_with_the_line_to_paste() {
    let app = TestApp::with(|vars| {
        vars.insert(
            "PUBLIC_URL".to_owned(),
            "https://vpn.example.org".to_owned(),
        );
    })
    .await;
    let admin = app.user_with_role("admin").await;
    let made = admin.post(TOKENS, &place("FRA")).await.expect(201).json();
    let token = made["token"].as_str().expect("a token");
    assert_eq!(
        made["command"],
        format!("node-agent enroll --plane https://vpn.example.org --token {token}")
    );
    let node = SimNode::enrol(app.url(), token, app.config("fra"))
        .await
        .expect("it enrols");
    app.wait_selectable(&node).await;
    let again = SimNode::enrol_only(app.url(), token, SimConfig::named("fra")).await;
    assert_eq!(again.expect_err("it was used").status, 401);

    let _expired = app.expired_enrolment_token("old").await;
    let _ = admin.post(TOKENS, &place("nyc")).await.expect(201);
    assert_eq!(states(&admin, "state=used").await, [pair("fra", "used")]);
    assert_eq!(
        states(&admin, "state=expired").await,
        [pair("old", "expired")]
    );
    assert_eq!(
        states(&admin, "state=unused").await,
        [pair("nyc", "unused")]
    );
    assert_eq!(states(&admin, "").await.len(), 3);
    let row = acts(&app, made["id"].as_str().expect("an id"))
        .await
        .remove(0);
    assert_eq!(
        (&row[0], &row[2]["hostname"]),
        (&json!("enrolment_token.make"), &json!("fra"))
    );
    assert!(!row.to_string().contains(token), "no secret is on record");
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_taken_back_enrols_nobody() {
    let app = TestApp::start().await;
    let admin = app.user_with_role("admin").await;
    let made = admin.post(TOKENS, &place("fra")).await.expect(201).json();
    let id = made["id"].as_str().expect("an id");
    let _ = admin.delete(&format!("{TOKENS}/{id}")).await.expect(204);
    let token = made["token"].as_str().expect("a token");
    let refused = SimNode::enrol_only(app.url(), token, SimConfig::named("fra")).await;
    assert_eq!(
        refused.expect_err("taken back").body["error"]["code"],
        "ENROLMENT_TOKEN_INVALID"
    );
    let gone = admin.delete(&format!("{TOKENS}/{id}")).await;
    gone.expect_error(404, "ENROLMENT_TOKEN_NOT_FOUND");
    let nonsense = admin.delete(&format!("{TOKENS}/nonsense")).await;
    nonsense.expect_error(404, "ENROLMENT_TOKEN_NOT_FOUND");
    let names: Vec<_> = acts(&app, id)
        .await
        .into_iter()
        .map(|act| act[0].clone())
        .collect();
    assert_eq!(names, ["enrolment_token.make", "enrolment_token.delete"]);

    let node = app.node("nyc").await;
    let used = app
        .db()
        .texts("SELECT id FROM enrolment_tokens")
        .await
        .remove(0);
    admin
        .delete(&format!("{TOKENS}/{used}"))
        .await
        .expect_error(409, "CONFLICT");
    app.finish(&[&node]).await;
}

#[rstest]
#[case(json!({}), &["hostname", "country", "country_code", "city", "location"])]
#[case(json!({ "hostname": "fra", "country": "Germany", "country_code": "DE", "city": "X" }), &["location"])]
#[case(json!({ "hostname": "under_score" }), &["hostname"])]
#[case(json!({ "ttl_seconds": 0 }), &["ttl_seconds"])]
#[case(json!({ "ttl_seconds": 86_401 }), &["ttl_seconds"])]
#[case(json!({ "country_code": "D1" }), &["country_code"])]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_or_wrong_is_named(#[case] body: Value, #[case] fields: &[&str]) {
    let app = TestApp::start().await;
    let admin = app.user_with_role("admin").await;
    let reply = admin.post(TOKENS, &body).await;
    assert_eq!(reply.expect_error(400, "INVALID_INPUT"), fields);
    let unknown = admin
        .post(TOKENS, &json!({ "server_id": ServerId::generate() }))
        .await;
    unknown.expect_error(404, "SERVER_NOT_FOUND");
    app.finish(&[]).await;
}
