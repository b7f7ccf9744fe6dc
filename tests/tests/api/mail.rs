//! Mail and the jobs that send it: what is committed leaves at least once, whatever else happens;
//! what is not committed never does.

use std::os::unix::fs::PermissionsExt;

use control_plane::accounts::Email;
use control_plane::config::Variables;
use control_plane::mail::{Letter, post};
use control_plane::secrets::KeyRing;
use diesel_async::{AsyncConnection, AsyncPgConnection};
use reqwest::Method;
use tests::api::Client;
use tests::lab::{Plane, PlaneSettings};
use tests::mail::MailServer;
use tests::redis::free_port;
use tests::{TestApp, TestDb, wait_until};

use crate::SOON;

const ADA: &str = "ada@example.org";

fn smtp(port: u16) -> impl Fn(&mut Variables) {
    move |variables| {
        let settings = [
            ("SMTP_HOST", "127.0.0.1".to_owned()),
            ("SMTP_PORT", port.to_string()),
            ("SMTP_SECURITY", "none".to_owned()),
        ];
        variables.extend(settings.map(|(name, value)| (name.to_owned(), value)));
    }
}

async fn attempts(db: &TestDb) -> i64 {
    db.number("SELECT coalesce(max(attempts), 0) FROM jobs")
        .await
}

