//! Where a client really is leaves no trace: in no table, log line, metric or file of either daemon.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tests::api::Client;
use tests::lab::{Agent, Backend, Stage, World, key_of, run};

/// The client's side of its link to the node, from which WireGuard's packets come.
const CLIENT: [u8; 4] = [203, 0, 113, 2];

/// A byte as a pattern of what Postgres's `escape` makes of it.
fn escaped(byte: u8) -> String {
    match byte {
        0 | 128.. => format!("\\\\{byte:03o}"),
        _ => char::from(byte).to_string(),
    }
}

fn contains(content: &[u8], part: &[u8]) -> bool {
    content.windows(part.len()).any(|window| window == part)
}

/// The files below a folder in which the client's address is, as text or as it is on the wire.
fn files_with_it(folder: &Path, text: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files_with_it(&path, text, found);
        } else if let Ok(content) = fs::read(&path)
            && (contains(&content, text.as_bytes()) || contains(&content, &CLIENT))
        {
            found.push(path.display().to_string());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_client_is_is_nowhere() {
    let debug = |agent: &mut Agent, _: &World, _: &Path| agent.set("RUST_LOG", "debug");
    let mut stage = Stage::with_agent(Backend::detect(), debug).await;
    let client = stage.client().await;
    let tunnel = stage.tunnel(&client).await;
    let internet = World::INTERNET.to_string();
    assert!(client.pings(&internet, Duration::from_secs(5)));
    let mut stream = stage
        .user
        .events("/api/v1/connection/events")
        .await
        .expect("opens");
    stream.next_of("metrics").await;
    // The interface knows it, or this test would look for nothing.
    let known = run(
        "ip",
        &[
            "netns",
            "exec",
            &stage.world.node(),
            "wg",
            "show",
            stage.agent.interface(),
            "endpoints",
        ],
    );
    let address = CLIENT.map(|part| part.to_string()).join(".");
    assert!(known.contains(&format!("{address}:")), "{known}");

    // What writes: an agent that is killed and returns, a plane that does, another connection, an end.
    stage.agent.kill();
    stage.agent.run();
    stage.agent.wait_connected().await;
    assert!(client.pings(&internet, Duration::from_secs(5)));
    stage.plane.kill();
    stage.plane = stage.plane.restart().await;
    stage.agent.wait_connected().await;
    stage.wait_counters_agree(1).await;
    let other = stage.user.connected(&json!({})).await;
    let told = [
        stage.agent.cli(&["status"]),
        stage.agent.cli(&["status", "--json"]),
        stage.agent.cli(&["metrics"]),
        Client::new(&stage.plane.metrics_url())
            .get("/metrics")
            .await
            .expect(200)
            .text(),
        stage.user.status().await.to_string(),
    ];
    assert!(told[2].contains("prime_node_peers 2\n"), "{}", told[2]);
    stage.user.disconnected(other.connection_id).await;
    stage.user.disconnected(tunnel.connection_id).await;
    assert!(stage.peer(key_of(&tunnel.wg_config)).is_none());

    for text in &told {
        assert!(!text.contains(&address), "{text}");
    }
    let in_text = address.replace('.', "\\.");
    let in_bytes: String = CLIENT.into_iter().map(escaped).collect();
    let pattern = format!("{in_text}([^0-9]|$)|{in_bytes}");
    let found = stage.db.find(&pattern).await;
    assert!(found.is_empty(), "{found:#?}");
    let mut files = Vec::new();
    files_with_it(stage.folder.path(), &address, &mut files);
    assert!(files.is_empty(), "{files:#?}");

    // What it looks for is found where it is.
    stage
        .db
        .execute(&format!(
            "UPDATE users SET full_name = 'At {address}';
             UPDATE sessions SET name = '{address}:51820';
             INSERT INTO jobs (id, kind, sealed, status) VALUES (gen_random_uuid(), 'mail', '\\x{}', 'failed')",
            hex::encode(CLIENT)
        ))
        .await;
    let planted = stage.db.find(&pattern).await;
    assert_eq!(planted.len(), 3, "{planted:#?}");
    fs::write(stage.folder.path().join("planted"), CLIENT).expect("written");
    files_with_it(stage.folder.path(), &address, &mut files);
    assert_eq!(files.len(), 1, "{files:#?}");
}
