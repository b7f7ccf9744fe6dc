//! Days are closed and months go without a byte's difference.

use std::cell::Cell;

use chrono::{DateTime, TimeDelta, Utc};
use diesel::QueryableByName;
use diesel::sql_types::BigInt;
use diesel_async::RunQueryDsl;
use serde_json::Value;
use tests::api::Client;
use tests::{TestApp, wait_until};
use uuid::Uuid;

use super::{USAGE, data, sum};
use crate::SOON;

/// Hours of three people on two servers, from 70 days ago until now, and what the servers had to do.
async fn fill(app: &TestApp, people: &[&Client]) -> Uuid {
    let servers = [Uuid::now_v7(), Uuid::now_v7()];
    for (number, person) in people.iter().enumerate() {
        for server in servers {
            app.db()
                .execute(&format!(
                    "INSERT INTO usage_hours
                     SELECT '{}', hour, '{server}', (random() * 1e9)::bigint, (random() * 1e10)::bigint,
                            (random() * 1e6)::bigint, 2, 1, {number} + 60
                       FROM generate_series(date_trunc('hour', now()) - interval '70 days', now(), '5 hours') hour",
                    person.user()
                ))
                .await;
        }
    }
    app.db()
        .execute(
            "INSERT INTO server_hours
             SELECT server_id, hour, sum(bytes_sent), sum(bytes_received), max(peak_bytes_per_second), sum(connects),
                    sum(ends), sum(connected_seconds), 60, 60 * 30, 90, 60 * 7, 9
               FROM usage_hours GROUP BY 1, 2;
             UPDATE rollup_state SET closed_until = (now() - interval '70 days')::date - 1",
        )
        .await;
    servers[0]
}

/// Keeps the rollups as of this time, until this day is the first that is not closed.
async fn keep(app: &TestApp, now: DateTime<Utc>) {
    let day = (now - TimeDelta::hours(1)).date_naive();
    let open = format!("SELECT count(*) FROM rollup_state WHERE closed_until = '{day}'");
    // The plane's own upkeep may hold the lock for a moment.
    wait_until("days are closed", SOON, async || {
        app.keep_rollups(now).await;
        app.db().number(&open).await == 1
    })
    .await;
}

#[derive(QueryableByName)]
struct Bytes {
    #[diesel(sql_type = BigInt)]
    bytes: i64,
}

async fn partitions(app: &TestApp, table: &str) -> Vec<String> {
    let names = format!(
        "SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = '{table}'::regclass
          AND inhrelid <> '{table}_default'::regclass ORDER BY 1::text"
    );
    app.db().texts(&names).await
}

