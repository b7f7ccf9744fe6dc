//! What administrators see and change of people, and what they may not.

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use shared::ids::UserId;
use tests::api::{Client, Reply};
use tests::{TestApp, wait_until};

use crate::SOON;

async fn put(client: &Client, user: UserId, what: &str, body: Value) -> Reply {
    let path = format!("/api/v1/users/{user}/{what}");
    client
        .send(client.request(Method::PUT, &path).json(&body))
        .await
}

async fn set_active(client: &Client, user: UserId, is_active: bool) -> Reply {
    let body = json!({ "is_active": is_active, "reason": "a test" });
    put(client, user, "status", body).await
}

async fn is_active(app: &TestApp, user: UserId) -> bool {
    let sql = format!("SELECT is_active::int FROM users WHERE id = '{user}'");
    app.db().number(&sql).await == 1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_person_is_out_at_once() {
    let app = TestApp::replicas(2).await;
    let node = app.node("fra").await;
    app.wait_selectable_at(1, &node).await;
    let (ada, eve, admin) = (
        app.user().await,
        app.user().await,
        app.user_with_role("admin").await,
    );
    let _ = ada.connected(&json!({})).await;
    let others = eve.connected(&json!({})).await;

    let answer = set_active(&admin, ada.user(), false)
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&answer["is_active"], &answer["role"]),
        (&json!(false), &json!("user"))
    );
    ada.get("/api/v1/users/me")
        .await
        .expect_error(401, "UNAUTHORIZED");
    wait_until("the node drops the peer", SOON, async || {
        node.connections() == [others.connection_id]
    })
    .await;
    let reason = "SELECT end_reason FROM connections WHERE end_reason IS NOT NULL";
    assert_eq!(app.db().texts(reason).await, ["suspended"]);
    let row = "SELECT json_build_array(actor, subject, before, after)::text FROM audit_log
               WHERE action = 'account.change_status' AND request_id IS NOT NULL";
    let row: Value = serde_json::from_str(&app.db().texts(row).await[0]).expect("JSON");
    assert_eq!(
        row,
        json!([
            admin.user(), ada.user(),
            { "is_active": true }, { "is_active": false, "reason": "a test" },
        ])
    );

    let _ = set_active(&admin, ada.user(), true).await.expect(200);
    ada.get("/api/v1/users/me")
        .await
        .expect_error(401, "UNAUTHORIZED");
    assert!(is_active(&app, ada.user()).await);
    app.finish(&[&node]).await;
}