/// Posts a letter by itself, as a rule would.
async fn posted(app: &TestApp, connection: &mut AsyncPgConnection, to: &str) {
    let keys = KeyRing::new(&app.configuration().app.keys).expect("keys");
    let to = Email::parse(to).expect("an address");
    post(connection, &keys, &to, &Letter::PasswordChanged)
        .await
        .expect("it is posted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_is_followed_by_a_mail() {
    let app = TestApp::start().await;
    app.client().register(ADA).await.expect(201);
    let mails = app.mails_to(ADA).await;
    let [mail] = mails.as_slice() else {
        panic!("one mail: {mails:?}");
    };
    assert_eq!(mail.header("from"), "\"Prime VPN\" <noreply@localhost>");
    assert_eq!(mail.header("subject"), "Prime VPN: confirm your address");
    assert_eq!(mail.header("auto-submitted"), "auto-generated");
    assert!(mail.header("message-id").ends_with("@localhost>"));
    assert!(mail.header("date").ends_with("+0000"));
    assert!(
        mail.link()
            .starts_with("http://localhost:8000/verify-email?token=")
    );
    // Ended jobs keep no payload.
    let kept = "SELECT coalesce(sum(length(sealed)), 0) FROM jobs WHERE status = 'done'";
    assert_eq!(app.db().number(kept).await, 0);
    let token = app
        .db()
        .number(&format!(
            "SELECT count(*) FROM one_time_tokens WHERE token_hash = sha256('{}')",
            mail.token()
        ))
        .await;
    assert_eq!(token, 1, "the table has the token's hash");
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mails_are_files_for_their_owner_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let mails = folder.path().join("made/when/needed");
    let app = TestApp::with(|variables| {
        variables.insert("MAIL_DIR".to_owned(), mails.display().to_string());
    })
    .await;
    app.client().register(ADA).await.expect(201);
    app.jobs_end().await;
    let files: Vec<_> = std::fs::read_dir(&mails)
        .expect("it was made")
        .map(|entry| entry.expect("an entry"))
        .collect();
    assert_eq!(files.len(), 1);
    let mode = files[0].metadata().expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_rolled_back_is_never_sent() {
    let app = TestApp::start().await;
    app.client().register(ADA).await.expect(201);
    app.client()
        .register(ADA)
        .await
        .expect_error(400, "EMAIL_TAKEN");
    let mut connection = app.db().connect().await;
    let undone = connection
        .transaction(async |connection| {
            posted(&app, connection, "undone@example.org").await;
            Err::<(), _>(diesel::result::Error::RollbackTransaction)
        })
        .await;
    assert!(undone.is_err());
    posted(&app, &mut connection, "kept@example.org").await;
    assert_eq!(app.mails_to("kept@example.org").await.len(), 1);
    assert_eq!(app.mails_to("undone@example.org").await.len(), 0);
    assert_eq!(app.mails_to(ADA).await.len(), 1);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_the_work() {
    let app = TestApp::replicas(2).await;
    let mut connection = app.db().connect().await;
    for number in 0..60 {
        posted(&app, &mut connection, &format!("p{number}@example.org")).await;
    }
    app.jobs_end().await;
    assert_eq!(attempts(app.db()).await, 1, "a job was done twice");
    assert_eq!(app.mails_to("p0@example.org").await.len(), 1);
    assert_eq!(app.mails_to("p59@example.org").await.len(), 1);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_crosses_smtp_and_its_link_verifies_the_account() {
    let server = MailServer::start().await;
    let app = TestApp::with(smtp(server.port())).await;
    let person = app.client().sign_up(ADA).await;
    app.jobs_end().await;
    let mails = server.mails_to(ADA);
    let [mail] = mails.as_slice() else {
        panic!("one mail: {mails:?}");
    };

    let browser = app.client();
    let page = browser.get(mail.path()).await.expect(200).text();
    assert!(page.contains("action=\"/verify-email\""), "{page}");
    let before = person.get("/api/v1/users/me").await.json();
    assert_eq!(before["is_verified"], false, "looking changes nothing");
    let form = format!("token={}", mail.token());
    submit(&browser, "/verify-email", &form).await.expect(200);
    let after = person.get("/api/v1/users/me").await.json();
    assert_eq!(after["is_verified"], true);
    app.finish(&[]).await;
}

async fn submit(browser: &Client, path: &str, form: &str) -> tests::api::Reply {
    let request = browser
        .request(Method::POST, path)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form.to_owned());
    browser.send(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_server_that_was_down_gets_the_mail_once() {
    let port = free_port();
    let app = TestApp::with(smtp(port)).await;
    app.client().register(ADA).await.expect(201);
    wait_until("it was tried twice", SOON, async || {
        attempts(app.db()).await >= 2
    })
    .await;
    let reasons = app.db().texts("SELECT last_error FROM jobs").await;
    assert_eq!(
        reasons,
        ["the mail server is not reached: connection refused"]
    );
    let server = MailServer::start_at(port).await;
    app.db()
        .execute("UPDATE jobs SET run_at = now() WHERE run_at > now() + interval '1 second'")
        .await;
    app.jobs_end().await;
    assert_eq!(server.mails_to(ADA).len(), 1);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_recipient_is_given_up_and_a_busy_server_is_not() {
    let server = MailServer::start().await;
    let app = TestApp::with(smtp(server.port())).await;
    for address in ["refused-550@example.org", "refused-451@example.org"] {
        app.client().register(address).await.expect(201);
    }
    wait_until("one is given up, one is tried again", SOON, async || {
        let ended = "SELECT count(*) FROM jobs WHERE status = 'failed' AND attempts = 1";
        let again = "SELECT count(*) FROM jobs WHERE status = 'waiting' AND attempts > 1";
        app.db().number(ended).await == 1 && app.db().number(again).await == 1
    })
    .await;
    let waiting = "SELECT last_error FROM jobs WHERE status = 'waiting'";
    let reasons = app.db().texts(waiting).await;
    assert_eq!(reasons, ["the mail server answered 451"]);
    app.db()
        .execute("DELETE FROM jobs WHERE status = 'waiting'")
        .await;
    let failed = app.take_failed_jobs().await;
    assert_eq!(failed, ["the mail server refused it: 550"]);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_wants_tls_does_not_go_without() {
    let server = MailServer::start().await;
    let port = server.port();
    let app = TestApp::with(|variables| {
        smtp(port)(variables);
        variables.insert("SMTP_SECURITY".to_owned(), "starttls".to_owned());
    })
    .await;
    app.client().register(ADA).await.expect(201);
    let lacking = "SELECT count(*) FROM jobs WHERE last_error LIKE '%SMTP_SECURITY%'";
    wait_until("it is not sent", SOON, async || {
        app.db().number(lacking).await == 1
    })
    .await;
    assert!(server.mails_to(ADA).is_empty());
    app.db().execute("DELETE FROM jobs").await;
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_survives_a_plane_that_is_killed_before_it_is_sent() {
    let (db, folder) = (TestDb::new().await, tempfile::tempdir().expect("a folder"));
    let port = free_port();
    let mut variables = Variables::new();
    smtp(port)(&mut variables);
    let names = ["SMTP_HOST", "SMTP_PORT", "SMTP_SECURITY"];
    let settings = PlaneSettings {
        address: [127, 0, 0, 1].into(),
        database_url: db.url().to_owned(),
        tls: false,
        more: names.map(|name| (name, variables[name].clone())).into(),
    };
    let mut plane = Plane::start(folder.path(), &settings).await;
    plane.client().register(ADA).await.expect(201);
    plane.kill();
    // As if it had died in the middle of the sending: it is claimed, and the claim runs out.
    db.execute("UPDATE jobs SET attempts = attempts + 1, run_at = now()")
        .await;
    let server = MailServer::start_at(port).await;
    let _plane = plane.restart().await;
    wait_until("the mail arrives", SOON, async || {
        server.mails_to(ADA).len() == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_can_do_is_given_up() {
    let app = TestApp::start().await;
    app.db()
        .execute(
            "INSERT INTO jobs (id, kind, sealed, attempts) VALUES
             (gen_random_uuid(), 'mail', 'not sealed', 19),
             (gen_random_uuid(), 'mail', 'never ended', 20)",
        )
        .await;
    app.jobs_end().await;
    let mut failed = app.take_failed_jobs().await;
    failed.sort();
    assert_eq!(
        failed,
        ["no attempt came to an end", "the value is not a sealed one"]
    );
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_rows_are_swept() {
    let mut app = TestApp::start().await;
    let person = app.client().sign_up(ADA).await;
    app.jobs_end().await;
    let user = person.user();
    app.db()
        .execute(&format!(
            "INSERT INTO audit_log (id, at, action, outcome, actor_kind)
             SELECT gen_random_uuid(), now() - interval '366 days', 'old', 'done', 'system'
             FROM generate_series(1, 2500);
             INSERT INTO login_places (user_id, place, seen_at) VALUES
             ('{user}', '\\x00112233445566778899aabbccddeeff', now() - interval '91 days'),
             ('{user}', '\\xff112233445566778899aabbccddeeff', now() - interval '89 days');
             INSERT INTO security_alerts (id, kind, started_at, last_seen_at, ended_at, count)
             SELECT gen_random_uuid(), 'flood', now() - age, now() - age, now() - age, 1
             FROM (VALUES (interval '91 days'), (interval '89 days')) ended (age);
             INSERT INTO jobs (id, kind, sealed, status, ended_at)
             VALUES (gen_random_uuid(), 'old', '', 'failed', now() - interval '8 days');
             INSERT INTO one_time_tokens (token_hash, user_id, purpose, email, expires_at)
             VALUES (sha256('old'), '{user}', 'verify_email', 'x', now() - interval '2 hours');
             INSERT INTO oauth_clients (id, name, redirect_uris) VALUES ('app', 'App', '{{app:/}}');
             INSERT INTO oauth_codes
                 (code_hash, client_id, user_id, redirect_uri, code_challenge, expires_at)
             VALUES (sha256('old'), 'app', '{user}', 'app:/', 'x', now() - interval '2 days');
             INSERT INTO sessions (id, user_id, expires_at) VALUES
             (gen_random_uuid(), '{user}', now() - interval '2 hours'),
             (gen_random_uuid(), '{user}', now() - interval '1 hour');
             INSERT INTO sessions (id, user_id, expires_at, revoked_at, revoke_reason)
             VALUES (gen_random_uuid(), '{user}', now() + interval '1 day',
                     now() - interval '2 hours', 'logged_out')"
        ))
        .await;
    app.start_replica().await;
    let left = "SELECT (SELECT count(*) FROM audit_log WHERE action = 'old')
        + (SELECT count(*) FROM security_alerts WHERE ended_at < now() - interval '90 days')
        + (SELECT count(*) FROM login_places WHERE seen_at < now() - interval '90 days')
        + (SELECT count(*) FROM jobs WHERE kind = 'old')
        + (SELECT count(*) FROM one_time_tokens WHERE token_hash = sha256('old'))
        + (SELECT count(*) FROM oauth_codes)
        + (SELECT count(*) FROM sessions WHERE expires_at < now() - interval '90 minutes')
        + (SELECT count(*) FROM sessions WHERE revoked_at IS NOT NULL)";
    wait_until("the old rows are gone", SOON, async || {
        app.db().number(left).await == 0
    })
    .await;
    let alerts = "SELECT count(*) FROM security_alerts";
    assert_eq!(app.db().number(alerts).await, 1);
    let places = "SELECT count(*) FROM login_places";
    assert_eq!(app.db().number(places).await, 1, "it may be used again");
    let kept = "SELECT count(*) FROM sessions";
    assert_eq!(
        app.db().number(kept).await,
        2,
        "a token of it may still live"
    );
    assert_eq!(
        app.db()
            .number("SELECT count(*) FROM one_time_tokens")
            .await,
        1
    );
    let kept = "SELECT count(*) FROM audit_log WHERE action = 'account.register'";
    assert_eq!(app.db().number(kept).await, 1);
    app.finish(&[]).await;
}
