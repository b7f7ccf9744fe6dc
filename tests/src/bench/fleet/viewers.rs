//! People who look at their connections move.

use std::collections::HashMap;

use anyhow::{bail, ensure};
use serde::Deserialize;
use shared::ids::ConnectionId;
use tokio::time::Instant;

use super::Schedule;
use super::population::Member;
use super::traffic::moved_in_a_second;
use crate::api::{Event, Metrics};
use crate::bench::Samples;

/// What is shown of a connection.
#[derive(Deserialize)]
struct Shown {
    connection_id: ConnectionId,
    bytes_sent: u64,
}

/// Looks until the measured seconds are over. For each message of them: how long a newer frame of the
/// node's was due that it does not show, zero where it shows the newest.
pub async fn look(
    mut socket: Metrics,
    members: &HashMap<ConnectionId, Member>,
    schedule: Schedule,
) -> anyhow::Result<Samples> {
    let (begin, end) = schedule.window();
    let mut samples = Samples::default();
    loop {
        let event = tokio::time::timeout_at(end, socket.next()).await;
        let Ok(event) = event else {
            ensure!(!samples.is_empty(), "a viewer was told nothing");
            return Ok(samples);
        };
        let now = Instant::now();
        let Event::Message(message) = event else {
            bail!("a viewer's socket was closed: {event:?}");
        };
        if now < begin || message.get("type").is_none_or(|kind| kind != "metrics") {
            continue;
        }
        let shown: Shown = serde_json::from_value(message)?;
        if let Some(member) = members.get(&shown.connection_id) {
            let next = u32::try_from(shown.bytes_sent / moved_in_a_second(member.peer).0)?;
            let due = schedule.due(u32::try_from(member.node)?, next);
            samples.push(now.saturating_duration_since(due));
        }
    }
}
