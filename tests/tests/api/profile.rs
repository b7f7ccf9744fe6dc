//! One's own account: name, address, password, export, the end.

use std::time::Duration;

use control_plane::accounts::deletion::sweep;
use reqwest::Method;
use serde_json::{Value, json};
use tests::api::{Client, PASSWORD, Reply};
use tests::{TestApp, wait_until};

use crate::SOON;

const ME: &str = "/api/v1/users/me";
const OTHER_PASSWORD: &str = "another horse, another staple";

async fn call(client: &Client, method: Method, path: &str, body: Value) -> Reply {
    client.send(client.request(method, path).json(&body)).await
}

async fn put(client: &Client, body: Value) -> Reply {
    call(client, Method::PUT, ME, body).await
}

async fn change_password(client: &Client, current: &str, new: &str) -> Reply {
    let body = json!({ "current_password": current, "new_password": new });
    call(client, Method::PATCH, "/api/v1/users/me/password", body).await
}

async fn delete_me(client: &Client, password: &str) -> Reply {
    call(client, Method::DELETE, ME, json!({ "password": password })).await
}

/// Another session of somebody who signed up.
async fn log_in(person: &Client, email: &str, password: &str) -> Client {
    let answer = person.login(email, password).await.expect(200).json();
    let token = answer["access_token"].as_str().expect("a token");
    person.with_token(person.user(), token)
}

