//! Sessions: how they go on, how they end, and who learns of it.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tests::api::{Client, PASSWORD, Reply};
use tests::{TestApp, wait_until};
use uuid::Uuid;

/// How long an access token may outlive its session.
const A_SECOND: Duration = Duration::from_secs(1);
const ME: &str = "/api/v1/users/me";
const SESSIONS: &str = "/api/v1/auth/sessions";

pub(crate) async fn is_in(client: &Client) -> bool {
    let reply = client.get(ME).await;
    if reply.status != 200 {
        reply.expect_error(401, "UNAUTHORIZED");
    }
    reply.status == 200
}

pub(crate) async fn wait_out(client: &Client) {
    wait_until("the token is refused", A_SECOND, async || {
        !is_in(client).await
    })
    .await;
}

pub(crate) async fn log_out(client: &Client) -> Reply {
    client.post("/api/v1/auth/logout", &json!({})).await
}

async fn sessions(client: &Client) -> Vec<Value> {
    let page = client.get(SESSIONS).await.expect(200).json();
    page["data"].as_array().expect("a list").clone()
}

/// The log's rows of this action as `outcome actor_kind actor subject_kind subject`.
async fn audited(app: &TestApp, action: &str) -> Vec<String> {
    let sql = format!(
        "SELECT concat_ws(' ', outcome, actor_kind, actor, subject_kind, subject) FROM audit_log
          WHERE action = '{action}' AND request_id IS NOT NULL ORDER BY id"
    );
    app.db().texts(&sql).await
}

