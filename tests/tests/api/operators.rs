//! Operator tokens: minted on the host, narrowed by whoever holds them, checked at every call.

use reqwest::Method;
use serde_json::json;
use shared::ids::UserId;
use tests::TestApp;
use tests::api::{Client, Reply};
use tests::command::control_plane;

async fn mint(app: &TestApp, arguments: &[&str]) -> String {
    let arguments: Vec<_> = ["token", "mint", "--name", "ci"]
        .iter()
        .chain(arguments)
        .copied()
        .collect();
    control_plane(Some(app.db().url()), &arguments, "")
        .await
        .expect()
}

/// Without any configuration, the token from standard input.
async fn attenuate(token: &str, arguments: &[&str]) -> String {
    let arguments: Vec<_> = ["token", "attenuate"]
        .iter()
        .chain(arguments)
        .copied()
        .collect();
    control_plane(None, &arguments, token).await.expect()
}

fn operator(app: &TestApp, token: &str) -> Client {
    app.client().with_token(UserId::generate(), token)
}

async fn suspend(client: &Client, user: UserId) -> Reply {
    let path = format!("/api/v1/users/{user}/status");
    let body = json!({ "is_active": false });
    client
        .send(client.request(Method::PUT, &path).json(&body))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_does_what_its_rights_say() {
    let app = TestApp::start().await;
    let (ada, admin) = (app.user().await, app.user_with_role("admin").await);
    let reader = operator(&app, &mint(&app, &["--right", "users:read"]).await);
    let _ = reader.get("/api/v1/users").await.expect(200);
    let show = format!("/api/v1/users/{}", ada.user());
    let _ = reader.get(&show).await.expect(200);
    suspend(&reader, ada.user())
        .await
        .expect_error(403, "FORBIDDEN");
    reader
        .get("/api/v1/admin/audit")
        .await
        .expect_error(403, "FORBIDDEN");
    for personal in [
        "/api/v1/users/me",
        "/api/v1/servers",
        "/api/v1/users/me/devices",
    ] {
        reader.get(personal).await.expect_error(401, "UNAUTHORIZED");
    }

    let writer = mint(&app, &["--right", "users:write", "--right", "audit:read"]).await;
    let writer = operator(&app, &writer);
    let _ = suspend(&writer, ada.user()).await.expect(200);
    suspend(&writer, admin.user())
        .await
        .expect_error(403, "FORBIDDEN");
    let log = writer
        .get("/api/v1/admin/audit?action=account.change_status")
        .await;
    let log = log.expect(200).json();
    let newest = &log["data"][1];
    assert_eq!(newest["actor"]["kind"], "operator");
    let ids = app
        .db()
        .texts("SELECT id FROM operator_tokens ORDER BY created_at")
        .await;
    assert_eq!(newest["actor"]["id"], json!(ids[1]));
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attenuated_token_does_less_and_never_more() {
    let app = TestApp::start().await;
    let (ada, eve) = (app.user().await, app.user().await);
    let broad = mint(&app, &["--right", "users:read", "--right", "users:write"]).await;
    let show = |user: UserId| format!("/api/v1/users/{user}");

    let reader = operator(&app, &attenuate(&broad, &["--right", "users:read"]).await);
    let _ = reader.get("/api/v1/users").await.expect(200);
    suspend(&reader, ada.user())
        .await
        .expect_error(403, "FORBIDDEN");
    let wider = operator(
        &app,
        &attenuate(reader.token(), &["--right", "users:write"]).await,
    );
    suspend(&wider, ada.user())
        .await
        .expect_error(403, "FORBIDDEN");
    wider
        .get("/api/v1/users")
        .await
        .expect_error(403, "FORBIDDEN");

    let of_ada = attenuate(&broad, &["--user", &ada.user().to_string()]).await;
    let of_ada = operator(&app, &of_ada);
    let _ = of_ada.get(&show(ada.user())).await.expect(200);
    of_ada
        .get(&show(eve.user()))
        .await
        .expect_error(403, "FORBIDDEN");
    of_ada
        .get("/api/v1/users")
        .await
        .expect_error(403, "FORBIDDEN");
    suspend(&of_ada, eve.user())
        .await
        .expect_error(403, "FORBIDDEN");
    let _ = suspend(&of_ada, ada.user()).await.expect(200);
    let both = attenuate(of_ada.token(), &["--user", &eve.user().to_string()]).await;
    let both = operator(&app, &both);
    for user in [ada.user(), eve.user()] {
        both.get(&show(user)).await.expect_error(403, "FORBIDDEN");
    }
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_revoked_unknown_and_forged_tokens_are_refused() {
    let app = TestApp::start().await;
    let rights = ["--right", "users:read"];
    let refused = async |token: &str, code: &str| {
        let reply = operator(&app, token).get("/api/v1/users").await;
        reply.expect_error(401, code);
    };
    let token = mint(&app, &rights).await;
    let _ = operator(&app, &token)
        .get("/api/v1/users")
        .await
        .expect(200);

    let id = app
        .db()
        .texts("SELECT id FROM operator_tokens")
        .await
        .remove(0);
    let list = control_plane(Some(app.db().url()), &["token", "list"], "")
        .await
        .expect();
    assert!(
        list.contains(&id) && list.contains("in force") && list.contains("users:read"),
        "{list}"
    );
    let said = control_plane(None, &["token", "inspect", &token], "")
        .await
        .expect();
    assert!(said.contains(&id) && said.contains("users:read"), "{said}");

    let narrow = attenuate(&token, &["--ttl", "1h"]).await;
    let _ = operator(&app, &narrow)
        .get("/api/v1/users")
        .await
        .expect(200);
    let revoke = ["token", "revoke", &id];
    let _ = control_plane(Some(app.db().url()), &revoke, "")
        .await
        .expect();
    refused(&token, "UNAUTHORIZED").await;
    refused(&narrow, "UNAUTHORIZED").await;
    let again = control_plane(Some(app.db().url()), &revoke, "").await;
    assert!(!again.success, "{}", again.out);
    let acts = "SELECT action FROM audit_log ORDER BY id";
    assert_eq!(
        app.db().texts(acts).await,
        ["operator_token.mint", "operator_token.revoke"]
    );

    let brief = mint(&app, &["--right", "users:read", "--ttl", "1s"]).await;
    tests::wait_until("the token ends", crate::SOON, async || {
        operator(&app, &brief).get("/api/v1/users").await.status == 401
    })
    .await;
    refused(&brief, "TOKEN_EXPIRED").await;

    let elsewhere = TestApp::start().await;
    let unknown = mint(&elsewhere, &rights).await;
    refused(&unknown, "UNAUTHORIZED").await;
    let flipped = match unknown.split_at(80) {
        (start, end) if end.starts_with('A') => format!("{start}B{}", &end[1..]),
        (start, end) => format!("{start}A{}", &end[1..]),
    };
    refused(&flipped, "UNAUTHORIZED").await;
    refused("garbage", "UNAUTHORIZED").await;
    elsewhere.finish(&[]).await;
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_minted_is_said() {
    let app = TestApp::start().await;
    let table: [(&[&str], &str); 6] = [
        (
            &["mint", "--name", "ci", "--right", "users:eat"],
            "users:read",
        ),
        (&["mint", "--name", "ci"], "--right"),
        (&["mint", "--name", " ", "--right", "users:read"], "--name"),
        (
            &[
                "mint",
                "--name",
                "ci",
                "--right",
                "users:read",
                "--ttl",
                "900d",
            ],
            "--ttl",
        ),
        (&["attenuate", "garbage"], "--right"),
        (
            &["attenuate", "garbage", "--ttl", "1h"],
            "not an operator token",
        ),
    ];
    for (arguments, word) in table {
        let arguments: Vec<_> = ["token"].iter().chain(arguments).copied().collect();
        let said = control_plane(Some(app.db().url()), &arguments, "").await;
        assert!(
            !said.success && said.err.contains(word),
            "{arguments:?}: {}",
            said.err
        );
    }
    assert_eq!(
        app.db()
            .number("SELECT count(*) FROM operator_tokens")
            .await,
        0
    );
    app.finish(&[]).await;
}
