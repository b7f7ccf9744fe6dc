//! The live metrics socket.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::TestApp;
use tests::api::{Client, Event, Metrics};
use tests::redis::TestRedis;
use tests::wait::scaled;

use crate::SOON;

async fn open(user: &Client) -> Metrics {
    user.metrics(user.user(), user.token())
        .await
        .expect("the socket opens")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_a_second_with_the_nodes_counters() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let user = app.user().await;
    let tunnel = user.connected(&json!({})).await;
    let mut socket = open(&user).await;
    socket.next_of("connected").await;

    node.add_traffic(tunnel.connection_id, 125_000, 1_250_000);
    node.report().await;
    let began = Instant::now();
    let mut messages = Vec::new();
    while messages.len() < 4 {
        messages.push(socket.next_of("metrics").await);
    }
    let took = began.elapsed();
    assert!(
        (Duration::from_millis(2000)..Duration::from_secs(8)).contains(&took),
        "four messages in {took:?}"
    );
    for message in &messages {
        assert_eq!(message["connection_id"], tunnel.connection_id.to_string());
        for number in [
            "upload_speed_mbps",
            "download_speed_mbps",
            "ping_ms",
            "server_load_pct",
        ] {
            let value = &message[number];
            assert!(
                value.is_number() || number == "ping_ms" && value.is_null(),
                "{number} in {message}"
            );
        }
        assert!(message["timestamp"].is_string());
        assert_eq!(message["data"]["bytes_sent"], message["bytes_sent"]);
        assert_eq!(message["data"]["bytes_received"], message["bytes_received"]);
        assert!(message["data"]["current_speed"].is_string());
        assert!(message["data"].get("latency").is_some());
    }
    let last = messages.last().expect("four");
    assert_eq!(
        (&last["bytes_sent"], &last["bytes_received"]),
        (&125_000.into(), &1_250_000.into())
    );

    user.disconnected(tunnel.connection_id).await;
    let event = socket.next_of("disconnected").await;
    assert_eq!(event["connection_id"], tunnel.connection_id.to_string());
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_made_later_shows() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let user = app.user().await;
    let mut socket = open(&user).await;
    let tunnel = user.connected(&json!({})).await;
    let event = socket.next_of("connected").await;
    assert_eq!(event["connection_id"], tunnel.connection_id.to_string());
    let metrics = socket.next_of("metrics").await;
    assert_eq!(metrics["connection_id"], tunnel.connection_id.to_string());
    app.finish(&[&node]).await;
}

/// Refused at the door, or let in and closed with this code.
async fn assert_refused(user: &Client, of: &Client, token: &str, status: &[u16], code: u16) {
    match user.metrics(of.user(), token).await {
        Err(refused) => assert!(status.contains(&refused), "{refused}"),
        Ok(mut socket) => match socket.next().await {
            Event::Closed(closed) => assert_eq!(closed, Some(code)),
            Event::Message(message) => panic!("let in: {message}"),
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_person_themself() {
    let app = TestApp::start().await;
    let (ada, eve) = (app.user().await, app.user().await);
    assert_refused(&eve, &ada, eve.token(), &[403], 4403).await;
    assert_refused(&eve, &ada, "garbage", &[401], 4401).await;
    assert_refused(&eve, &ada, "", &[401], 4401).await;
    let expired = app.expired_token(ada.user());
    assert_refused(&ada, &ada, &expired, &[401], 4401).await;
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn support_may_look() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let (ada, support) = (app.user().await, app.user_with_role("support").await);
    ada.connected(&json!({})).await;
    let mut socket = support
        .metrics(ada.user(), support.token())
        .await
        .expect("opens");
    socket.next_of("metrics").await;
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_closes_the_socket() {
    let app = TestApp::start().await;
    let user = app.user().await;
    let token = app.token_for(user.user(), Duration::from_secs(2)).await;
    let mut socket = user.metrics(user.user(), &token).await.expect("opens");
    loop {
        if let Event::Closed(code) = socket.next().await {
            assert_eq!(code, Some(4401));
            break;
        }
    }
    app.finish(&[]).await;
}

/// Waits for the close and its code.
async fn closed(socket: &mut Metrics) -> Option<u16> {
    loop {
        if let Event::Closed(code) = socket.next().await {
            return code;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_closes_its_socket_on_every_replica() {
    let app = TestApp::replicas(2).await;
    app.wait_hearing(0, true).await;
    app.wait_hearing(1, true).await;
    let user = app.user().await;
    let there = user.at(app.url_of(1));
    let (mut here, mut far) = (open(&user).await, open(&there).await);
    user.post("/api/v1/auth/logout", &json!({}))
        .await
        .expect(204);
    // A tick is a second; twice that leaves room for a busy machine.
    let both = async { (closed(&mut here).await, closed(&mut far).await) };
    let codes = tokio::time::timeout(scaled(Duration::from_secs(2)), both).await;
    assert_eq!(codes, Ok((Some(4401), Some(4401))));
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_a_session_that_ends_closes_its_socket_too() {
    let mut redis = TestRedis::start().await;
    let url = redis.url();
    let app = TestApp::with(|vars| {
        vars.insert("REDIS_URL".to_owned(), url.clone());
    })
    .await;
    let user = app.user().await;
    let mut socket = open(&user).await;
    redis.kill();
    let end = "UPDATE sessions SET revoked_at = now(), revoke_reason = 'ended'";
    app.db().execute(end).await;
    let code = tokio::time::timeout(SOON, closed(&mut socket)).await;
    assert_eq!(code, Ok(Some(4401)));
    app.finish(&[]).await;
}
