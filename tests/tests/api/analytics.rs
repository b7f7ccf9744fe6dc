//! Rollups and what is answered of them.

mod answers;
mod exact;
mod keeping;

use serde_json::Value;
use tests::TestApp;
use tests::api::Client;

const USAGE: &str = "/api/v1/analytics/usage";

/// The points of a series, or the rows of a list.
async fn data(client: &Client, path: &str) -> Vec<Value> {
    let answer = client.get(path).await.expect(200).json();
    answer["data"].as_array().expect("a list").clone()
}

fn sum(points: &[Value], field: &str) -> u64 {
    points
        .iter()
        .filter_map(|point| point[field].as_u64())
        .sum()
}

/// What the connections of everybody come to, and the hours and days of users and of servers.
async fn books(app: &TestApp) -> [i64; 3] {
    let bytes = "coalesce(sum(bytes_sent + bytes_received), 0)";
    let state = "(SELECT closed_until::timestamp AT TIME ZONE 'UTC' FROM rollup_state)";
    let of = |days: &str, hours: &str| {
        format!(
            "SELECT (SELECT {bytes} FROM {days}) + (SELECT {bytes} FROM {hours} WHERE hour >= {state})"
        )
    };
    [
        app.db()
            .number(&format!("SELECT {bytes} FROM connections"))
            .await,
        app.db().number(&of("usage_days", "usage_hours")).await,
        app.db().number(&of("server_days", "server_hours")).await,
    ]
}
