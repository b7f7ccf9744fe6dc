//! What passes, what is refused and how, and that nothing gets around it.

use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use reqwest::Method;
use tests::TestApp;
use tests::command::control_plane;
use tests::redis::TestRedis;

use super::{app, ask, behind_a_proxy, number, servers};

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
