//! What holds while Redis or Postgres is away.

use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use serde_json::{Value, json};
use tests::redis::TestRedis;
use tests::wait_until;
use tokio::time::sleep;

use super::{app, servers};
use crate::SOON;

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
async fn redis_dies_under_load_and_nobody_is_failed_or_let_through() {
    let mut redis = TestRedis::start().await;
    let port = redis.port();
    let limits = [
        ("RATE_LIMIT_DEFAULT", "30/1h+0"),
        ("RATE_LIMIT_REDIS_TIMEOUT_MS", "50"),
    ];
    let app = app(&redis, 1, &limits).await;
    app.wait_hearing(0, true).await;
    let people = join_all((0..8).map(|_| app.user())).await;
    // Each asks all the time from an address of their own, far beyond their limit.
    let until = Instant::now() + Duration::from_secs(6);
    let asking = join_all(people.iter().zip(1..).map(async |(person, n)| {
        let address = format!("203.0.113.{n}");
        let (mut passed, mut refused) = (0, 0);
        while Instant::now() < until {
            match servers(person, &address).await.status.as_u16() {
                200 => passed += 1,
                429 => refused += 1,
                other => panic!("{other}"),
            }
            sleep(Duration::from_millis(50)).await;
        }
        (passed, refused)
    }));
    let dying = async {
        sleep(Duration::from_millis(700)).await;
        redis.kill();
        sleep(Duration::from_secs(2)).await;
        TestRedis::start_at(port).await
    };
    let (counts, redis) = join(asking, dying).await;
    for (passed, refused) in counts {
        assert_eq!(passed, 30, "of {}", passed + refused);
        assert!(refused > 0, "too slow to see a limit");
    }
    // What it counts is shared again, and a ban outlives what it forgets.
    wait_until("Redis is heard again", 2 * SOON, async || {
        servers(&app.user().await, "203.0.113.99").await;
        redis.keys().await > 0
    })
    .await;
    app.finish(&[]).await;
}