async fn current_session(client: &Client) -> String {
    let all = sessions(client).await;
    let current = all.iter().find(|session| session["current"] == true);
    current.expect("one asks")["id"]
        .as_str()
        .expect("an id")
        .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_with_new_tokens() {
    let app = TestApp::start().await;
    let first = app.client().sign_up("anna@example.org").await;
    let answer = first.refresh_with(first.refresh_token()).await;
    let answer = answer.expect(200).json();
    assert_eq!(answer["token_type"], "bearer");
    assert_eq!(answer["expires_in"], 30 * 60);
    let token = answer["access_token"].as_str().expect("a token");
    let second = first.with_token(first.user(), token);
    assert!(is_in(&second).await);
    assert!(is_in(&first).await, "it is the same session");
    let next = answer["refresh_token"].as_str().expect("a token");
    assert_ne!(next, first.refresh_token());
    first.refresh_with(next).await.expect(200);
    assert_eq!(sessions(&second).await.len(), 1);
    let stored = "SELECT count(*) FROM refresh_tokens WHERE used_at IS NULL";
    assert_eq!(app.db().number(stored).await, 1);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_comes_again_ends_its_session() {
    let app = TestApp::start().await;
    let thief = app.client().sign_up("anna@example.org").await;
    let elsewhere = app.client().log_in("anna@example.org").await;
    let session = current_session(&thief).await;
    let owner = thief.refresh().await;
    let reply = thief.refresh_with(thief.refresh_token()).await;
    reply.expect_error(401, "REFRESH_TOKEN_REUSED");
    assert!(!is_in(&owner).await && !is_in(&thief).await);
    let reply = owner.refresh_with(owner.refresh_token()).await;
    reply.expect_error(401, "REFRESH_TOKEN_INVALID");
    let reply = thief.refresh_with(thief.refresh_token()).await;
    reply.expect_error(401, "REFRESH_TOKEN_REUSED");
    assert!(is_in(&elsewhere).await, "another session is another family");
    assert_eq!(
        audited(&app, "session.refresh_reuse").await,
        [format!("refused anonymous session {session}")],
        "written down once"
    );
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_fifty_copies_at_once_one_wins() {
    let app = TestApp::replicas(2).await;
    let here = app.client().sign_up("anna@example.org").await;
    let there = here.at(app.url_of(1));
    let attempts = (0..50).map(|number| match number % 2 {
        0 => here.refresh_with(here.refresh_token()),
        _ => there.refresh_with(here.refresh_token()),
    });
    let replies = join_all(attempts).await;
    let (won, lost): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.status == 200);
    assert_eq!(won.len(), 1);
    for reply in lost {
        reply.expect_error(401, "REFRESH_TOKEN_REUSED");
    }
    let next = won[0].json();
    let next = next["refresh_token"].as_str().expect("a token");
    let reply = here.refresh_with(next).await;
    reply.expect_error(401, "REFRESH_TOKEN_INVALID");
    wait_out(&here).await;
    wait_out(&there).await;
    assert_eq!(audited(&app, "session.refresh_reuse").await.len(), 1);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_refresh_token_is_refused() {
    let app = TestApp::start().await;
    let anna = app.client().sign_up("anna@example.org").await;
    let noise = "x".repeat(5_000);
    for token in ["", "nonsense", "\0", "ß'; --", anna.token(), &noise] {
        let reply = anna.refresh_with(token).await;
        reply.expect_error(401, "REFRESH_TOKEN_INVALID");
    }
    let refused = anna.post("/api/v1/auth/refresh", &json!({})).await;
    assert_eq!(
        refused.expect_error(400, "INVALID_INPUT"),
        ["refresh_token"]
    );
    let number = json!({ "refresh_token": 5 });
    let refused = anna.post("/api/v1/auth/refresh", &number).await;
    assert_eq!(
        refused.expect_error(400, "INVALID_INPUT"),
        ["refresh_token"]
    );
    assert!(is_in(&anna).await, "none of it did any harm");
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_an_app_is_the_apps_alone() {
    let app = TestApp::start().await;
    let anna = app.client().sign_up("anna@example.org").await;
    app.db()
        .execute(
            "INSERT INTO oauth_clients (id, name, redirect_uris)
             VALUES ('phone', 'Phones', '{https://app.example.org/}');
             UPDATE sessions SET client_id = 'phone'",
        )
        .await;
    let reply = anna.refresh_with(anna.refresh_token()).await;
    reply.expect_error(401, "REFRESH_TOKEN_INVALID");
    assert_eq!(sessions(&anna).await[0]["client"], "Phones");
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_ended_or_suspended_session_does_not_go_on() {
    let app = TestApp::start().await;
    let anna = app.client().sign_up("anna@example.org").await;
    let table = [
        (
            "UPDATE users SET is_active = false",
            403,
            "ACCOUNT_SUSPENDED",
        ),
        (
            "UPDATE users SET deleted_at = now()",
            401,
            "REFRESH_TOKEN_INVALID",
        ),
        (
            "UPDATE users SET is_active = true, deleted_at = NULL;
             UPDATE sessions SET expires_at = now() - interval '1 second'",
            401,
            "REFRESH_TOKEN_INVALID",
        ),
        (
            "UPDATE sessions SET expires_at = now() + interval '1 day',
                revoked_at = now(), revoke_reason = 'ended'",
            401,
            "REFRESH_TOKEN_INVALID",
        ),
    ];
    for (change, status, code) in table {
        app.db().execute(change).await;
        let reply = anna.refresh_with(anna.refresh_token()).await;
        reply.expect_error(status, code);
    }
    let restore = "UPDATE sessions SET revoked_at = NULL, revoke_reason = NULL";
    app.db().execute(restore).await;
    anna.refresh().await;
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn used_tokens_are_kept_as_long_as_they_could_have_lived() {
    let app = TestApp::start().await;
    let anna = app.client().sign_up("anna@example.org").await;
    let second = anna.refresh().await;
    app.db()
        .execute("UPDATE refresh_tokens SET used_at = used_at - interval '31 days'")
        .await;
    let third = second.refresh().await;
    let kept = "SELECT count(*) FROM refresh_tokens";
    assert_eq!(app.db().number(kept).await, 2);
    let reply = anna.refresh_with(anna.refresh_token()).await;
    reply.expect_error(401, "REFRESH_TOKEN_INVALID");
    assert!(is_in(&third).await);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logging_out_ends_this_session() {
    let app = TestApp::start().await;
    let anna = app.client().sign_up("anna@example.org").await;
    let other = app.client().log_in("anna@example.org").await;
    let session = current_session(&anna).await;
    let reply = log_out(&anna).await.expect(204);
    assert!(reply.body.is_empty());
    assert!(!is_in(&anna).await, "at once where it was ended");
    log_out(&anna).await.expect_error(401, "UNAUTHORIZED");
    let reply = anna.refresh_with(anna.refresh_token()).await;
    reply.expect_error(401, "REFRESH_TOKEN_INVALID");
    assert!(is_in(&other).await);
    let user = anna.user();
    assert_eq!(
        audited(&app, "session.logout").await,
        [format!("done user {user} session {session}")]
    );
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logging_out_everywhere_ends_all_of_ones_own() {
    let app = TestApp::start().await;
    let anna = app.client().sign_up("anna@example.org").await;
    let other = app.client().log_in("anna@example.org").await;
    let ben = app.client().sign_up("ben@example.org").await;
    anna.post("/api/v1/auth/logout-all", &json!({}))
        .await
        .expect(204);
    assert!(!is_in(&anna).await && !is_in(&other).await);
    assert!(is_in(&ben).await);
    let user = anna.user();
    assert_eq!(
        audited(&app, "session.logout_all").await,
        [format!("done user {user} user {user}")]
    );
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_listed_in_pages() {
    let app = TestApp::start().await;
    let first = app.client().sign_up("anna@example.org").await;
    let named =
        json!({ "email": "anna@example.org", "password": PASSWORD, "device_name": "Anna's phone" });
    first.post("/api/v1/auth/login", &named).await.expect(200);
    let gone = app.client().log_in("anna@example.org").await;
    log_out(&gone).await.expect(204);
    app.client().sign_up("ben@example.org").await;

    let page = first.get(SESSIONS).await.expect(200).json();
    assert_eq!(page["meta"]["total"], 2);
    let newest = &page["data"][0];
    assert_eq!(newest["name"], "Anna's phone");
    assert_eq!(
        (&newest["client"], &newest["current"]),
        (&Value::Null, &json!(false))
    );
    assert_eq!(page["data"][1]["current"], true);
    for time in ["created_at", "last_used_at", "expires_at"] {
        assert!(newest[time].is_string(), "{newest}");
    }
    let path = format!("{SESSIONS}?page=2&per_page=1");
    let second = first.get(&path).await.expect(200).json();
    assert_eq!(second["data"][0]["id"], page["data"][1]["id"]);
    assert_eq!(second["links"]["next"], Value::Null);
    assert_eq!(
        second["links"]["prev"],
        format!("{SESSIONS}?page=1&per_page=1")
    );
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_ends_ones_own_sessions_only() {
    let app = TestApp::start().await;
    let anna = app.client().sign_up("anna@example.org").await;
    let other = app.client().log_in("anna@example.org").await;
    let ben = app.client().sign_up("ben@example.org").await;
    let session = current_session(&other).await;
    let path = format!("{SESSIONS}/{session}");
    let unknown = format!("{SESSIONS}/{}", Uuid::now_v7());
    ben.delete(&path)
        .await
        .expect_error(404, "SESSION_NOT_FOUND");
    anna.delete(&unknown)
        .await
        .expect_error(404, "SESSION_NOT_FOUND");
    let malformed = anna.delete(&format!("{SESSIONS}/none")).await;
    malformed.expect_error(400, "INVALID_INPUT");
    assert!(is_in(&other).await);

    anna.delete(&path).await.expect(204);
    assert!(!is_in(&other).await && is_in(&anna).await);
    anna.delete(&path)
        .await
        .expect_error(404, "SESSION_NOT_FOUND");
    let user = anna.user();
    assert_eq!(
        audited(&app, "session.end").await,
        [format!("done user {user} session {session}")]
    );
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_of_too_many_sessions_ends() {
    let app = TestApp::start().await;
    let oldest = app.client().sign_up("anna@example.org").await;
    let user = oldest.user();
    app.db()
        .execute(&format!(
            "INSERT INTO sessions (id, user_id, expires_at)
             SELECT gen_random_uuid(), '{user}', now() + interval '1 day'
               FROM generate_series(1, 99)"
        ))
        .await;
    assert!(is_in(&oldest).await);
    let newest = app.client().log_in("anna@example.org").await;
    assert!(!is_in(&oldest).await, "it made room");
    let live = "SELECT count(*) FROM sessions WHERE revoked_at IS NULL";
    assert_eq!(app.db().number(live).await, 100);
    let displaced = "SELECT revoke_reason FROM sessions WHERE revoked_at IS NOT NULL";
    assert_eq!(app.db().texts(displaced).await, ["displaced"]);
    assert!(is_in(&newest).await);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_login_is_written_down() {
    let app = TestApp::start().await;
    let anna = app.client().sign_up("anna@example.org").await;
    let client = app.client();
    for email in ["anna@example.org", "nobody@example.org", "not an address"] {
        let reply = client.login(email, "not the password").await;
        reply.expect_error(401, "INVALID_CREDENTIALS");
    }
    app.db().execute("UPDATE users SET is_active = false").await;
    let reply = client.login("anna@example.org", PASSWORD).await;
    reply.expect_error(403, "ACCOUNT_SUSPENDED");
    let user = anna.user();
    let session = app.db().texts("SELECT id FROM sessions").await;
    assert_eq!(
        audited(&app, "session.login").await,
        [
            format!("done user {user} session {}", session[0]),
            format!("refused anonymous user {user}"),
            "refused anonymous".to_owned(),
            "refused anonymous".to_owned(),
            format!("refused anonymous user {user}"),
        ]
    );
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unverified_address_may_be_kept_out() {
    let app = TestApp::with(|vars| {
        vars.insert("REQUIRE_VERIFIED_EMAIL".to_owned(), "true".to_owned());
    })
    .await;
    let client = app.client();
    client.register("anna@example.org").await.expect(201);
    let reply = client.login("anna@example.org", "not the password").await;
    reply.expect_error(401, "INVALID_CREDENTIALS");
    let reply = client.login("anna@example.org", PASSWORD).await;
    reply.expect_error(403, "EMAIL_NOT_VERIFIED");
    app.db()
        .execute("UPDATE users SET is_verified = true")
        .await;
    client.login("anna@example.org", PASSWORD).await.expect(200);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_may_be_signed_with_a_public_key_to_check() {
    let app = TestApp::with(|vars| {
        vars.insert("JWT_ALGORITHM".to_owned(), "EdDSA".to_owned());
    })
    .await;
    let anna = app.client().sign_up("anna@example.org").await;
    assert!(anna.token().starts_with(EDDSA_HEADER), "{}", anna.token());
    assert!(is_in(&anna.refresh().await).await);

    let shared = TestApp::start().await;
    let other = shared.client().sign_up("anna@example.org").await;
    let foreign = anna.with_token(anna.user(), other.token());
    assert!(
        !is_in(&foreign).await,
        "only the configured algorithm counts"
    );
    app.finish(&[]).await;
    shared.finish(&[]).await;
}

/// `{"typ":"JWT","alg":"EdDSA",`
const EDDSA_HEADER: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJFZERTQSIs";

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_never_stored_as_they_are() {
    let app = TestApp::start().await;
    let anna = app.client().sign_up("anna@example.org").await;
    let next = anna.refresh().await;
    let mut hashes = HashSet::new();
    for hash in app
        .db()
        .texts("SELECT encode(token_hash, 'hex') FROM refresh_tokens")
        .await
    {
        assert_eq!(hash.len(), 64);
        hashes.insert(hash);
    }
    assert_eq!(hashes.len(), 2);
    let raw = format!(
        "SELECT count(*) FROM refresh_tokens WHERE position('{}'::bytea IN token_hash) > 0",
        next.refresh_token()
    );
    assert_eq!(app.db().number(&raw).await, 0);
    app.finish(&[]).await;
}
