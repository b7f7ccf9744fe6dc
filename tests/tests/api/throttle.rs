//! Guessing one account's password: it is stopped, from one place and from many, and its owner is not.

use control_plane::audit::Actor;
use control_plane::oauth::{self, RedirectUri};
use futures_util::future::join_all;
use reqwest::Method;
use rstest::rstest;
use serde_json::json;
use tests::api::{Client, PASSWORD, Reply};
use tests::redis::TestRedis;
use tests::{TestApp, wait_until};

use crate::SOON;
use crate::guard::{app, number};

const ADA: &str = "ada@example.org";
const NOBODY: &str = "nobody@example.org";
const WRONG: &str = "not the password";
const NEW: &str = "another horse, another battery";

/// Where Ada is, where she comes to be, and where somebody guesses.
const HOME: &str = "198.51.100.1";
const HOTEL: &str = "198.51.100.200";
const STRANGER: &str = "203.0.113.66";

const RESET: &str = "/api/v1/auth/password-reset";

/// Nothing but the limits of accounts.
async fn plane(redis: &TestRedis, replicas: usize, place: &str, strangers: &str) -> TestApp {
    let settings = [
        ("RATE_LIMIT_ACCOUNT_LOGIN", place),
        ("RATE_LIMIT_ACCOUNT_STRANGERS", strangers),
        ("RATE_LIMIT_LOGIN", "100000/1m"),
        ("SUSPICIOUS_ACTIVITY_THRESHOLD", "100000"),
    ];
    app(redis, replicas, &settings).await
}

async fn send(client: &Client, from: &str, path: &str, body: serde_json::Value) -> Reply {
    let request = client
        .request(Method::POST, path)
        .header("X-Forwarded-For", from);
    client.send(request.json(&body)).await
}

async fn login(client: &Client, from: &str, email: &str, password: &str) -> Reply {
    let body = json!({ "email": email, "password": password });
    send(client, from, "/api/v1/auth/login", body).await
}

/// Ada, who was logged in at home.
async fn with_ada(app: &TestApp) -> Client {
    let client = app.client();
    client.register(ADA).await.expect(201);
    let answer = login(&client, HOME, ADA, PASSWORD).await.expect(200).json();
    let user = answer["user"]["id"].as_str().expect("an id");
    let token = answer["access_token"].as_str().expect("a token");
    client.with_token(user.parse().expect("a UUID"), token)
}

/// The address of a machine of a crowd.
fn machine(number: usize) -> String {
    format!("192.0.2.{number}")
}

