//! Attacks: each is one alert and one mail, whoever sees it, and an operator acknowledges it.

use reqwest::Method;
use serde_json::{Value, json};
use tests::api::Client;
use tests::redis::TestRedis;
use tests::{TestApp, wait_until};
use uuid::Uuid;

use crate::SOON;
use crate::guard::app;

const OPERATORS: [&str; 2] = ["day@example.org", "night@example.org"];
const LIST: &str = "/api/v1/admin/security/alerts";

async fn plane(redis: &TestRedis, replicas: usize, more: &[(&str, &str)]) -> TestApp {
    let operators = OPERATORS.join(", ");
    let mut settings = vec![
        ("ALERT_EMAILS", operators.as_str()),
        ("DDOS_THRESHOLD", "20"),
        ("RATE_LIMIT_DEFAULT", "100000/1m"),
        ("RATE_LIMIT_LOGIN", "100000/1m"),
    ];
    settings.extend(more);
    app(redis, replicas, &settings).await
}

async fn flood(client: &Client, from: &str) {
    for _ in 0..21 {
        let request = client.request(Method::GET, "/api/v1/servers");
        client.send(request.header("X-Forwarded-For", from)).await;
    }
}

async fn guess(client: &Client, from: &str, email: &str) -> u16 {
    let body = json!({ "email": email, "password": "not the password" });
    let request = client
        .request(Method::POST, "/api/v1/auth/login")
        .header("X-Forwarded-For", from);
    let reply = client.send(request.json(&body)).await;
    reply.status.as_u16()
}

/// What goes on or went on, as `kind count`.
async fn alerts(app: &TestApp) -> Vec<String> {
    let rows = "SELECT kind || ' ' || count FROM security_alerts ORDER BY started_at, id";
    app.db().texts(rows).await
}

async fn told(app: &TestApp) -> Vec<usize> {
    let mut told = Vec::new();
    for operator in OPERATORS {
        told.push(app.mails_to(operator).await.len());
    }
    told
}