async fn audited(app: &TestApp, action: &str, outcome: &str) -> i64 {
    let sql = "SELECT count(*) FROM audit_log WHERE action = ";
    let sql = format!("{sql} '{action}' AND outcome = '{outcome}'");
    app.db().number(&sql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_changed_removed_and_left_alone() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    for (body, name) in [
        (json!({ "full_name": "Ada L." }), json!("Ada L.")),
        (json!({}), json!("Ada L.")),
        (json!({ "full_name": null }), Value::Null),
    ] {
        let me = put(&ada, body).await.expect(200).json();
        assert_eq!(me["full_name"], name);
        assert_eq!(ada.get(ME).await.json()["full_name"], name);
    }
    for name in ["", "a\0b", "a\nb", &"x".repeat(201)] {
        let refused = put(&ada, json!({ "full_name": name })).await;
        assert_eq!(refused.expect_error(400, "INVALID_INPUT"), ["full_name"]);
    }
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_address_needs_the_password_and_a_proof() {
    let app = TestApp::start().await;
    let ada = app.client().sign_up("ada@example.org").await;
    app.db()
        .execute("UPDATE users SET is_verified = true")
        .await;
    let to = |email: &str, password: &str| json!({ "email": email, "current_password": password });

    let missing = put(&ada, json!({ "email": "new@example.org" })).await;
    assert_eq!(
        missing.expect_error(400, "INVALID_INPUT"),
        ["current_password"]
    );
    let wrong = put(&ada, to("new@example.org", "not the password")).await;
    wrong.expect_error(400, "WRONG_PASSWORD");
    assert_eq!(audited(&app, "account.change_email", "refused").await, 1);
    let bad = put(&ada, to("example.org", PASSWORD)).await;
    assert_eq!(bad.expect_error(400, "INVALID_INPUT"), ["email"]);
    let _ = app.client().register("eve@example.org").await.expect(201);
    let jobs = app.db().number("SELECT count(*) FROM jobs").await;
    let taken = put(&ada, to("EVE@example.org", PASSWORD)).await;
    taken.expect_error(400, "EMAIL_TAKEN");
    let same = put(&ada, json!({ "email": "ADA@example.org" })).await;
    assert_eq!(same.expect(200).json()["is_verified"], true);
    assert_eq!(app.db().number("SELECT count(*) FROM jobs").await, jobs);

    let me = put(&ada, to("New@example.org", PASSWORD))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&me["email"], &me["is_verified"]),
        (&json!("new@example.org"), &json!(false))
    );
    let mails = "SELECT count(*) FROM jobs WHERE kind = 'mail'";
    assert_eq!(
        app.db().number(mails).await,
        jobs + 2,
        "to the new and the old"
    );
    let token = "SELECT count(*) FROM one_time_tokens
        WHERE purpose = 'verify_email' AND email = 'new@example.org' AND used_at IS NULL";
    assert_eq!(app.db().number(token).await, 1);
    assert_eq!(audited(&app, "account.change_email", "done").await, 1);
    let old = app.client().login("ada@example.org", PASSWORD).await;
    old.expect_error(401, "INVALID_CREDENTIALS");
    let _ = log_in(&ada, "new@example.org", PASSWORD).await;
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_password_ends_the_other_sessions() {
    let app = TestApp::start().await;
    let ada = app.client().sign_up("ada@example.org").await;
    let elsewhere = log_in(&ada, "ada@example.org", PASSWORD).await;

    let wrong = change_password(&ada, "not the password", OTHER_PASSWORD).await;
    wrong.expect_error(400, "WRONG_PASSWORD");
    for weak in ["short", "ada@example.org"] {
        let weak = change_password(&ada, PASSWORD, weak).await;
        assert_eq!(weak.expect_error(400, "INVALID_INPUT"), ["new_password"]);
    }
    let _ = elsewhere.get(ME).await.expect(200);
    let jobs = app.db().number("SELECT count(*) FROM jobs").await;

    let _ = change_password(&ada, PASSWORD, OTHER_PASSWORD)
        .await
        .expect(204);
    let _ = ada.get(ME).await.expect(200);
    elsewhere.get(ME).await.expect_error(401, "UNAUTHORIZED");
    let old = app.client().login("ada@example.org", PASSWORD).await;
    old.expect_error(401, "INVALID_CREDENTIALS");
    let _ = log_in(&ada, "ada@example.org", OTHER_PASSWORD).await;
    assert_eq!(app.db().number("SELECT count(*) FROM jobs").await, jobs + 1);
    assert_eq!(audited(&app, "account.change_password", "done").await, 1);
    assert_eq!(audited(&app, "account.change_password", "refused").await, 1);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_changes_at_once_one_stands() {
    let app = TestApp::start().await;
    let ada = app.client().sign_up("ada@example.org").await;
    let (one, two) = tokio::join!(
        change_password(&ada, PASSWORD, "the first new password"),
        change_password(&ada, PASSWORD, "the second new password"),
    );
    let mut statuses = [one.status.as_u16(), two.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [204, 400]);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_account_leaves_a_tombstone_without_a_person() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let ada = app.client().sign_up("ada@example.org").await;
    let key = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
    let device = json!({ "name": "Ada's phone", "public_key": key });
    let _ = ada
        .post("/api/v1/users/me/devices", &device)
        .await
        .expect(201);
    let _ = put(&ada, json!({ "full_name": "Ada L." }))
        .await
        .expect(200);
    app.db()
        .execute("UPDATE sessions SET name = 'Ada''s laptop'")
        .await;
    let tunnel = ada.connected(&json!({})).await;
    assert_eq!(node.connections(), [tunnel.connection_id]);

    delete_me(&ada, "not the password")
        .await
        .expect_error(400, "WRONG_PASSWORD");
    let _ = ada.get(ME).await.expect(200);
    let _ = delete_me(&ada, PASSWORD).await.expect(204);

    ada.get(ME).await.expect_error(401, "UNAUTHORIZED");
    wait_until("the node drops the peer", SOON, async || {
        node.peer_count() == 0
    })
    .await;
    let reason = "SELECT end_reason FROM connections";
    assert_eq!(app.db().texts(reason).await, ["deleted"]);
    for table in [
        "users",
        "sessions",
        "devices",
        "one_time_tokens",
        "totp_factors",
        "audit_log",
    ] {
        let rows = app
            .db()
            .texts(&format!("SELECT row_to_json(t) FROM {table} t"))
            .await;
        for row in rows {
            let told = ["ada@", "Ada", "$argon2"]
                .iter()
                .any(|word| row.contains(word));
            assert!(!told, "{table}: {row}");
        }
    }
    assert_eq!(audited(&app, "account.delete", "done").await, 1);

    let login = app.client().login("ada@example.org", PASSWORD).await;
    login.expect_error(401, "INVALID_CREDENTIALS");
    let tombstone = format!("deleted {}", ada.user());
    let login = app.client().login(&tombstone, "!").await;
    login.expect_error(401, "INVALID_CREDENTIALS");
    let again = app.client().sign_up("ada@example.org").await;
    assert_ne!(again.user(), ada.user(), "the address is free");

    let admin = app.user_with_role("admin").await;
    let shown = admin.get(&format!("/api/v1/users/{}", ada.user())).await;
    shown.expect_error(404, "USER_NOT_FOUND");
    let list = admin.get("/api/v1/users").await.expect(200).json();
    assert_eq!(list["meta"]["total"], 2);
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tombstone_goes_when_nothing_needs_it() {
    let app = TestApp::start().await;
    let mut node = app.node("fra").await;
    let ada = app.client().sign_up("ada@example.org").await;
    let _ = ada.connected(&json!({})).await;
    node.stop().await;
    let _ = delete_me(&ada, PASSWORD).await.expect(204);
    let mut connection = app.db().connect().await;
    let life = Duration::from_secs(1800);
    let mut sweep = async || sweep(&mut connection, life, 100).await.expect("it sweeps");

    assert_eq!(sweep().await, 0, "a token may still be around");
    let age = "UPDATE users SET deleted_at = now() - interval '1 hour'
               WHERE deleted_at IS NOT NULL";
    app.db().execute(age).await;
    assert_eq!(sweep().await, 0, "the node still has the peer");
    node.start();
    wait_until("the peer is off", SOON, async || {
        let sql = "SELECT count(*) FROM connections WHERE status <> 'disconnected'";
        app.db().number(sql).await == 0
    })
    .await;
    let _ = app.client().register("eve@example.org").await.expect(201);
    assert_eq!(sweep().await, 1);
    assert_eq!(app.db().number("SELECT count(*) FROM users").await, 1);
    assert_eq!(app.db().number("SELECT count(*) FROM connections").await, 0);
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_has_everything_but_secrets() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let ada = app.client().sign_up("ada@example.org").await;
    let eve = app.user().await;
    let tunnel = ada.connected(&json!({})).await;
    let other = eve.connected(&json!({})).await;
    node.add_traffic(tunnel.connection_id, 1000, 2000);
    node.add_traffic(other.connection_id, 4, 5);
    node.report().await;
    wait_until("it is stored", SOON, async || {
        let stored = "SELECT coalesce(sum(bytes_sent + bytes_received), 0) FROM usage_hours";
        app.db().number(stored).await == 3009
    })
    .await;
    let wrong = change_password(&ada, "not the password", OTHER_PASSWORD).await;
    wrong.expect_error(400, "WRONG_PASSWORD");

    let reply = ada.get("/api/v1/users/me/export").await.expect(200);
    assert!(
        reply
            .header("content-disposition")
            .is_some_and(|it| it.starts_with("attachment"))
    );
    assert!(
        !reply.text().contains("argon2") && !reply.text().contains("token"),
        "{}",
        reply.text()
    );
    let export = reply.json();
    assert_eq!(export["account"]["email"], "ada@example.org");
    assert_eq!(export["subscriptions"][0]["plan"], "free");
    assert_eq!(export["sessions"].as_array().map(Vec::len), Some(1));
    assert_eq!(export["connections"].as_array().map(Vec::len), Some(1));
    assert_eq!(export["connections"][0]["id"], json!(tunnel.connection_id));
    assert_eq!(export["connections"][0]["server"], "fra");
    let usage = export["usage"].as_array().expect("a list");
    let figures = json!([
        usage[0]["server"],
        usage[0]["bytes_sent"],
        usage[0]["bytes_received"]
    ]);
    assert_eq!((usage.len(), figures), (1, json!(["fra", 1000, 2000])));
    let refused = json!(["account.change_password", "refused"]);
    let activity = export["activity"].as_array().expect("a list");
    assert!(
        activity
            .iter()
            .any(|it| json!([it["action"], it["outcome"]]) == refused)
    );
    assert_eq!(audited(&app, "account.export", "done").await, 1);
    app.finish(&[&node]).await;
}
