//! What opens a stream where no header can be sent.

use std::time::Duration;

use control_plane::secrets::TokenHash;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tests::TestApp;
use tests::api::{Client, Event};
use tests::redis::{TestRedis, shared_url};

use crate::SOON;

const TICKET: &str = "/api/v1/connection/ticket";
const EVENTS: &str = "/api/v1/connection/events";

async fn ticket_at(client: &Client, path: &str) -> String {
    let view = client.post(path, &json!({})).await.expect(201).json();
    assert_eq!(view["expires_in"], 30);
    assert!(view["expires_at"].is_string());
    view["ticket"].as_str().expect("a ticket").to_owned()
}

async fn ticket(client: &Client) -> String {
    ticket_at(client, TICKET).await
}

/// How the events answer to a ticket.
async fn status(client: &Client, path: &str, ticket: &str) -> u16 {
    match client.events(&format!("{path}?ticket={ticket}")).await {
        Ok(_) => 200,
        Err(status) => status.as_u16(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_opens_one_stream_or_one_socket_once() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let user = app.user().await;
    user.connected(&json!({})).await;
    let anonymous = app.client();

    let first = ticket(&user).await;
    let path = format!("{EVENTS}?ticket={first}");
    let mut stream = anonymous.events(&path).await.expect("opens");
    stream.next_of("metrics").await;
    let again = anonymous.events(&path).await;
    assert_eq!(again.err(), Some(StatusCode::UNAUTHORIZED));

    let second = ticket(&user).await;
    let query = format!("ticket={second}");
    let mut socket = anonymous.socket(user.user(), &query).await.expect("opens");
    socket.next_of("metrics").await;
    assert_eq!(anonymous.socket(user.user(), &query).await.err(), Some(401));
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_one_gets_in() {
    let app = TestApp::replicas(2).await;
    let user = app.user().await;
    let ticket = ticket(&user).await;
    let asks = (0..12).map(|number| {
        let (at, ticket) = (app.client().at(app.url_of(number % 2)), ticket.clone());
        async move { status(&at, EVENTS, &ticket).await }
    });
    let mut answers = futures_util::future::join_all(asks).await;
    answers.sort_unstable();
    assert_eq!((answers[0], answers[1]), (200, 401), "{answers:?}");
    assert_eq!(answers.iter().filter(|it| **it == 200).count(), 1);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_ticket_for_this_is_refused() {
    let app = TestApp::start().await;
    let (ada, eve) = (app.user().await, app.user().await);
    let anonymous = app.client();
    for forged in ["x", "", "q7RkEXz0m1nO5ghMQ1J4qT0o7hYV1cGmJk2s9yB3d8U"] {
        assert_eq!(status(&anonymous, EVENTS, forged).await, 401, "{forged}");
    }
    // Somebody else's connections: neither before nor after it was used up on them.
    let of_eve = ticket(&eve).await;
    let of_ada = format!("{EVENTS}/{}", ada.user());
    assert_eq!(status(&anonymous, &of_ada, &of_eve).await, 401);
    assert_eq!(status(&anonymous, EVENTS, &of_eve).await, 401);
    // A ticket gives no ticket, and nobody gets one for somebody else.
    let another = ticket(&eve).await;
    let path = format!("{TICKET}?ticket={another}");
    let asked = anonymous.post(&path, &json!({})).await;
    asked.expect_error(401, "UNAUTHORIZED");
    let foreign = format!("{TICKET}/{}", ada.user());
    let asked = eve.post(&foreign, &json!({})).await;
    asked.expect_error(403, "FORBIDDEN");
    let wrong = ada.post(&format!("{TICKET}/nobody"), &json!({})).await;
    assert_eq!(wrong.expect_error(400, "INVALID_INPUT"), ["user_id"]);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn support_watches_with_a_ticket_of_its_own() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let (ada, support) = (app.user().await, app.user_with_role("support").await);
    ada.connected(&json!({})).await;
    let ticket = ticket_at(&support, &format!("{TICKET}/{}", ada.user())).await;
    let path = format!("{EVENTS}?ticket={ticket}");
    let mut stream = app.client().events(&path).await.expect("opens");
    stream.next_of("metrics").await;
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_is_worth_no_more_than_its_token() {
    let app = TestApp::start().await;
    app.wait_hearing(0, true).await;
    let user = app.user().await;
    let anonymous = app.client();
    let late = ticket(&user).await;
    let _ = user
        .post("/api/v1/auth/logout", &json!({}))
        .await
        .expect(204);
    assert_eq!(status(&anonymous, EVENTS, &late).await, 401);

    let token = app.token_for(user.user(), Duration::from_secs(3)).await;
    let brief = anonymous.with_token(user.user(), &token);
    let ticket = ticket(&brief).await;
    let query = format!("ticket={ticket}");
    let mut socket = anonymous.socket(user.user(), &query).await.expect("opens");
    let closed = tokio::time::timeout(SOON, async {
        loop {
            if let Event::Closed(code) = socket.next().await {
                return code;
            }
        }
    });
    assert_eq!(closed.await, Ok(Some(4401)));
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_keeps_it_sealed_under_its_hash_for_half_a_minute() {
    let app = TestApp::start().await;
    let user = app.user().await;
    let ticket = ticket(&user).await;
    let key = format!("ticket:{}", hex::encode(TokenHash::of(&ticket).as_bytes()));
    let client = redis::Client::open(shared_url()).expect("a URL");
    let mut redis = client
        .get_multiplexed_async_connection()
        .await
        .expect("Redis answers");
    let (left, kept): (i64, Vec<u8>) = redis::pipe()
        .cmd("TTL")
        .arg(&key)
        .cmd("GET")
        .arg(&key)
        .query_async(&mut redis)
        .await
        .expect("Redis answers");
    assert!((1..=30).contains(&left), "{left}");
    let text = String::from_utf8_lossy(&kept).into_owned();
    assert!(!kept.is_empty() && !text.contains(&user.user().to_string()));
    assert!(!text.contains(&ticket) && !text.contains(user.token()));
    // As if its time had passed.
    let _: () = redis::cmd("DEL")
        .arg(&key)
        .query_async(&mut redis)
        .await
        .expect("Redis answers");
    assert_eq!(status(&app.client(), EVENTS, &ticket).await, 401);
    // What somebody else put there opens nothing.
    let forged = "forged";
    let key = format!("ticket:{}", hex::encode(TokenHash::of(forged).as_bytes()));
    let _: () = redis::cmd("SET")
        .arg(&key)
        .arg(json!({ "user": user.user() }).to_string())
        .arg("EX")
        .arg(30)
        .query_async(&mut redis)
        .await
        .expect("Redis answers");
    let reply = app.client().get(&format!("{EVENTS}?ticket={forged}")).await;
    reply.expect_error(401, "UNAUTHORIZED");
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_a_ticket_opens_a_stream_where_it_was_given() {
    let mut redis = TestRedis::start().await;
    let url = redis.url();
    let app = TestApp::with(|vars| {
        vars.insert("REDIS_URL".to_owned(), url.clone());
    })
    .await;
    let user = app.user().await;
    redis.kill();
    let ticket = ticket(&user).await;
    let anonymous = app.client();
    assert_eq!(status(&anonymous, EVENTS, &ticket).await, 200);
    let again = anonymous.get(&format!("{EVENTS}?ticket={ticket}")).await;
    let again: Value = again.expect(503).json();
    assert_eq!(again["error"]["code"], "SERVICE_UNAVAILABLE");
    app.finish(&[]).await;
}
