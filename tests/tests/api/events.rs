//! The metrics socket's twin of server-sent events.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::json;
use tests::TestApp;
use tests::events::Told;
use tests::wait::scaled;

use crate::SOON;

const EVENTS: &str = "/api/v1/connection/events";

/// Insists on the last event's reason.
fn assert_ended(last: Option<Told>, reason: &str, code: u16) {
    let last = last.expect("a last event");
    assert_eq!(last.event, "ended", "{last:?}");
    assert_eq!(last.data["reason"], reason, "{last:?}");
    assert_eq!(last.data["code"], code, "{last:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_tells_what_the_socket_tells() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let user = app.user().await;
    let tunnel = user.connected(&json!({})).await;
    let id = tunnel.connection_id.to_string();
    let mut socket = user
        .metrics(user.user(), user.token())
        .await
        .expect("opens");
    let mut stream = user.events(EVENTS).await.expect("opens");
    let begun = stream.next().await.expect("an event");
    assert_eq!(
        (&*begun.event, &begun.data["type"]),
        ("connected", &json!("connected"))
    );
    assert_eq!(begun.data["connection_id"], id);
    assert_eq!(stream.retry, Some(3000));

    node.add_traffic(tunnel.connection_id, 125_000, 1_250_000);
    node.report().await;
    let metrics = loop {
        let metrics = stream.next_of("metrics").await;
        if metrics["bytes_sent"] == 125_000 {
            break metrics;
        }
    };
    let same = loop {
        let same = socket.next_of("metrics").await;
        if same["bytes_sent"] == 125_000 {
            break same;
        }
    };
    let fields = |value: &serde_json::Value| -> Vec<String> {
        value
            .as_object()
            .expect("an object")
            .keys()
            .cloned()
            .collect()
    };
    assert_eq!(fields(&metrics), fields(&same));
    assert_eq!(metrics["data"]["bytes_received"], 1_250_000);
    assert!(stream.beats >= 1, "a sign of life");

    user.disconnected(tunnel.connection_id).await;
    let mut ids = Vec::new();
    loop {
        let told = stream.next().await.expect("an event");
        ids.push(told.id);
        if told.event == "disconnected" {
            assert_eq!(told.data["connection_id"], id);
            break;
        }
    }
    let (all, unlike) = (
        ids.len(),
        ids.iter().collect::<std::collections::HashSet<_>>().len(),
    );
    assert_eq!(all, unlike, "{ids:?}");
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_it_is() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let (ada, eve) = (app.user().await, app.user().await);
    let support = app.user_with_role("support").await;
    ada.connected(&json!({})).await;
    let of_ada = format!("{EVENTS}/{}", ada.user());
    assert_eq!(eve.events(&of_ada).await.err(), Some(StatusCode::FORBIDDEN));
    let mut own = ada.events(&of_ada).await.expect("opens");
    let mut watched = support.events(&of_ada).await.expect("opens");
    own.next_of("metrics").await;
    watched.next_of("metrics").await;
    let mut none = eve.events(EVENTS).await.expect("opens");
    let nothing = tokio::time::timeout(Duration::from_secs(2), none.next()).await;
    assert!(nothing.is_err(), "eve has no connection: {nothing:?}");
    let anonymous = app.client();
    assert_eq!(
        anonymous.events(EVENTS).await.err(),
        Some(StatusCode::UNAUTHORIZED)
    );
    let expired = app.expired_token(ada.user());
    let path = format!("{EVENTS}?token={expired}");
    assert_eq!(
        anonymous.events(&path).await.err(),
        Some(StatusCode::UNAUTHORIZED)
    );
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_ends_the_stream() {
    let app = TestApp::start().await;
    let user = app.user().await;
    let token = app.token_for(user.user(), Duration::from_secs(2)).await;
    let path = format!("{EVENTS}?token={token}");
    let mut stream = app.client().events(&path).await.expect("opens");
    let last = tokio::time::timeout(SOON, stream.last()).await;
    assert_ended(last.expect("it ends"), "unauthorized", 4401);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_ends_its_streams_on_every_replica() {
    let app = TestApp::replicas(2).await;
    app.wait_hearing(0, true).await;
    app.wait_hearing(1, true).await;
    let user = app.user().await;
    let there = user.at(app.url_of(1));
    let mut here = user.events(EVENTS).await.expect("opens");
    let mut far = there.events(EVENTS).await.expect("opens");
    let _ = user
        .post("/api/v1/auth/logout", &json!({}))
        .await
        .expect(204);
    let both = async { (here.last().await, far.last().await) };
    let (here, far) = tokio::time::timeout(scaled(Duration::from_secs(3)), both)
        .await
        .expect("they end");
    assert_ended(here, "unauthorized", 4401);
    assert_ended(far, "unauthorized", 4401);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_stops_says_so() {
    let mut app = TestApp::replicas(2).await;
    let user = app.user().await.at(app.url_of(1));
    let mut stream = user.events(EVENTS).await.expect("opens");
    let last = tokio::spawn(async move { stream.last().await });
    app.stop_replica(1).await;
    assert_ended(last.await.expect("it ends"), "service_stops", 1001);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_and_streams_of_one_person_are_counted_together() {
    let app = TestApp::start().await;
    let (user, other) = (app.user().await, app.user().await);
    let mut streams = Vec::new();
    for _ in 0..15 {
        streams.push(user.events(EVENTS).await.expect("opens"));
    }
    let socket = user
        .metrics(user.user(), user.token())
        .await
        .expect("opens");
    let refused = user.metrics(user.user(), user.token()).await;
    assert_eq!(refused.err(), Some(429));
    let refused = user.events(EVENTS).await;
    assert_eq!(refused.err(), Some(StatusCode::TOO_MANY_REQUESTS));
    let _others = other.events(EVENTS).await.expect("opens");
    drop(socket);
    tests::wait_until("there is room again", SOON, async || {
        user.events(EVENTS).await.is_ok()
    })
    .await;
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn head_is_answered_and_opens_nothing() {
    let app = TestApp::start().await;
    let user = app.user().await;
    for _ in 0..20 {
        let request = user.request(Method::HEAD, EVENTS);
        let reply = tokio::time::timeout(SOON, user.send(request)).await;
        let reply = reply.expect("it ends").expect(200);
        assert_eq!(reply.header("content-type"), Some("text/event-stream"));
    }
    user.events(EVENTS).await.expect("there is room");
    app.finish(&[]).await;
}
