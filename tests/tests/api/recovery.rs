//! Links that prove an address: they work once, for one purpose, for a time, and tell strangers nothing.

use futures_util::future::join_all;
use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use tests::TestApp;
use tests::api::{Client, PASSWORD, Reply};

const ADA: &str = "ada@example.org";
const NEW: &str = "another horse, another battery";
const VERIFY: &str = "/api/v1/auth/verify-email";
const RESEND: &str = "/api/v1/auth/resend-verification";
const REQUEST: &str = "/api/v1/auth/password-reset/request";
const CONFIRM: &str = "/api/v1/auth/password-reset/confirm";

async fn submit(browser: &Client, path: &str, form: &[(&str, &str)]) -> Reply {
    let fields = form
        .iter()
        .map(|(name, value)| format!("{name}={}", value.replace(' ', "+")));
    let request = browser
        .request(Method::POST, path)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(fields.collect::<Vec<_>>().join("&"));
    browser.send(request).await
}

async fn confirm(app: &TestApp, token: &str, password: &str) -> Reply {
    let body = json!({ "token": token, "password": password });
    app.client().post(CONFIRM, &body).await
}

async fn verify(app: &TestApp, token: &str) -> Reply {
    app.client().post(VERIFY, &json!({ "token": token })).await
}

/// The token of the last mail to Ada.
async fn last_token(app: &TestApp) -> String {
    let mails = app.mails_to(ADA).await;
    mails.last().expect("a mail").token().to_owned()
}

/// An account with a reset link on its way.
async fn with_reset_link() -> (TestApp, Client, String) {
    let app = TestApp::start().await;
    let person = app.client().sign_up(ADA).await;
    app.client()
        .post(REQUEST, &json!({ "email": ADA }))
        .await
        .expect(200);
    let token = last_token(&app).await;
    (app, person, token)
}

/// Makes the minute between two mails pass.
async fn later(app: &TestApp) {
    app.db()
        .execute("UPDATE one_time_tokens SET created_at = created_at - interval '61 seconds'")
        .await;
}

