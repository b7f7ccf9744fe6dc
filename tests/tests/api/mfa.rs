//! The second factor: setting it up, logging in with it, and getting rid of it.

use chrono::Utc;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tests::TestApp;
use tests::api::{Client, PASSWORD, Reply};
use totp_rs::Totp;

pub(crate) const EMAIL: &str = "ada@example.org";

const SETUP: &str = "/api/v1/auth/mfa/totp/setup";
const ENABLE: &str = "/api/v1/auth/mfa/totp/enable";
const DISABLE: &str = "/api/v1/auth/mfa/totp/disable";
const STEP: i64 = 30;

/// An authenticator app that we did not write, with the recovery codes on a piece of paper.
pub(crate) struct Authenticator {
    totp: Totp,
    pub(crate) recovery_codes: Vec<String>,
}

impl Authenticator {
    /// Scans what setup answers.
    async fn set_up(person: &Client) -> Self {
        let setup = person.post(SETUP, &json!({ "password": PASSWORD })).await;
        let setup = setup.expect(200).json();
        let url = setup["otpauth_url"].as_str().expect("a URL");
        let totp = Totp::from_url(url).expect("an app can read the URL");
        assert_eq!(setup["secret"], totp.secret().to_base32());
        Self {
            totp,
            recovery_codes: Vec::new(),
        }
    }

    pub(crate) async fn enabled(person: &Client) -> Self {
        let mut authenticator = Self::set_up(person).await;
        let code = authenticator.code();
        let enabled = person.post(ENABLE, &json!({ "code": code })).await;
        authenticator.recovery_codes = enabled.expect(200).json()["recovery_codes"]
            .as_array()
            .expect("codes")
            .iter()
            .map(|code| code.as_str().expect("a code").to_owned())
            .collect();
        authenticator
    }

    /// What the app shows.
    fn code(&self) -> String {
        self.code_in(0)
    }

    /// What it shows next: good already, and not used for enabling.
    pub(crate) fn next_code(&self) -> String {
        self.code_in(1)
    }

    fn code_in(&self, steps: i64) -> String {
        let time = Utc::now().timestamp() + steps * STEP;
        let time = u64::try_from(time).expect("after 1970");
        self.totp.generate(time).to_string()
    }

    /// A code of no step around now.
    fn wrong_code(&self) -> String {
        let near: Vec<_> = (-2..=2).map(|steps| self.code_in(steps)).collect();
        let mut codes = (0..6).map(|digit| digit.to_string().repeat(6));
        let wrong = codes.find(|code| !near.contains(code));
        wrong.expect("five of six codes are near at most")
    }
}

async fn log_in(app: &TestApp, otp: Option<&str>) -> Reply {
    let body = json!({ "email": EMAIL, "password": PASSWORD, "otp": otp });
    app.client().post("/api/v1/auth/login", &body).await
}

/// How many of the replies have this status; none may be the server's fault.
fn with_status(replies: &[Reply], status: u16) -> usize {
    assert!(replies.iter().all(|reply| !reply.status.is_server_error()));
    let is = |reply: &&Reply| reply.status.as_u16() == status;
    replies.iter().filter(is).count()
}