#[tokio::test(flavor = "multi_thread")]
async fn days_and_months_are_the_same_after_they_are_closed() {
    let app = TestApp::start().await;
    let (ada, bob) = (app.user().await, app.user().await);
    let support = app.user_with_role("support").await;
    let server = fill(&app, &[&ada, &bob]).await;
    let now = Utc::now();
    let since = (now - TimeDelta::days(80)).format("%Y-%m-%dT00:00:00Z");
    let range = format!("from={since}&interval");
    let paths: Vec<_> = ["usage", "connections", "servers/load"]
        .iter()
        .flat_map(|what| {
            ["day", "month"].map(|interval| format!("/api/v1/analytics/{what}?{range}={interval}"))
        })
        .collect();
    let one_server = format!("{USAGE}?{range}=day&server_id={server}");
    let ask = async || -> Vec<Vec<Value>> {
        let mut answers = Vec::new();
        for path in &paths {
            answers.push(data(&support, path).await);
        }
        answers.push(data(&ada, &paths[0]).await);
        answers.push(data(&bob, &paths[1]).await);
        answers.push(data(&ada, &one_server).await);
        answers.push(data(&support, "/api/v1/analytics/users/top?interval=day").await);
        answers
    };
    let before = ask().await;
    let total = "SELECT sum(bytes_sent + bytes_received) FROM usage_hours";
    let total = u64::try_from(app.db().number(total).await).expect("bytes");
    assert_eq!(sum(&before[0], "total_bytes"), total);

    keep(&app, now).await;
    let days = "SELECT count(DISTINCT day) FROM usage_days";
    assert!(app.db().number(days).await >= 69);
    assert_eq!(ask().await, before);
    // Nothing is left over beside the months.
    for table in ["usage_hours", "server_hours", "usage_days", "server_days"] {
        let rest = format!("SELECT count(*) FROM {table}_default");
        assert_eq!(app.db().number(&rest).await, 0, "{table}");
        let next = (now + TimeDelta::days(31)).format("%Y_%m");
        let months = partitions(&app, table).await;
        assert!(months.contains(&format!("{table}_{next}")), "{months:?}");
    }

    // Hours go, days stay.
    let hours = partitions(&app, "usage_hours").await.len();
    keep(&app, now + TimeDelta::days(125)).await;
    assert_eq!(data(&ada, &paths[0]).await, before[paths.len()]);
    let left = partitions(&app, "usage_hours").await;
    assert!(left.len() < hours + 4, "{left:?}");
    let old = "SELECT count(*) FROM usage_hours WHERE hour < now() - interval '31 days'";
    assert_eq!(app.db().number(old).await, 0);
    // Days go after two years and a month.
    keep(&app, now + TimeDelta::days(900)).await;
    assert_eq!(app.db().number("SELECT count(*) FROM usage_days").await, 0);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_without_a_partition() {
    let app = TestApp::start().await;
    let user = app.user().await;
    // A month that nobody made, as after a long standstill.
    let hour = Utc::now() - TimeDelta::days(40);
    app.db()
        .execute(&format!(
            "INSERT INTO usage_hours VALUES ('{}', date_trunc('hour', '{}'::timestamptz), gen_random_uuid(), 5, 7, 1, 1, 1, 1);
             UPDATE rollup_state SET closed_until = '{}'",
            user.user(),
            hour.to_rfc3339(),
            hour.date_naive()
        ))
        .await;
    let path = format!("{USAGE}?interval=month");
    assert_eq!(sum(&data(&user, &path).await, "total_bytes"), 12);
    keep(&app, Utc::now()).await;
    assert_eq!(sum(&data(&user, &path).await, "total_bytes"), 12);
    let month = format!("usage_hours_{}", hour.format("%Y_%m"));
    assert!(partitions(&app, "usage_hours").await.contains(&month));
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_reads_a_month_that_is_just_being_made_as_empty() {
    let app = TestApp::start().await;
    let user = app.user().await.user();
    // Other hours make a partition take long to come into its place.
    app.db()
        .execute(&format!(
            "INSERT INTO usage_hours
             SELECT gen_random_uuid(), '2020-01-01', gen_random_uuid(), 1, 1, 1, 1, 1, 1
               FROM generate_series(1, 200000);
             INSERT INTO usage_hours
             SELECT '{user}', date_trunc('hour', now()), gen_random_uuid(), 100, 0, 0, 0, 0, 0"
        ))
        .await;
    let over = Cell::new(false);
    let reading = async {
        let mut connection = app.db().connect().await;
        let sql = format!(
            "SELECT coalesce(sum(bytes_sent), 0)::bigint AS bytes FROM usage_hours WHERE user_id = '{user}'"
        );
        while !over.get() {
            let read: Bytes = diesel::sql_query(&sql)
                .get_result(&mut connection)
                .await
                .expect("it is read");
            assert_eq!(read.bytes, 100);
        }
    };
    let keeping = async {
        keep(&app, Utc::now()).await;
        over.set(true);
    };
    tokio::join!(reading, keeping);
    let month = format!("usage_hours_{}", Utc::now().format("%Y_%m"));
    assert!(partitions(&app, "usage_hours").await.contains(&month));
    let moved = format!("SELECT count(*) FROM {month}");
    assert_eq!(app.db().number(&moved).await, 1);
    app.finish(&[]).await;
}
