//! Limits and bans: what passes, what is refused and how, and that nothing gets around them.

use std::time::Duration;

use control_plane::config::Variables;
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use reqwest::Method;
use serde_json::{Value, json};
use tests::api::{Client, Reply};
use tests::command::control_plane;
use tests::redis::TestRedis;
use tests::{TestApp, wait_until};

use crate::SOON;

/// What tests call from: a proxy of ours says who the client is.
fn behind_a_proxy(vars: &mut Variables, redis: &TestRedis) {
    for (name, value) in [
        ("REDIS_URL", redis.url()),
        ("TRUSTED_PROXIES", "127.0.0.1".to_owned()),
        // What this machine can do at its busiest is of no interest here.
        ("RATE_LIMIT_REDIS_TIMEOUT_MS", "10000".to_owned()),
        ("RATE_LIMIT_ADAPTIVE", "false".to_owned()),
        ("IP_RATE_LIMIT", "100000".to_owned()),
        ("GLOBAL_RATE_LIMIT", "100000".to_owned()),
        ("DDOS_THRESHOLD", "100000".to_owned()),
    ] {
        vars.insert(name.to_owned(), value);
    }
}

pub(crate) async fn app(redis: &TestRedis, replicas: usize, more: &[(&str, &str)]) -> TestApp {
    TestApp::replicas_with(replicas, |vars| {
        behind_a_proxy(vars, redis);
        for (name, value) in more {
            vars.insert((*name).to_owned(), (*value).to_owned());
        }
    })
    .await
}

/// Asks as a client at `address`.
async fn ask(client: &Client, address: &str, method: Method, path: &str) -> Reply {
    let mut request = client
        .request(method.clone(), path)
        .header("X-Forwarded-For", address);
    if method != Method::GET {
        request = request.json(&json!({}));
    }
    client.send(request).await
}

async fn servers(client: &Client, address: &str) -> Reply {
    ask(client, address, Method::GET, "/api/v1/servers").await
}

