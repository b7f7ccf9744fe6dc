//! Whoever watches connections live and does not read what is told.

use futures_util::StreamExt;
use rstest::rstest;
use serde_json::json;
use tests::SimNode;
use tests::api::Client;
use tests::sim::SimConfig;
use tests::wait_until;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::{SLACK, Target, narrow, send, until_closed};
use crate::SOON;

const PEOPLE: usize = 5;
/// Of each, with some places left for those who read.
const VIEWERS: usize = 12;
/// Of one person, each of which is told of once a second.
const CONNECTIONS: usize = 60;
/// For what was not read yet.
const ROOM: u32 = 16 * 1024;

/// A plane with people who are connected.
async fn target(send_timeout: &'static str) -> (Target, SimNode, Vec<Client>) {
    let target = Target::start(false, &[("SEND_TIMEOUT", send_timeout)]).await;
    let token = target.plane.enrolment_token("fra");
    let config = SimConfig::named("fra");
    let node = SimNode::enrol(target.plane.url(), &token, config).await;
    let node = node.expect("the plane enrols it");
    let mut people = Vec::new();
    for number in 0..PEOPLE {
        let email = format!("person{number}@example.org");
        let person = target.plane.client().sign_up(&email).await;
        wait_until("somebody is connected", SOON, async || {
            person.connect(&json!({})).await.status == 200
        })
        .await;
        people.push(person);
    }
    (target, node, people)
}

impl Target {
    /// Waits until so many watch.
    async fn wait_viewers(&self, number: u64) {
        wait_until("so many watch", 3 * SOON, async || {
            let streams = self.metric("usage_event_streams").await;
            streams + self.metric("usage_metrics_sockets").await == number
        })
        .await;
    }
}

fn request(path: &str, person: &Client) -> String {
    let token = person.token();
    format!("GET {path}\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n")
}

fn events(_: &Client) -> String {
    "/api/v1/connection/events HTTP/1.1".to_owned()
}

fn socket(person: &Client) -> String {
    let user = person.user();
    format!(
        "/ws/connection/{user} HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    )
}

#[rstest]
#[case::of_events(events, "HTTP/1.1 200")]
#[case::of_a_socket(socket, "HTTP/1.1 101")]
#[tokio::test(flavor = "multi_thread")]
async fn whoever_watches_and_never_reads_is_dropped(
    #[case] path: fn(&Client) -> String,
    #[case] status: &str,
) {
    let (target, _node, people) = target("2s").await;
    let reader = &people[0];
    let mut socket = reader.metrics(reader.user(), reader.token()).await;
    let socket = socket.as_mut().expect("it opens");
    socket.next_of("metrics").await;
    let before = target.memory();

    let open = |number: usize| {
        let (target, person) = (&target, &people[number % PEOPLE]);
        let request = request(&path(person), person);
        async move {
            let mut stream = narrow(target, number, 1024).await;
            send(&mut stream, request).await;
            let mut head = vec![0; status.len()];
            wait_until("it opens", SOON, async || {
                stream.peek(&mut head).await.expect("an answer") == head.len()
            })
            .await;
            assert_eq!(String::from_utf8_lossy(&head), status);
            stream
        }
    };
    let all = (0..PEOPLE * VIEWERS).map(open);
    let all: Vec<TcpStream> = futures_util::future::join_all(all).await;
    target.wait_viewers(1).await;
    target.wait_open(3).await;
    let grown = target.memory().saturating_sub(before);
    assert!(grown < SLACK, "{grown} KiB");
    // Who reads was told all the time, and there is room for others.
    socket.next_of("metrics").await;
    for person in &people {
        let mut next = person.metrics(person.user(), person.token()).await;
        let next = next.as_mut().expect("there is room");
        next.next_of("metrics").await;
    }
    drop(all);
}

/// Somebody of so many connections that an unread stream is full within seconds, on a connection that has time.
async fn busy() -> (Target, SimNode, Client) {
    let (target, node, mut people) = target("60s").await;
    let many = format!("UPDATE plans SET max_connections = {CONNECTIONS}, quota_bytes = NULL");
    target.db.execute(&many).await;
    let person = people.swap_remove(0);
    for _ in 1..CONNECTIONS {
        let _ = person.connect(&json!({})).await.expect(200);
    }
    (target, node, person)
}

/// Reads nothing until the plane has given the reader up.
async fn given_up(target: &Target) {
    target.wait_viewers(1).await;
    target.wait_viewers(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_reads_a_socket_too_late_is_told_so() {
    let (target, _node, person) = busy().await;
    let url = format!("{}/ws/connection/{}", target.plane.url(), person.user());
    let request = url.replacen("http", "ws", 1).into_client_request();
    let mut request = request.expect("a request");
    let token = format!("Bearer {}", person.token());
    let token = token.parse().expect("a header");
    request.headers_mut().insert("authorization", token);
    let stream = narrow(&target, 1, ROOM).await;
    let opening = tokio_tungstenite::client_async(request, stream);
    let (mut socket, _) = opening.await.expect("it opens");
    given_up(&target).await;
    let code = loop {
        match socket.next().await {
            Some(Ok(Message::Close(close))) => break close.map(|close| u16::from(close.code)),
            Some(Ok(_)) => {}
            end => panic!("no farewell: {end:?}"),
        }
    };
    assert_eq!(code, Some(4408));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_reads_events_too_late_is_told_so() {
    let (target, _node, person) = busy().await;
    let mut stream = narrow(&target, 1, ROOM).await;
    let request =
        request(&events(&person), &person).replacen("\r\n", "\r\nConnection: close\r\n", 1);
    send(&mut stream, request).await;
    given_up(&target).await;
    let told = until_closed(&mut stream).await;
    let (_, last) = told.rsplit_once("event: ").expect("events");
    assert!(last.starts_with("ended\n"), "{last}");
    assert!(
        last.contains("\"too_slow\"") && last.contains("4408"),
        "{last}"
    );
}