async fn audited(app: &TestApp, action: &str, outcome: &str) -> i64 {
    app.db()
        .number(&format!(
            "SELECT count(*) FROM audit_log WHERE action = '{action}' AND outcome = '{outcome}'"
        ))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_verified_once() {
    let app = TestApp::start().await;
    let person = app.client().sign_up(ADA).await;
    let token = last_token(&app).await;
    let answer = verify(&app, &token).await.expect(200).json();
    assert_eq!(answer, json!({ "is_verified": true }));
    verify(&app, &token).await.expect_error(400, "LINK_INVALID");
    let me = person.get("/api/v1/users/me").await.json();
    assert_eq!(me["is_verified"], true);
    assert_eq!(audited(&app, "account.register", "done").await, 1);
    assert_eq!(audited(&app, "account.verify_email", "done").await, 1);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_one_uses_the_token() {
    let (app, _, reset) = with_reset_link().await;
    let mails = app.mails_to(ADA).await;
    let token = mails[0].token();
    let all = join_all((0..20).map(|_| verify(&app, token))).await;
    let done = all.iter().filter(|reply| reply.status == 200).count();
    assert_eq!(done, 1);
    for reply in all.iter().filter(|reply| reply.status != 200) {
        reply.expect_error(400, "LINK_INVALID");
    }
    let all = join_all((0..20).map(|_| confirm(&app, &reset, NEW))).await;
    let done = all.iter().filter(|reply| reply.status == 200).count();
    assert_eq!(done, 1);
    for reply in all.iter().filter(|reply| reply.status != 200) {
        reply.expect_error(400, "LINK_INVALID");
    }
    assert_eq!(audited(&app, "account.reset_password", "done").await, 1);
    app.finish(&[]).await;
}

#[rstest]
#[case::expired("UPDATE one_time_tokens SET expires_at = now() - interval '1 second'")]
#[case::another_address("UPDATE users SET email = 'grace@example.org'")]
#[case::nobody_any_more("UPDATE users SET deleted_at = now()")]
#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_worth_nothing_any_more(#[case] change: &str) {
    let (app, _, reset) = with_reset_link().await;
    let mails = app.mails_to(ADA).await;
    app.db().execute(change).await;
    verify(&app, mails[0].token())
        .await
        .expect_error(400, "LINK_INVALID");
    confirm(&app, &reset, NEW)
        .await
        .expect_error(400, "LINK_INVALID");
    for mail in &mails {
        let page = app.client().get(mail.path()).await;
        assert_eq!(page.status, 400, "{}", page.text());
        assert!(page.text().contains("ask for a new one"), "{}", page.text());
    }
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_for_one_purpose() {
    let (app, _, reset) = with_reset_link().await;
    let verification = app.mails_to(ADA).await[0].token().to_owned();
    verify(&app, &reset).await.expect_error(400, "LINK_INVALID");
    confirm(&app, &verification, NEW)
        .await
        .expect_error(400, "LINK_INVALID");
    verify(&app, &verification).await.expect(200);
    confirm(&app, &reset, NEW).await.expect(200);
    app.finish(&[]).await;
}

#[rstest]
#[case(json!({}), &["token"])]
#[case(json!({ "token": "" }), &["token"])]
#[case(json!({ "token": "x".repeat(201) }), &["token"])]
#[case(json!({ "token": 7 }), &["token"])]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_token_is_said(#[case] body: Value, #[case] fields: &[&str]) {
    let app = TestApp::start().await;
    let reply = app.client().post(VERIFY, &body).await;
    assert_eq!(reply.expect_error(400, "INVALID_INPUT"), fields);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_text_is_just_a_wrong_token() {
    let app = TestApp::start().await;
    for token in ["x", "a\0b", "ünïcode", "' OR 1=1 --"] {
        verify(&app, token).await.expect_error(400, "LINK_INVALID");
        confirm(&app, token, NEW)
            .await
            .expect_error(400, "LINK_INVALID");
    }
    let page = app.client().get("/verify-email?token=%00%ff").await;
    assert_eq!(page.status, 400);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_link_voids_the_old_and_comes_once_a_minute() {
    let app = TestApp::start().await;
    app.client().register(ADA).await.expect(201);
    let first = last_token(&app).await;
    let ask = json!({ "email": " ADA@example.org" });
    app.client().post(RESEND, &ask).await.expect(200);
    assert_eq!(app.mails_to(ADA).await.len(), 1, "too soon");
    assert_eq!(
        audited(&app, "account.request_verification", "refused").await,
        1
    );
    later(&app).await;
    let client = app.client();
    let all = join_all((0..5).map(|_| client.post(RESEND, &ask))).await;
    assert!(all.iter().all(|reply| reply.status == 200));
    assert_eq!(app.mails_to(ADA).await.len(), 2, "one for all five");
    verify(&app, &first).await.expect_error(400, "LINK_INVALID");
    verify(&app, &last_token(&app).await).await.expect(200);
    later(&app).await;
    app.client().post(RESEND, &ask).await.expect(200);
    assert_eq!(
        app.mails_to(ADA).await.len(),
        2,
        "nothing is left to verify"
    );
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_learn_nothing_and_leave_no_job() {
    let app = TestApp::start().await;
    app.client().register(ADA).await.expect(201);
    app.jobs_end().await;
    app.db().execute("DELETE FROM jobs").await;
    for path in [RESEND, REQUEST] {
        let unknown = app
            .client()
            .post(path, &json!({ "email": "nobody@example.org" }))
            .await;
        assert_eq!(app.db().number("SELECT count(*) FROM jobs").await, 0);
        let known = app.client().post(path, &json!({ "email": ADA })).await;
        assert_eq!(unknown.expect(200).body, known.expect(200).body);
        let wrong = app.client().post(path, &json!({ "email": "ada" })).await;
        assert_eq!(wrong.expect_error(400, "INVALID_INPUT"), ["email"]);
    }
    assert_eq!(
        audited(&app, "account.request_password_reset", "refused").await,
        1
    );
    assert_eq!(
        audited(&app, "account.request_password_reset", "done").await,
        1
    );
    assert!(app.mails_to("nobody@example.org").await.is_empty());
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_changes_the_password_and_ends_every_session() {
    let (app, person, token) = with_reset_link().await;
    later(&app).await;
    let other = app.client().login(ADA, PASSWORD).await.expect(200).json();
    let other = other["access_token"].as_str().expect("a token");
    let other = app.client().with_token(person.user(), other);
    confirm(&app, &token, NEW).await.expect(200);

    for session in [&person, &other] {
        let me = session.get("/api/v1/users/me").await;
        assert_eq!(me.status, 401, "{}", me.text());
    }
    app.client()
        .login(ADA, PASSWORD)
        .await
        .expect_error(401, "INVALID_CREDENTIALS");
    let answer = app.client().login(ADA, NEW).await.expect(200).json();
    assert_eq!(
        answer["user"]["is_verified"], true,
        "the address was proven"
    );
    confirm(&app, &token, PASSWORD)
        .await
        .expect_error(400, "LINK_INVALID");
    let open = "SELECT count(*) FROM one_time_tokens WHERE used_at IS NULL";
    assert_eq!(app.db().number(open).await, 0, "other links are void");
    let ended = "SELECT count(*) FROM sessions WHERE revoke_reason = 'password_changed'";
    assert_eq!(app.db().number(ended).await, 2);
    let mails = app.mails_to(ADA).await;
    let last = mails.last().expect("a mail");
    assert_eq!(
        last.header("subject"),
        "Prime VPN: your password was changed"
    );
    assert_eq!(audited(&app, "account.reset_password", "done").await, 1);
    app.finish(&[]).await;
}

#[rstest]
#[case("short")]
#[case(ADA)]
#[tokio::test(flavor = "multi_thread")]
async fn a_weak_password_does_not_use_the_link_up(#[case] weak: &str) {
    let (app, _, token) = with_reset_link().await;
    let reply = confirm(&app, &token, weak).await;
    assert_eq!(reply.expect_error(400, "INVALID_INPUT"), ["password"]);
    let form = [("token", token.as_str()), ("password", weak)];
    let page = submit(&app.client(), "/reset-password", &form).await;
    assert_eq!(page.status, 400);
    assert!(
        page.text().contains("The password was not taken"),
        "{}",
        page.text()
    );
    assert!(page.text().contains(&token), "the form is there again");
    confirm(&app, &token, NEW).await.expect(200);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_resets_the_password_in_a_browser() {
    let (app, _, token) = with_reset_link().await;
    let mails = app.mails_to(ADA).await;
    let path = mails.last().expect("a mail").path();
    for _ in 0..3 {
        let page = app.client().get(path).await.expect(200);
        assert!(
            page.text().contains("action=\"/reset-password\""),
            "{}",
            page.text()
        );
    }
    let form = [("token", token.as_str()), ("password", NEW)];
    let page = submit(&app.client(), "/reset-password", &form)
        .await
        .expect(200);
    assert!(
        page.text().contains("Your password is changed"),
        "{}",
        page.text()
    );
    let again = submit(&app.client(), "/reset-password", &form).await;
    assert_eq!(again.status, 400);
    assert!(
        again.text().contains("ask for a new one"),
        "{}",
        again.text()
    );
    app.client().login(ADA, NEW).await.expect(200);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_bring_nothing_along() {
    let (app, ..) = with_reset_link().await;
    for mail in app.mails_to(ADA).await {
        let page = app.client().get(mail.path()).await.expect(200);
        let policy = page.header("content-security-policy").expect("a policy");
        assert!(
            policy.starts_with("default-src 'none'; style-src 'sha256-"),
            "{policy}"
        );
        assert!(policy.contains("form-action 'self'"), "{policy}");
        assert_eq!(
            page.header("content-type"),
            Some("text/html; charset=utf-8")
        );
        assert_eq!(page.header("cache-control"), Some("no-store"));
        assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
        assert_eq!(page.header("set-cookie"), None);
        let text = page.text();
        assert!(!text.contains("://") && !text.contains("<script"), "{text}");
    }
    for path in ["/verify-email", "/reset-password"] {
        let request = app.client().request(Method::PUT, path);
        let reply = app.client().send(request).await;
        reply.expect_error(405, "METHOD_NOT_ALLOWED");
        assert_eq!(reply.header("allow"), Some("GET, POST"));
        assert_eq!(app.client().get(path).await.status, 400);
        let json = app.client().post(path, &json!({ "token": "x" })).await;
        json.expect_error(415, "UNSUPPORTED_MEDIA_TYPE");
    }
    app.finish(&[]).await;
}