#[rstest]
#[case("user", "user", false)]
#[case("support", "user", false)]
#[case("admin", "user", true)]
#[case("admin", "support", true)]
#[case("admin", "admin", false)]
#[case("admin", "superuser", false)]
#[case("superuser", "admin", true)]
#[case("superuser", "superuser", true)]
#[tokio::test(flavor = "multi_thread")]
async fn people_are_suspended_from_above(
    #[case] actor: &str,
    #[case] person: &str,
    #[case] may: bool,
) {
    let app = TestApp::start().await;
    let (actor, person) = (
        app.user_with_role(actor).await,
        app.user_with_role(person).await,
    );
    let reply = set_active(&actor, person.user(), false).await;
    if !may {
        reply.expect_error(403, "FORBIDDEN");
    }
    assert_eq!(is_active(&app, person.user()).await, !may);
    let own = set_active(&actor, actor.user(), false).await;
    own.expect_error(403, "FORBIDDEN");
    assert!(is_active(&app, actor.user()).await);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_is_on_record() {
    let app = TestApp::start().await;
    let (admin, boss) = (
        app.user_with_role("admin").await,
        app.user_with_role("superuser").await,
    );
    set_active(&admin, boss.user(), false)
        .await
        .expect_error(403, "FORBIDDEN");
    let rows = "SELECT outcome FROM audit_log WHERE action = 'account.change_status'";
    assert_eq!(app.db().texts(rows).await, ["refused"]);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_role_takes_a_new_login() {
    let app = TestApp::start().await;
    let (boss, ada) = (app.user_with_role("superuser").await, app.user().await);
    let role = |role: &str| json!({ "role": role });
    let admin = app.user_with_role("admin").await;
    put(&admin, ada.user(), "role", role("support"))
        .await
        .expect_error(403, "FORBIDDEN");
    let answer = put(&boss, ada.user(), "role", role("support")).await;
    assert_eq!(answer.expect(200).json()["role"], "support");
    ada.get("/api/v1/users/me")
        .await
        .expect_error(401, "UNAUTHORIZED");
    put(&boss, boss.user(), "role", role("user"))
        .await
        .expect_error(403, "FORBIDDEN");
    let unknown = put(&boss, ada.user(), "role", role("king")).await;
    assert_eq!(unknown.expect_error(400, "INVALID_INPUT"), ["role"]);
    let nobody = put(&boss, UserId::generate(), "role", role("user")).await;
    nobody.expect_error(404, "USER_NOT_FOUND");
    app.finish(&[]).await;
}

async fn emails(client: &Client, query: &str) -> Vec<String> {
    let list = client
        .get(&format!("/api/v1/users?{query}"))
        .await
        .expect(200)
        .json();
    let people = list["data"].as_array().expect("a list");
    let email = |person: &Value| person["email"].as_str().expect("an address").to_owned();
    people.iter().map(email).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_listed_and_filtered() {
    let app = TestApp::start().await;
    let support = app.user_with_role("support").await;
    app.db()
        .execute(
            "INSERT INTO users (id, email, hashed_password, role, is_active, created_at)
             SELECT gen_random_uuid(), email, '!', role, is_active, now() - age * interval '1 day'
             FROM (VALUES ('a_b@example.net', 'user', true, 1), ('axb@example.net', 'user', false, 2),
                          ('a%b@example.net', 'admin', true, 3), ('A\\b@Example.net', 'user', true, 4))
               AS them(email, role, is_active, age)",
        )
        .await;
    let all = [
        "user0@example.org",
        "a_b@example.net",
        "axb@example.net",
        "a%b@example.net",
        "A\\b@Example.net",
    ];
    assert_eq!(emails(&support, "").await, all, "the newest first");
    assert_eq!(emails(&support, "email=EXAMPLE.net").await, all[1..]);
    assert_eq!(emails(&support, "email=a_b").await, ["a_b@example.net"]);
    assert_eq!(emails(&support, "email=a%25b").await, ["a%b@example.net"]);
    assert_eq!(emails(&support, "email=a%5Cb").await, ["A\\b@Example.net"]);
    assert_eq!(emails(&support, "email=%25").await, ["a%b@example.net"]);
    assert_eq!(emails(&support, "role=admin").await, ["a%b@example.net"]);
    assert_eq!(
        emails(&support, "is_active=false").await,
        ["axb@example.net"]
    );
    assert_eq!(
        emails(&support, "is_active=true&role=user&per_page=1&page=2").await,
        ["A\\b@Example.net"]
    );
    assert!(emails(&support, "page=9").await.is_empty());
    for (query, field) in [
        ("email=%00", "email"),
        ("email=a%00b", "email"),
        ("role=king", "role"),
        ("is_active=maybe", "is_active"),
        ("per_page=101", "per_page"),
    ] {
        let refused = support.get(&format!("/api/v1/users?{query}")).await;
        assert_eq!(refused.expect_error(400, "INVALID_INPUT"), [field]);
    }
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_for_support_and_above() {
    let app = TestApp::start().await;
    let (ada, support) = (app.user().await, app.user_with_role("support").await);
    let show = format!("/api/v1/users/{}", ada.user());
    for path in ["/api/v1/users", &show, "/api/v1/admin/audit"] {
        ada.get(path).await.expect_error(403, "FORBIDDEN");
        app.client()
            .get(path)
            .await
            .expect_error(401, "UNAUTHORIZED");
    }
    let shown = support.get(&show).await.expect(200).json();
    assert_eq!(
        (&shown["id"], &shown["role"]),
        (&json!(ada.user()), &json!("user"))
    );
    assert!(shown["devices"].is_array() && shown["subscription"].is_object());
    support
        .get("/api/v1/admin/audit")
        .await
        .expect_error(403, "FORBIDDEN");
    for nobody in ["none", &UserId::generate().to_string()] {
        let path = format!("/api/v1/users/{nobody}");
        support.get(&path).await.expect_error(404, "USER_NOT_FOUND");
    }
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_read_and_filtered() {
    let app = TestApp::start().await;
    let (ada, eve, admin) = (
        app.user().await,
        app.user().await,
        app.user_with_role("admin").await,
    );
    for person in [&ada, &eve] {
        let _ = set_active(&admin, person.user(), false).await.expect(200);
    }
    let _ = set_active(&admin, eve.user(), true).await.expect(200);
    let read = async |query: &str| {
        let page = admin.get(&format!("/api/v1/admin/audit?{query}")).await;
        page.expect(200).json()
    };
    let all = read("").await;
    assert_eq!(all["meta"]["total"], 3);
    assert_eq!(
        all["data"][0]["subject"],
        json!({ "kind": "user", "id": eve.user() })
    );
    assert_eq!(
        all["data"][0]["actor"],
        json!({ "kind": "user", "id": admin.user() })
    );
    assert_eq!(all["data"][0]["after"]["is_active"], true);
    let count = async |query: &str| read(query).await["meta"]["total"].as_u64();
    assert_eq!(count(&format!("subject={}", eve.user())).await, Some(2));
    assert_eq!(count(&format!("actor={}", admin.user())).await, Some(3));
    assert_eq!(count("action=account.delete").await, Some(0));
    assert_eq!(
        count("action=account.change_status&per_page=1").await,
        Some(3)
    );
    assert_eq!(
        count("from=2020-01-01T00:00:00Z&to=2020-01-02T00:00:00Z").await,
        Some(0)
    );
    assert_eq!(
        count("from=0001-01-01T00:00:00Z&to=9999-12-31T23:59:59Z").await,
        Some(3)
    );
    for (query, field) in [("actor=%00", "actor"), ("from=soon", "from")] {
        let refused = admin.get(&format!("/api/v1/admin/audit?{query}")).await;
        assert_eq!(refused.expect_error(400, "INVALID_INPUT"), [field]);
    }
    app.finish(&[]).await;
}
