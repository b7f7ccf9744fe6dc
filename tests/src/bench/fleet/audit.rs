//! Whether the database has what the nodes said, to the byte.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::ensure;
use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use shared::ids::PeerId;
use tokio::time::interval;
use uuid::Uuid;

use super::node::NodeReport;
use crate::TestDb;

/// For the last peer's turn, and half as much again.
const PATIENCE: Duration = Duration::from_secs(90);
/// It reads the whole table.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What does not agree.
#[derive(Debug, Clone, Copy)]
pub struct Findings {
    /// How long after the last frame the sums agreed.
    pub caught_up_in: Duration,
    /// Connections whose bytes are not those that their node counted.
    pub connections: usize,
    /// Hours of users and of servers, summed up, that are not the sums of the connections.
    pub rollups: i64,
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = SqlUuid)]
    server_id: Uuid,
    #[diesel(sql_type = BigInt)]
    peer_id: i64,
    #[diesel(sql_type = BigInt)]
    bytes_sent: i64,
    #[diesel(sql_type = BigInt)]
    bytes_received: i64,
}

/// Waits until the database has as many bytes as the nodes counted, and then compares each row.
pub async fn compare(db: &TestDb, reports: &[NodeReport]) -> anyhow::Result<Findings> {
    let mut counted: HashMap<(Uuid, PeerId), (u64, u64)> = HashMap::new();
    for report in reports {
        let totals = report.totals.iter();
        counted.extend(totals.map(|(peer, it)| ((report.server.0, *peer), (it.sent, it.received))));
    }
    let all: u64 = counted
        .values()
        .map(|(sent, received)| sent + received)
        .sum();
    let all = i64::try_from(all)?;
    let began = Instant::now();
    let stored = "SELECT sum(bytes_sent + bytes_received) FROM connections";
    let mut tick = interval(LOOK_EVERY);
    while db.number(stored).await != all {
        ensure!(began.elapsed() < PATIENCE, "not every byte is stored");
        tick.tick().await;
    }
    let caught_up_in = began.elapsed();
    let rows: Vec<Row> =
        diesel::sql_query("SELECT server_id, peer_id, bytes_sent, bytes_received FROM connections")
            .load(&mut db.connect().await)
            .await?;
    let same = rows.iter().filter(|row| {
        let key = (row.server_id, PeerId(row.peer_id.cast_unsigned()));
        let bytes = (
            row.bytes_sent.cast_unsigned(),
            row.bytes_received.cast_unsigned(),
        );
        counted.get(&key) == Some(&bytes)
    });
    Ok(Findings {
        caught_up_in,
        connections: rows.len().max(counted.len()) - same.count(),
        rollups: differing(db, "usage_hours", "user_id, server_id").await
            + differing(db, "server_hours", "server_id").await,
    })
}

/// How many keys of a table of hours have other sums than the connections.
async fn differing(db: &TestDb, hours: &str, key: &str) -> i64 {
    let sums = |table: &str| {
        format!(
            "(SELECT {key}, sum(bytes_sent) AS sent, sum(bytes_received) AS received FROM {table}
               GROUP BY {key} HAVING sum(bytes_sent + bytes_received) > 0)"
        )
    };
    let (hours, connections) = (sums(hours), sums("connections"));
    db.number(&format!(
        "SELECT count(*) FROM {hours} h FULL JOIN {connections} c USING ({key})
          WHERE (h.sent, h.received) IS DISTINCT FROM (c.sent, c.received)"
    ))
    .await
}