/// Makes it a day ago that anything was seen.
async fn next_day(app: &TestApp) {
    app.db()
        .execute(
            "UPDATE security_alerts SET started_at = started_at - interval '1 day',
                last_seen_at = last_seen_at - interval '1 day',
                notified_at = notified_at - interval '1 day'",
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attack_is_one_alert_and_one_mail_through_two_replicas() {
    let redis = TestRedis::start().await;
    let app = plane(&redis, 2, &[]).await;
    let user = app.user().await;
    let there = user.at(app.url_of(1));
    flood(&user, "203.0.113.1").await;
    flood(&there, "203.0.113.2").await;
    flood(&there, "203.0.113.3").await;
    wait_until("all of it is one row", SOON, async || {
        alerts(&app).await == ["flood 3"]
    })
    .await;
    assert_eq!(told(&app).await, [1, 1]);
    let mails = app.mails_to(OPERATORS[0]).await;
    assert_eq!(mails[0].header("subject"), "Prime VPN: an attack began");
    assert!(!mails[0].text.contains("203.0.113"), "{}", mails[0].text);

    // Another attack so soon is another row, and causes no mail.
    app.db()
        .execute("UPDATE security_alerts SET last_seen_at = last_seen_at - interval '16 minutes', notified_at = now()")
        .await;
    flood(&user, "203.0.113.4").await;
    wait_until("the next one is a row", SOON, async || {
        alerts(&app).await == ["flood 3", "flood 1"]
    })
    .await;
    let ended = "SELECT count(*) FROM security_alerts WHERE ended_at = last_seen_at";
    assert_eq!(app.db().number(ended).await, 1);
    assert_eq!(told(&app).await, [1, 1]);
    next_day(&app).await;
    flood(&there, "203.0.113.5").await;
    wait_until("it is told of again", SOON, async || {
        told(&app).await == [2, 2]
    })
    .await;
    let addresses = "SELECT count(*) FROM security_alerts a WHERE a::text LIKE '%203.0.113%'";
    assert_eq!(app.db().number(addresses).await, 0);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_is_acknowledged_once_and_on_record() {
    let redis = TestRedis::start().await;
    let app = plane(&redis, 1, &[("ALERT_EMAILS", "")]).await;
    flood(&app.user().await, "203.0.113.1").await;
    let (admin, other) = (
        app.user_with_role("admin").await,
        app.user_with_role("admin").await,
    );
    let support = app.user_with_role("support").await;
    let list = async |query: &str| {
        let reply = support.get(&format!("{LIST}{query}")).await;
        reply.expect(200).json()
    };
    wait_until("it is in the list", SOON, async || {
        list("").await["meta"]["total"] == 1
    })
    .await;
    let alert = list("?filter=open").await["data"][0].take();
    assert_eq!(
        (&alert["kind"], &alert["count"], &alert["user_id"]),
        (&json!("flood"), &json!(1), &Value::Null)
    );
    for name in [
        "ended_at",
        "notified_at",
        "acknowledged_at",
        "acknowledged_by",
    ] {
        assert_eq!(alert[name], Value::Null, "{name}");
    }
    let id = alert["id"].as_str().expect("an id");
    let acknowledge = async |who: &Client, id: &str| {
        let path = format!("{LIST}/{id}/acknowledge");
        who.send(who.request(Method::PUT, &path)).await
    };
    acknowledge(&support, id)
        .await
        .expect_error(403, "FORBIDDEN");
    let shown = acknowledge(&admin, id).await.expect(200).json();
    let by = format!("user:{}", admin.user());
    assert_eq!(shown["acknowledged_by"], json!(by));
    let again = acknowledge(&other, id).await.expect(200).json();
    assert_eq!(again, shown, "the first stays on record");
    assert_eq!(list("").await["meta"]["total"], 0);
    assert_eq!(list("?filter=all").await["data"], json!([shown]));
    let unknown = acknowledge(&admin, &Uuid::now_v7().to_string()).await;
    unknown.expect_error(404, "ALERT_NOT_FOUND");
    let wrong = support.get(&format!("{LIST}?filter=some")).await;
    wrong.expect_error(400, "INVALID_INPUT");
    let audited =
        "SELECT actor || ' ' || subject FROM audit_log WHERE action = 'alert.acknowledge'";
    let expected = format!("{} {id}", admin.user());
    assert_eq!(app.db().texts(audited).await, [expected]);
    let addresses = "SELECT count(*) FROM audit_log WHERE audit_log::text LIKE '%203.0.113%'";
    assert_eq!(app.db().number(addresses).await, 0);
    assert_eq!(app.db().number("SELECT count(*) FROM jobs").await, 0);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_of_one_account_names_the_account() {
    let redis = TestRedis::start().await;
    let more = [
        ("DDOS_THRESHOLD", "100000"),
        ("RATE_LIMIT_ACCOUNT_STRANGERS", "3/1h"),
    ];
    let app = plane(&redis, 1, &more).await;
    let client = app.client();
    client.register("ada@example.org").await.expect(201);
    for email in ["ada@example.org", "nobody@example.org"] {
        for number in 1..=6 {
            guess(&client, &format!("192.0.2.{number}"), email).await;
        }
    }
    // One address that mistypes is no attack on the account.
    wait_until("it is a row", SOON, async || {
        alerts(&app).await == ["account_guessing 4"]
    })
    .await;
    let whose = "SELECT email FROM security_alerts a JOIN users ON users.id = a.user_id";
    assert_eq!(app.db().texts(whose).await, ["ada@example.org"]);
    assert_eq!(told(&app).await, [1, 1]);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_refusals_are_an_attack() {
    let redis = TestRedis::start().await;
    let more = [
        ("DDOS_THRESHOLD", "100000"),
        ("RATE_LIMIT_DEFAULT", "1/1h"),
        ("ALERT_REFUSED_PER_MINUTE", "15"),
    ];
    let app = plane(&redis, 1, &more).await;
    flood(&app.user().await, "203.0.113.1").await;
    wait_until("it is a row", SOON, async || {
        alerts(&app).await == ["refusals 20"]
    })
    .await;
    assert_eq!(told(&app).await, [1, 1]);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_postgres_an_attack_is_written_later() {
    let redis = TestRedis::start().await;
    let app = plane(&redis, 1, &[]).await;
    app.wait_hearing(0, true).await;
    let user = app.user().await;
    let away = app.db().take_away().await;
    flood(&user, "203.0.113.1").await;
    flood(&user, "203.0.113.2").await;
    away.bring_back().await;
    wait_until("it is a row", SOON, async || {
        alerts(&app).await == ["flood 2"]
    })
    .await;
    assert_eq!(told(&app).await, [1, 1]);
    app.finish(&[]).await;
}
