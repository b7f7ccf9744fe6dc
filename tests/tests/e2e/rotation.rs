//! A node gets another key while a client uses it.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use shared::protocol::{AgentMessage, PlaneMessage, Settings};
use tests::lab::{Stage, World, key_of};

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_lives_until_the_key_changes_and_goes_on_with_the_new_one() {
    let mut stage = Stage::set().await;
    let wire = stage.wire().await;
    let client = stage.client().await;
    let tunnel = stage.tunnel(&client).await;
    let key = key_of(&tunnel.wg_config);
    let target = World::INTERNET.to_string();
    assert!(client.pings(&target, Duration::from_secs(5)));

    wire.say(PlaneMessage::Settings(Settings {
        draining: false,
        rotate_key_at: Some(Utc::now() + TimeDelta::seconds(15)),
    }));
    let next = wire
        .hear("the next key", |message| match message {
            AgentMessage::NextKey(next) => Some(*next),
            _ => None,
        })
        .await;
    assert!(!tunnel.wg_config.contains(&next.public_key.to_base64()));
    let ping = client.keep_pinging(&target, Duration::from_millis(100));
    while Utc::now() + TimeDelta::seconds(5) < next.at {
        ping.wait_answers(3).await;
    }
    let report = ping.stop().await;
    assert!(report.is_whole(), "{report:?}");
    let operations = |stage: &Stage| stage.agent.status().expect("answers").operations();
    let (before, counted) = (operations(&stage), stage.peer(key).expect("there"));

    let hello = wire
        .hear("a hello with the new key", |message| match message {
            AgentMessage::Hello(hello) if hello.public_key == next.public_key => {
                Some(hello.clone())
            }
            _ => None,
        })
        .await;
    assert!(Utc::now() >= next.at);
    assert_eq!(hello.next_key, None);
    stage.agent.wait_connected().await;

    // The client does what an app does on the news: the same configuration with the other key.
    let old = tunnel.wg_config.lines();
    let old = old
        .clone()
        .find_map(|line| line.strip_prefix("PublicKey = "));
    let config = tunnel
        .wg_config
        .replace(old.expect("a key"), &next.public_key.to_base64());
    client.configure(&config);
    assert!(
        client.pings(&target, Duration::from_secs(10)),
        "the new key"
    );
    assert_eq!(operations(&stage), before, "peers are left alone");
    let after = stage.peer(key).expect("there");
    assert_eq!(after.allowed_ips, counted.allowed_ips);
    assert!(after.received > counted.received && after.sent > counted.sent);
    stage.wait_counters_agree(1).await;
}