pub(crate) fn number(reply: &Reply, name: &str) -> u64 {
    let value = reply.header(name).unwrap_or_else(|| panic!("no {name}"));
    value.parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_the_limit_passes_through_two_replicas() {
    let redis = TestRedis::start().await;
    let app = app(&redis, 2, &[]).await;
    let here = app.user().await;
    let there = here.at(app.url_of(1));
    let asking = (0..1000).map(|number| {
        let client = if number % 2 == 0 { &here } else { &there };
        async move { servers(client, "203.0.113.9").await.status.as_u16() }
    });
    let statuses: Vec<_> = stream::iter(asking).buffer_unordered(100).collect().await;
    let count = |status| statuses.iter().filter(|it| **it == status).count();
    assert_eq!((count(200), count(429)), (80, 920));
    // Another address of the same user has none left either: the limit is the user's as well.
    servers(&here, "203.0.113.10")
        .await
        .expect_error(429, "RATE_LIMITED");
    let other = app.user().await;
    servers(&other, "203.0.113.10").await.expect(200);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_limit_holds_and_waiting_as_long_as_told_is_enough() {
    const ROWS: [(&str, &str, &str, &str, usize); 11] = [
        ("RATE_LIMIT_LOGIN", "5/5s+2", "POST", "/auth/login", 7),
        ("RATE_LIMIT_REGISTER", "3/5s+1", "POST", "/auth/register", 4),
        (
            "RATE_LIMIT_PASSWORD_RESET",
            "3/5s+1",
            "POST",
            "/auth/password-reset/request",
            4,
        ),
        ("RATE_LIMIT_CONNECT", "20/5s+5", "POST", "/vpn/connect", 25),
        (
            "RATE_LIMIT_DISCONNECT",
            "30/5s+10",
            "POST",
            "/vpn/disconnect",
            40,
        ),
        (
            "RATE_LIMIT_PAYMENTS",
            "10/5s+3",
            "POST",
            "/payments/create",
            13,
        ),
        (
            "RATE_LIMIT_WEBSOCKET",
            "5/5s+2",
            "GET",
            "/ws/connection/0190a0c8-0000-7000-8000-000000000001",
            7,
        ),
        ("RATE_LIMIT_DEFAULT", "60/5s+20", "GET", "/users/me", 80),
        ("RATE_LIMIT_NODE", "12/5s+6", "POST", "/node/v1/enrol", 18),
        (
            "RATE_LIMIT_WEBHOOK",
            "12/5s+3",
            "POST",
            "/payments/webhook",
            15,
        ),
        ("RATE_LIMIT_HEALTH", "10/5s+2", "GET", "/health", 12),
    ];
    let redis = TestRedis::start().await;
    let limits: Vec<_> = ROWS.iter().map(|row| (row.0, row.1)).collect();
    let mut settings = vec![("SUSPICIOUS_ACTIVITY_THRESHOLD", "100000")];
    settings.extend(&limits);
    let app = app(&redis, 1, &settings).await;
    let client = app.client();
    let rows = ROWS
        .iter()
        .enumerate()
        .map(async |(row, (name, _, method, path, capacity))| {
            let address = format!("198.51.100.{row}");
            let method: Method = method.parse().expect("a method");
            let path = if path.starts_with("/node") {
                (*path).to_owned()
            } else {
                format!("/api/v1{path}")
            };
            let asked = || ask(&client, &address, method.clone(), &path);
            let all = join_all((0..*capacity).map(|_| asked())).await;
            assert!(
                all.iter().all(|it| it.status != 429),
                "{name}: too few pass"
            );
            let least = all
                .iter()
                .map(|it| number(it, "x-ratelimit-remaining"))
                .min();
            assert_eq!(least, Some(0), "{name}");
            let refused = asked().await;
            refused.expect_error(429, "RATE_LIMITED");
            assert_eq!(number(&refused, "x-ratelimit-remaining"), 0, "{name}");
            let capacity = u64::try_from(*capacity).expect("it is small");
            assert_eq!(number(&refused, "x-ratelimit-limit"), capacity, "{name}");
            let wait = number(&refused, "retry-after");
            assert!((1..=5).contains(&wait), "{name}: {wait}");
            tokio::time::sleep(Duration::from_secs(wait)).await;
            assert_ne!(
                asked().await.status,
                429,
                "{name}: it was told to wait {wait} s"
            );
        });
    join_all(rows).await;
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_header_and_no_spelling_gets_around_a_limit() {
    let redis = TestRedis::start().await;
    let narrow = [
        ("RATE_LIMIT_DEFAULT", "3/1h+0"),
        ("RATE_LIMIT_LOGIN", "2/1h+0"),
    ];
    let app = app(&redis, 1, &narrow).await;
    let client = app.client();
    let passed = async |addresses: &[&str]| {
        let mut passed = 0;
        for address in addresses {
            passed += usize::from(servers(&client, address).await.status != 429);
        }
        passed
    };
    // What the client wrote itself comes before what our proxy appended.
    let forged = [
        "1.1.1.1, 203.0.113.1",
        "2.2.2.2, 203.0.113.1",
        "127.0.0.1, 203.0.113.1",
        "nonsense, 203.0.113.1:99",
        "::ffff:203.0.113.1",
    ];
    assert_eq!(passed(&forged).await, 3);
    // A customer has a /64 at the least.
    let site = [
        "2001:db8:1:1::1",
        "2001:db8:1:1::2",
        "2001:db8:1:1:ffff::3",
        "[2001:db8:1:1::4]:443",
        "2001:db8:1:2::1",
    ];
    assert_eq!(passed(&site).await, 4, "only the neighbour has its own");
    // A path is what the router makes of it.
    let mut statuses = Vec::new();
    for path in [
        "/api/v1/auth/login",
        "/auth/login",
        "/auth/%6cogin",
        "/auth/log%69n",
    ] {
        let reply = ask(&client, "203.0.113.77", Method::POST, path).await;
        statuses.push(reply.status.as_u16());
    }
    assert_eq!(&statuses[2..], [429, 429], "{statuses:?}");
    app.finish(&[]).await;

    // Without a proxy of ours nobody speaks for anybody, and nobody is whitelisted for others.
    let app = TestApp::replicas_with(1, |vars| {
        behind_a_proxy(vars, &redis);
        vars.remove("TRUSTED_PROXIES");
        vars.insert("RATE_LIMIT_DEFAULT".to_owned(), "3/1h+0".to_owned());
    })
    .await;
    let client = app.client();
    let mut passed = 0;
    for number in 0..8 {
        let reply = servers(&client, &format!("203.0.113.{number}")).await;
        passed += usize::from(reply.status != 429);
    }
    assert_eq!(passed, 3, "they all count for the peer");
    let forwarded = client
        .request(Method::GET, "/api/v1/servers")
        .header("Forwarded", "for=203.0.113.200");
    client
        .send(forwarded)
        .await
        .expect_error(429, "RATE_LIMITED");
    // The whitelisted peer itself has no limit.
    for _ in 0..5 {
        let reply = client.get("/api/v1/servers").await;
        assert_eq!(reply.status, 401);
        assert_eq!(number(&reply, "x-ratelimit-remaining"), 3);
    }
    app.finish(&[]).await;
}

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
async fn without_postgres_a_ban_is_known_everywhere_and_written_later() {
    let redis = TestRedis::start().await;
    let settings = [
        ("DDOS_THRESHOLD", "20"),
        ("RATE_LIMIT_DEFAULT", "1000/1m+0"),
    ];
    let app = app(&redis, 2, &settings).await;
    app.wait_hearing(0, true).await;
    app.wait_hearing(1, true).await;
    let user = app.user().await;
    let there = user.at(app.url_of(1));
    let away = app.db().take_away().await;
    for _ in 0..21 {
        servers(&user, "203.0.113.5").await;
    }
    servers(&user, "203.0.113.5")
        .await
        .expect_error(403, "ADDRESS_BANNED");
    wait_until("the other replica knows", SOON, async || {
        servers(&there, "203.0.113.5").await.status == 403
    })
    .await;
    away.bring_back().await;
    wait_until("the ban is a row", SOON, async || {
        let rows = "SELECT reason || ' ' || host(network) FROM bans";
        app.db().texts(rows).await == ["flood 203.0.113.5"]
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

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_the_limits_go_on_where_they_were() {
    let mut redis = TestRedis::start().await;
    let port = redis.port();
    let app = app(
        &redis,
        1,
        &[
            ("RATE_LIMIT_DEFAULT", "10/1h+0"),
            ("RATE_LIMIT_REDIS_TIMEOUT_MS", "50"),
        ],
    )
    .await;
    let user = app.user().await;
    let passed = async |count: usize| {
        let mut passed = 0;
        for _ in 0..count {
            let status = servers(&user, "203.0.113.9").await.status;
            assert!(status == 200 || status == 429, "{status}");
            passed += usize::from(status == 200);
        }
        passed
    };
    assert_eq!(passed(6).await, 6);
    redis.kill();
    assert_eq!(passed(8).await, 4, "what counted before still counts");
    let other = app.user().await;
    servers(&other, "203.0.113.10").await.expect(200);
    // It comes back empty, and still nothing is forgotten.
    let _redis = TestRedis::start_at(port).await;
    assert_eq!(passed(5).await, 0);
    let admin = app.user_with_role("admin").await;
    let reset = "/api/v1/admin/rate-limits/reset/203.0.113.9?endpoint=default";
    admin.delete(reset).await.expect(204);
    let status = admin
        .get("/api/v1/admin/rate-limits/status/203.0.113.9?endpoint=default")
        .await
        .expect(200)
        .json();
    let expected: Value = json!([{ "endpoint": "default", "limit": 10, "remaining": 10,
        "window_seconds": 3600, "retry_after": 0 }]);
    assert_eq!(status["windows"], expected);
    servers(&app.user().await, "203.0.113.9").await.expect(200);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_script_shows_it_on_a_running_plane() {
    let redis = TestRedis::start().await;
    for proxies in ["", "127.0.0.1"] {
        let app = app(&redis, 1, &[("TRUSTED_PROXIES", proxies)]).await;
        let rights = ["--right", "security:read", "--right", "security:write"];
        let mint = [&["token", "mint", "--name", "verify"][..], &rights].concat();
        let token = control_plane(Some(app.db().url()), &mint, "")
            .await
            .expect();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/verify-rate-limits");
        let shown = tokio::process::Command::new(script)
            .args(["--url", app.url(), "--token", &token])
            .output()
            .await
            .expect("it runs");
        let (said, complaint) = (text(&shown.stdout), text(&shown.stderr));
        assert!(shown.status.success(), "{said}{complaint}");
        assert_eq!(said.matches("ok    ").count(), 8, "{said}");
        assert!(said.contains("Retry-After: "), "{said}");
        app.finish(&[]).await;
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