/// What an answer says, but for its request's id.
fn said(reply: &Reply) -> (u16, serde_json::Value, bool) {
    let error = reply.json()["error"].take();
    let told = json!([error["code"], error["message"], error["details"]]);
    (
        reply.status.as_u16(),
        told,
        reply.header("retry-after").is_some(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_from_one_place_is_refused_and_the_owner_is_not() {
    let redis = TestRedis::start().await;
    let app = plane(&redis, 1, "3/1h", "100/1h").await;
    with_ada(&app).await;
    let client = app.client();
    for email in [ADA, " ADA@Example.org", "ada@example.ORG "] {
        let reply = login(&client, STRANGER, email, WRONG).await;
        reply.expect_error(401, "INVALID_CREDENTIALS");
    }
    for password in [WRONG, PASSWORD] {
        let reply = login(&client, STRANGER, ADA, password).await;
        reply.expect_error(429, "RATE_LIMITED");
        assert!((3500..=3600).contains(&number(&reply, "retry-after")));
    }
    login(&client, HOME, ADA, PASSWORD).await.expect(200);
    login(&client, HOTEL, ADA, PASSWORD).await.expect(200);
    // Other accounts have limits of their own.
    let other = login(&client, STRANGER, NOBODY, WRONG).await;
    other.expect_error(401, "INVALID_CREDENTIALS");
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_is_stopped_and_a_reset_lets_the_owner_in_anywhere() {
    let redis = TestRedis::start().await;
    let app = plane(&redis, 1, "4/1h", "5/1h").await;
    with_ada(&app).await;
    let client = app.client();
    // Her first login at home was a stranger's try.
    for number in 1..=4 {
        let reply = login(&client, &machine(number), ADA, WRONG).await;
        reply.expect_error(401, "INVALID_CREDENTIALS");
    }
    for number in 5..=9 {
        let reply = login(&client, &machine(number), ADA, WRONG).await;
        reply.expect_error(429, "RATE_LIMITED");
    }
    let reply = login(&client, HOME, ADA, WRONG).await;
    reply.expect_error(401, "INVALID_CREDENTIALS");
    login(&client, HOME, ADA, PASSWORD).await.expect(200);

    for _ in 0..5 {
        let reply = login(&client, HOTEL, ADA, PASSWORD).await;
        reply.expect_error(429, "RATE_LIMITED");
    }
    let path = format!("{RESET}/request");
    send(&client, HOTEL, &path, json!({ "email": ADA }))
        .await
        .expect(200);
    let mails = app.mails_to(ADA).await;
    let token = mails.last().expect("a mail").token().to_owned();
    let body = json!({ "token": token, "password": NEW });
    let confirmed = send(&client, HOTEL, &format!("{RESET}/confirm"), body).await;
    confirmed.expect(200);
    login(&client, HOTEL, ADA, NEW).await.expect(200);
    login(&client, HOME, ADA, NEW).await.expect(200);
    let reply = login(&client, &machine(10), ADA, NEW).await;
    reply.expect_error(429, "RATE_LIMITED");
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_gives_back_what_its_owner_tried_before() {
    let redis = TestRedis::start().await;
    let app = plane(&redis, 1, "2/1h", "100/1h").await;
    with_ada(&app).await;
    let client = app.client();
    for status in [401, 401, 429] {
        login(&client, HOTEL, ADA, WRONG).await.expect(status);
    }
    let path = format!("{RESET}/request");
    send(&client, HOTEL, &path, json!({ "email": ADA }))
        .await
        .expect(200);
    let mails = app.mails_to(ADA).await;
    let form = format!(
        "token={}&password={}",
        mails.last().expect("a mail").token(),
        NEW.replace(' ', "+")
    );
    let request = client
        .request(Method::POST, "/reset-password")
        .header("X-Forwarded-For", HOTEL)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form);
    client.send(request).await.expect(200);
    login(&client, HOTEL, ADA, NEW).await.expect(200);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_knows_the_password_is_never_held_up() {
    let redis = TestRedis::start().await;
    let app = plane(&redis, 1, "3/1h", "100/1h").await;
    with_ada(&app).await;
    let client = app.client();
    for _ in 0..4 {
        for _ in 0..2 {
            login(&client, HOME, ADA, WRONG).await.expect(401);
        }
        login(&client, HOME, ADA, PASSWORD).await.expect(200);
    }
    app.finish(&[]).await;
}

/// Whoever tries learns nothing of whether there is such an account.
#[rstest]
#[case::one_place("2/1h", "100/1h", true)]
#[case::a_crowd("100/1h", "3/1h", false)]
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_account_is_refused_as_a_known_one(
    #[case] place: &str,
    #[case] strangers: &str,
    #[case] is_one: bool,
) {
    let redis = TestRedis::start().await;
    let app = plane(&redis, 1, place, strangers).await;
    app.client().register(ADA).await.expect(201);
    let mut all = Vec::new();
    for email in [ADA, NOBODY] {
        let mut replies = Vec::new();
        for number in 1..=6 {
            let from = machine(if is_one { 1 } else { number });
            replies.push(said(&login(&app.client(), &from, email, WRONG).await));
        }
        all.push(replies);
    }
    assert_eq!(all[0], all[1]);
    let statuses: Vec<_> = all[0].iter().map(|it| it.0).collect();
    assert_eq!((statuses[0], statuses[5]), (401, 429));
    assert!(all[0][5].2, "it says how long to wait");
    // What is refused leaves no row, and neither does the address.
    let rows = "SELECT count(*) FROM audit_log WHERE action = 'session.login'";
    let passed = all.iter().flatten().filter(|it| it.0 == 401).count();
    assert_eq!(usize::try_from(app.db().number(rows).await), Ok(passed));
    let told = "SELECT count(*) FROM audit_log WHERE audit_log::text LIKE '%@%'";
    assert_eq!(app.db().number(told).await, 0);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_guesses_at_once_no_more_than_the_limit_pass_through_two_replicas() {
    let redis = TestRedis::start().await;
    let app = plane(&redis, 2, "100/1h", "9/1h").await;
    with_ada(&app).await;
    let (here, there) = (app.client(), app.client().at(app.url_of(1)));
    let guesses = (1..=50).map(|number| {
        let client = if number % 2 == 0 { &here } else { &there };
        async move {
            login(client, &machine(number), ADA, WRONG)
                .await
                .status
                .as_u16()
        }
    });
    let statuses = join_all(guesses).await;
    let count = |status| statuses.iter().filter(|it| **it == status).count();
    assert_eq!((count(401), count(429)), (8, 42));
    // At a known place a limit holds at once as well.
    let at_home = (0..50).map(|_| login(&there, HOME, ADA, WRONG));
    let statuses = join_all(at_home).await;
    assert!(statuses.iter().all(|it| it.status == 401));
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_success_is_forgiven_on_every_replica() {
    let redis = TestRedis::start().await;
    let app = plane(&redis, 2, "3/1h", "100/1h").await;
    with_ada(&app).await;
    let (here, there) = (app.client(), app.client().at(app.url_of(1)));
    for client in [&here, &there] {
        login(client, HOME, ADA, WRONG).await.expect(401);
    }
    login(&here, HOME, ADA, PASSWORD).await.expect(200);
    for client in [&there, &there, &here] {
        login(client, HOME, ADA, WRONG).await.expect(401);
    }
    login(&there, HOME, ADA, WRONG).await.expect(429);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_guessing_is_stopped_all_the_same() {
    let mut redis = TestRedis::start().await;
    let port = redis.port();
    let app = plane(&redis, 1, "3/1h", "6/1h").await;
    with_ada(&app).await;
    let client = app.client();
    login(&client, STRANGER, ADA, WRONG).await.expect(401);
    redis.kill();
    for status in [401, 401, 429] {
        login(&client, STRANGER, ADA, WRONG).await.expect(status);
    }
    for (number, status) in [(1, 401), (2, 401), (3, 429)] {
        let reply = login(&client, &machine(number), ADA, WRONG).await;
        reply.expect(status);
    }
    login(&client, HOME, ADA, PASSWORD).await.expect(200);
    // It comes back empty, and still nothing is forgotten.
    let _redis = TestRedis::start_at(port).await;
    login(&client, STRANGER, ADA, WRONG).await.expect(429);
    login(&client, &machine(4), ADA, WRONG).await.expect(429);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_is_told_once_a_day_and_nobody_else() {
    let redis = TestRedis::start().await;
    let app = plane(&redis, 2, "100/1h", "3/1s").await;
    with_ada(&app).await;
    app.mails_to(ADA).await;
    app.db().execute("DELETE FROM jobs").await;
    let clients = [app.client(), app.client().at(app.url_of(1))];
    // Fills what strangers have until it is seen to be full, again and again.
    let attack = async |email: &str| {
        for _ in 0..3 {
            wait_until("strangers are refused", SOON, async || {
                let guesses = (1..=8).map(|number| {
                    let client = &clients[number % 2];
                    async move {
                        login(client, &machine(number), email, WRONG)
                            .await
                            .status
                            .as_u16()
                    }
                });
                join_all(guesses).await.contains(&429)
            })
            .await;
            wait_until("there is room again", SOON, async || {
                login(&clients[0], STRANGER, email, WRONG).await.status == 401
            })
            .await;
        }
    };
    let warnings = async || {
        let mails = app.mails_to(ADA).await;
        let about = |it: &&tests::mail::Mail| it.header("subject").contains("trying passwords");
        mails.iter().filter(about).count()
    };
    attack(ADA).await;
    assert_eq!(warnings().await, 1);
    attack(NOBODY).await;
    assert_eq!(app.db().number("SELECT count(*) FROM jobs").await, 1);
    assert!(app.mails_to(NOBODY).await.is_empty());
    let done = "SELECT count(*) FROM audit_log WHERE action = 'account.warn_of_guessing'
                AND outcome = 'done' AND actor_kind = 'system'";
    assert_eq!(app.db().number(done).await, 1);

    app.db()
        .execute("UPDATE users SET warned_at = warned_at - interval '1 day'")
        .await;
    attack(ADA).await;
    assert_eq!(warnings().await, 2);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_login_page_of_apps_takes_as_many_tries_and_no_more() {
    let redis = TestRedis::start().await;
    let app = plane(&redis, 1, "2/1h", "100/1h").await;
    app.client().register(ADA).await.expect(201);
    let place = RedirectUri::parse("org.example.app:/callback").expect("a URI");
    let client = oauth::Client::new("app".to_owned(), "App".to_owned(), vec![place]);
    let mut connection = app.db().connect().await;
    oauth::add_client(&mut connection, &client.expect("a client"), Actor::Cli)
        .await
        .expect("it is new");
    let authorize = async |from: &str, password: &str| {
        let form = format!(
            "response_type=code&client_id=app&redirect_uri=org.example.app:/callback\
             &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM\
             &code_challenge_method=S256&email={ADA}&password={}",
            password.replace(' ', "+")
        );
        let client = app.client();
        let request = client
            .request(Method::POST, "/oauth/authorize")
            .header("X-Forwarded-For", from)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form);
        client.send(request).await
    };
    authorize(STRANGER, WRONG).await.expect(401);
    // The same two tries, whatever takes the password.
    let reply = login(&app.client(), STRANGER, ADA, WRONG).await;
    reply.expect_error(401, "INVALID_CREDENTIALS");
    let page = authorize(STRANGER, PASSWORD).await.expect(429);
    assert!(page.text().contains("Too many tries"), "{}", page.text());
    assert!(number(&page, "retry-after") > 3500);
    authorize(HOME, PASSWORD).await.expect(303);
    let places = "SELECT count(*) FROM login_places";
    assert_eq!(app.db().number(places).await, 1);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_keeps_a_bounded_number_of_places_and_none_when_it_is_gone() {
    let redis = TestRedis::start().await;
    let app = plane(&redis, 1, "100/1h", "100/1h").await;
    let ada = with_ada(&app).await;
    let places = "SELECT count(*) FROM login_places";
    assert_eq!(app.db().number(places).await, 1);
    login(&app.client(), HOME, ADA, PASSWORD).await.expect(200);
    assert_eq!(app.db().number(places).await, 1, "it is the same place");
    login(&app.client(), HOME, ADA, WRONG).await.expect(401);
    login(&app.client(), STRANGER, ADA, WRONG).await.expect(401);
    assert_eq!(app.db().number(places).await, 1, "nobody proved anything");
    app.db()
        .execute(&format!(
            "INSERT INTO login_places (user_id, place, seen_at)
             SELECT '{}', substring(sha256(number::text::bytea) FOR 16),
                    now() - number * interval '1 hour'
             FROM generate_series(1, 60) number",
            ada.user()
        ))
        .await;
    // Two sites of one provider, and two addresses of one site.
    for from in ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"] {
        login(&app.client(), from, ADA, PASSWORD).await.expect(200);
    }
    assert_eq!(app.db().number(places).await, 50);
    let oldest = "SELECT count(*) FROM login_places WHERE seen_at < now() - interval '48 hours'";
    assert_eq!(app.db().number(oldest).await, 0);

    let body = json!({ "password": PASSWORD });
    let request = ada.request(Method::DELETE, "/api/v1/users/me").json(&body);
    let request = request.header("X-Forwarded-For", HOME);
    ada.send(request).await.expect(204);
    assert_eq!(app.db().number(places).await, 0);
    let told = "SELECT count(*) FROM users WHERE warned_at IS NOT NULL";
    assert_eq!(app.db().number(told).await, 0);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn switched_off_or_whitelisted_nobody_is_limited() {
    for (name, value) in [
        ("RATE_LIMIT_ENABLED", "false"),
        ("DDOS_WHITELIST_IPS", "203.0.113.0/24"),
    ] {
        let redis = TestRedis::start().await;
        let settings = [
            (name, value),
            ("RATE_LIMIT_ACCOUNT_LOGIN", "1/1h"),
            ("RATE_LIMIT_ACCOUNT_STRANGERS", "1/1h"),
        ];
        let app = app(&redis, 1, &settings).await;
        for _ in 0..4 {
            let reply = login(&app.client(), STRANGER, ADA, WRONG).await;
            reply.expect_error(401, "INVALID_CREDENTIALS");
        }
        app.finish(&[]).await;
    }
}
