//! Who is banned, by whom and for what, and where it is known.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tests::api::Client;
use tests::redis::TestRedis;
use tests::wait_until;

use super::{app, number, servers};
use crate::SOON;

#[tokio::test(flavor = "multi_thread")]
async fn a_ban_holds_on_every_replica_within_a_second_and_survives_redis() {
    let redis = TestRedis::start().await;
    let app = app(&redis, 2, &[]).await;
    let admin = app.user_with_role("admin").await;
    let user = app.user().await;
    let there = user.at(app.url_of(1));
    let neighbour = "203.0.113.10";
    let refused =
        async |client: &Client, address: &str| servers(client, address).await.status == 403;

    let body = json!({ "ip": "203.0.113.9", "reason": "Stuffing", "duration_seconds": 3600 });
    let ban = admin
        .post("/api/v1/admin/bans", &body)
        .await
        .expect(201)
        .json();
    assert_eq!(
        (&ban["ip"], &ban["cause"]),
        (&json!("203.0.113.9"), &json!("manual"))
    );
    let reply = servers(&user, "203.0.113.9").await;
    reply.expect_error(403, "ADDRESS_BANNED");
    assert!((3590..=3600).contains(&number(&reply, "retry-after")));
    wait_until(
        "the other replica knows",
        Duration::from_secs(1),
        async || refused(&there, "203.0.113.9").await,
    )
    .await;
    assert!(!refused(&there, neighbour).await);

    // Redis loses everything; the ban is in Postgres, and a new replica learns it from there.
    redis.flush().await;
    assert!(refused(&there, "203.0.113.9").await);
    let list = admin.get("/api/v1/admin/bans").await.expect(200).json();
    assert_eq!(list["data"], json!([ban]));
    let beyond = admin.get("/api/v1/admin/bans?page=2").await.expect(200);
    assert_eq!(beyond.json()["meta"]["total"], json!(1));
    let status = admin
        .get("/api/v1/admin/rate-limits/status/203.0.113.9")
        .await
        .expect(200)
        .json();
    assert_eq!(status["banned"], json!(true));

    let path = "/api/v1/admin/bans/203.0.113.9";
    admin.delete(path).await.expect(204);
    assert!(!refused(&user, "203.0.113.9").await);
    wait_until(
        "the other replica knows",
        Duration::from_secs(1),
        async || !refused(&there, "203.0.113.9").await,
    )
    .await;
    admin.delete(path).await.expect_error(404, "BAN_NOT_FOUND");

    // A network, and what is none.
    let network = json!({ "ip": "198.51.100.0/24" });
    admin.post("/api/v1/admin/bans", &network).await.expect(201);
    assert!(refused(&user, "198.51.100.200").await);
    admin
        .delete("/api/v1/admin/bans/198.51.100.0%2F24")
        .await
        .expect(204);
    assert!(!refused(&user, "198.51.100.200").await);
    for ip in ["0.0.0.0/0", "::/0", "somewhere", ""] {
        let fields = admin
            .post("/api/v1/admin/bans", &json!({ "ip": ip }))
            .await
            .expect_error(400, "INVALID_INPUT");
        assert_eq!(fields, ["ip"]);
    }
    let audited = "SELECT action FROM audit_log WHERE action LIKE 'ban.%' ORDER BY id";
    assert_eq!(
        app.db().texts(audited).await,
        ["ban.impose", "ban.lift", "ban.impose", "ban.lift"]
    );
    let addresses = "SELECT count(*) FROM audit_log WHERE audit_log::text LIKE '%203.0.113%'";
    assert_eq!(app.db().number(addresses).await, 0);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_and_guessing_are_banned_and_nobody_else() {
    let redis = TestRedis::start().await;
    let settings = [
        ("DDOS_THRESHOLD", "40"),
        ("SUSPICIOUS_ACTIVITY_THRESHOLD", "10"),
        ("RATE_LIMIT_ACCOUNT_LOGIN", "1000/1m"),
        ("RATE_LIMIT_LOGIN", "1000/1m+0"),
        ("RATE_LIMIT_DEFAULT", "10/1m+0"),
    ];
    let app = app(&redis, 2, &settings).await;
    let user = app.user().await;
    let there = user.at(app.url_of(1));
    // Half of it through each replica: neither alone sees a flood.
    for _ in 0..30 {
        servers(&user, "203.0.113.1").await;
        servers(&there, "203.0.113.1").await;
    }
    wait_until("the flood is banned on both", SOON, async || {
        servers(&user, "203.0.113.1").await.status == 403
            && servers(&there, "203.0.113.1").await.status == 403
    })
    .await;
    let guesser = app.client();
    let guess = json!({ "email": "ada@example.org", "password": "a wrong password" });
    for _ in 0..11 {
        let request = guesser
            .request(Method::POST, "/api/v1/auth/login")
            .header("X-Forwarded-For", "203.0.113.2")
            .json(&guess);
        guesser
            .send(request)
            .await
            .expect_error(401, "INVALID_CREDENTIALS");
    }
    servers(&user, "203.0.113.2")
        .await
        .expect_error(403, "ADDRESS_BANNED");
    let other = app.user().await;
    servers(&other, "203.0.113.3").await.expect(200);
    wait_until("the bans are rows", SOON, async || {
        let rows =
            "SELECT reason || ' ' || host(network) || ' ' || made_by FROM bans ORDER BY network";
        app.db().texts(rows).await == ["flood 203.0.113.1 system", "suspicious 203.0.113.2 system"]
    })
    .await;
    let support = app.user_with_role("support").await;
    let events = async || {
        let reply = support.get("/api/v1/admin/security/events").await;
        reply.expect(200).json()
    };
    wait_until("the flood is told of", SOON, async || {
        let worst = &events().await["top_offenders"][0];
        (&worst["ip"], &worst["banned"]) == (&json!("203.0.113.1"), &json!(true))
    })
    .await;
    let told = events().await;
    assert_eq!(told["most_hit_endpoints"][0]["endpoint"], json!("default"));
    assert_eq!(told["bans"].as_array().map(Vec::len), Some(2));
    // Each replica adds what it counted once a second.
    wait_until("everything is counted", SOON, async || {
        let reply = support.get("/api/v1/admin/rate-limits/stats").await;
        let statistics = reply.expect(200).json();
        let overhead = &events().await["protection_overhead"]["p50_us"];
        (&statistics["passed"], &statistics["bans_in_force"]) == (&json!(22), &json!(2))
            && statistics["refused"].as_u64() >= Some(40)
            && overhead.as_u64() >= Some(1)
    })
    .await;
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_missed_the_end_of_a_ban_learns_it_from_the_next_full_reading() {
    let redis = TestRedis::start().await;
    let app = app(&redis, 1, &[]).await;
    let user = app.user().await;
    let ban = "INSERT INTO bans (id, network, reason, made_by, created_at)
               VALUES (gen_random_uuid(), '203.0.113.6', 'manual', 'system', now() - interval '1 hour')";
    app.db().execute(ban).await;
    wait_until("it is banned", SOON, async || {
        servers(&user, "203.0.113.6").await.status == 403
    })
    .await;
    // As for a replica that could read nothing while the row said that it was lifted.
    app.db().execute("DELETE FROM bans").await;
    wait_until("it is banned no more", 3 * SOON, async || {
        servers(&user, "203.0.113.6").await.status == 200
    })
    .await;
    app.finish(&[]).await;
}