async fn audited(app: &TestApp, action: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM audit_log WHERE action = '{action}'");
    app.db().number(&sql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_needs_a_code_once_the_factor_is_enabled() {
    let app = TestApp::start().await;
    let person = app.client().sign_up(EMAIL).await;
    let _ = Authenticator::set_up(&person).await;
    let _ = log_in(&app, None).await.expect(200);
    let authenticator = Authenticator::enabled(&person).await;
    log_in(&app, None).await.expect_error(401, "OTP_REQUIRED");
    log_in(&app, Some(" "))
        .await
        .expect_error(401, "OTP_REQUIRED");
    let wrong = authenticator.wrong_code();
    for otp in [wrong.as_str(), "12", "\u{0}", "٢٨٧٠٨٢", &"x".repeat(500)] {
        let reply = log_in(&app, Some(otp)).await;
        reply.expect_error(401, "OTP_INVALID");
    }
    let _ = log_in(&app, Some(&authenticator.next_code()))
        .await
        .expect(200);
    let wrong_password = json!({ "email": EMAIL, "password": "not it at all" });
    let reply = app
        .client()
        .post("/api/v1/auth/login", &wrong_password)
        .await;
    reply.expect_error(401, "INVALID_CREDENTIALS");
    assert_eq!(audited(&app, "mfa.enable").await, 1);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn setting_up_needs_the_password_and_no_factor() {
    let app = TestApp::start().await;
    let person = app.client().sign_up(EMAIL).await;
    let wrong = person
        .post(SETUP, &json!({ "password": "not it at all" }))
        .await;
    wrong.expect_error(400, "WRONG_PASSWORD");
    let none = person.post(ENABLE, &json!({ "code": "123456" })).await;
    none.expect_error(409, "CONFLICT");
    let first = Authenticator::set_up(&person).await;
    let second = Authenticator::set_up(&person).await;
    let replaced = person.post(ENABLE, &json!({ "code": first.code() })).await;
    replaced.expect_error(401, "OTP_INVALID");
    let enabled = person.post(ENABLE, &json!({ "code": second.code() })).await;
    let _ = enabled.expect(200);
    let again = person
        .post(ENABLE, &json!({ "code": second.next_code() }))
        .await;
    again.expect_error(409, "CONFLICT");
    let again = person.post(SETUP, &json!({ "password": PASSWORD })).await;
    again.expect_error(409, "CONFLICT");
    let anonymous = app
        .client()
        .post(SETUP, &json!({ "password": PASSWORD }))
        .await;
    anonymous.expect_error(401, "UNAUTHORIZED");
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_parallel_logins_with_one_code_one_gets_in() {
    let app = TestApp::start().await;
    let person = app.client().sign_up(EMAIL).await;
    let authenticator = Authenticator::enabled(&person).await;
    let code = authenticator.next_code();
    let replies = join_all((0..8).map(|_| log_in(&app, Some(&code)))).await;
    assert_eq!(with_status(&replies, 200), 1);
    assert_eq!(with_status(&replies, 401), 7);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_code_works_once_however_it_is_typed() {
    let app = TestApp::start().await;
    let person = app.client().sign_up(EMAIL).await;
    let codes = Authenticator::enabled(&person).await.recovery_codes;
    assert_eq!(codes.len(), 10);
    let first = codes[0].replace('-', " ").to_uppercase();
    let _ = log_in(&app, Some(&first)).await.expect(200);
    log_in(&app, Some(&codes[0]))
        .await
        .expect_error(401, "OTP_INVALID");
    let replies = join_all((0..8).map(|_| log_in(&app, Some(&codes[1])))).await;
    assert_eq!(with_status(&replies, 200), 1);
    assert_eq!(with_status(&replies, 401), 7);
    let unused = "SELECT count(*) FROM recovery_codes WHERE used_at IS NULL";
    assert_eq!(app.db().number(unused).await, 8);
    assert_eq!(audited(&app, "mfa.use_recovery_code").await, 2);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_code_is_its_owners_alone() {
    let app = TestApp::start().await;
    let person = app.client().sign_up(EMAIL).await;
    let _ = Authenticator::enabled(&person).await;
    let other = app.client().sign_up("eve@example.org").await;
    let theirs = Authenticator::enabled(&other).await.recovery_codes;
    let reply = log_in(&app, Some(&theirs[0])).await;
    reply.expect_error(401, "OTP_INVALID");
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_wrong_codes_lock_the_factor_even_at_once() {
    let app = TestApp::start().await;
    let person = app.client().sign_up(EMAIL).await;
    let authenticator = Authenticator::enabled(&person).await;
    let wrong = authenticator.wrong_code();
    let replies = join_all((0..20).map(|_| log_in(&app, Some(&wrong)))).await;
    assert_eq!(with_status(&replies, 401), 10);
    assert_eq!(with_status(&replies, 429), 10);
    let right = authenticator.next_code();
    for otp in [&right, &authenticator.recovery_codes[0]] {
        log_in(&app, Some(otp))
            .await
            .expect_error(429, "RATE_LIMITED");
    }
    app.db()
        .execute("UPDATE totp_factors SET locked_until = now() - interval '1 second'")
        .await;
    log_in(&app, Some(&wrong))
        .await
        .expect_error(401, "OTP_INVALID");
    let failures = "SELECT failures FROM totp_factors";
    assert_eq!(app.db().number(failures).await, 1, "it begins anew");
    let _ = log_in(&app, Some(&authenticator.recovery_codes[0]))
        .await
        .expect(200);
    assert_eq!(app.db().number(failures).await, 0);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn disabling_needs_both_factors() {
    let app = TestApp::start().await;
    let person = app.client().sign_up(EMAIL).await;
    let body = |password: &str, code: &str| json!({ "password": password, "code": code });
    let disable = async |body: Value| person.post(DISABLE, &body).await;
    let none = disable(body(PASSWORD, "123456")).await;
    none.expect_error(409, "CONFLICT");
    let authenticator = Authenticator::enabled(&person).await;
    let code = authenticator.next_code();
    let wrong = disable(body("not it at all", &code)).await;
    wrong.expect_error(400, "WRONG_PASSWORD");
    let wrong = disable(body(PASSWORD, &authenticator.wrong_code())).await;
    wrong.expect_error(401, "OTP_INVALID");
    let _ = disable(body(PASSWORD, &authenticator.recovery_codes[3]))
        .await
        .expect(204);
    let _ = log_in(&app, None).await.expect(200);
    let left = "SELECT (SELECT count(*) FROM totp_factors) + (SELECT count(*) FROM recovery_codes)";
    assert_eq!(app.db().number(left).await, 0);
    // The wrong password is on record too.
    assert_eq!(audited(&app, "mfa.disable").await, 2);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_secret_nor_recovery_codes_are_readable_in_the_database() {
    let app = TestApp::start().await;
    let person = app.client().sign_up(EMAIL).await;
    let authenticator = Authenticator::enabled(&person).await;
    let rows = "SELECT encode(sealed_secret, 'hex') FROM totp_factors
        UNION ALL SELECT encode(code_hash, 'hex') FROM recovery_codes";
    let stored = app.db().texts(rows).await.join(" ");
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|it| format!("{it:02x}")).collect() };
    assert!(!stored.contains(&hex(authenticator.totp.secret().as_bytes())));
    for code in &authenticator.recovery_codes {
        assert!(!stored.contains(&hex(code.as_bytes())));
        assert!(!stored.contains(&hex(code.replace('-', "").as_bytes())));
    }
    app.finish(&[]).await;
}
