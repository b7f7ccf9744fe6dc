//! A client of the public API, and what it reads.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::StreamExt;
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shared::ids::{ConnectionId, ServerId, UserId};
use shared::wireguard::PublicKey;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// What every test user's password is.
pub const PASSWORD: &str = "correct horse battery staple";

/// One answer, read to its end.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Reply {
    /// The body as JSON; panics with the body when it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        self.read()
    }

    #[must_use]
    pub fn read<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {} {}", self.status, self.text()))
    }

    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Insists on the status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        self
    }

    /// Insists on an error envelope with this code, and gives its `details`' fields.
    #[track_caller]
    pub fn expect_error(&self, status: u16, code: &str) -> Vec<String> {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        let envelope: Envelope = self.read();
        assert_eq!(envelope.error.code, code, "{}", self.text());
        assert!(!envelope.error.message.is_empty(), "{}", self.text());
        assert_eq!(
            Some(envelope.error.request_id.as_str()),
            self.header("x-request-id"),
            "the envelope names the request"
        );
        let details = envelope.error.details.into_iter();
        details.map(|detail| detail.field).collect()
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    error: ErrorBody,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ErrorBody {
    code: String,
    message: String,
    details: Vec<Detail>,
    request_id: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Detail {
    field: String,
    #[expect(dead_code, reason = "the shape is checked, the wording is free")]
    message: String,
}

/// What connect answers.
#[derive(Debug, Clone, Deserialize)]
pub struct Tunnel {
    pub status: String,
    pub connection_id: ConnectionId,
    pub server: TunnelServer,
    pub server_endpoint: String,
    pub server_public_key: PublicKey,
    pub assigned_ip: Ipv4Addr,
    #[serde(default)]
    pub assigned_ipv6: Option<Ipv6Addr>,
    pub dns: Vec<String>,
    #[serde(default)]
    pub preshared_key: Option<String>,
    pub wg_config: String,
    pub started_at: DateTime<Utc>,
    #[serde(default)]
    pub expires_at: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct TunnelServer {
    pub id: ServerId,
    pub hostname: String,
    pub ip_address: String,
    pub location: String,
    pub endpoint: String,
}

/// What disconnect answers.
#[derive(Debug, Clone, Deserialize)]
pub struct Ended {
    pub connection_id: ConnectionId,
    pub status: String,
    pub started_at: DateTime<Utc>,
    pub ended_at: DateTime<Utc>,
    pub duration: i64,
    pub duration_seconds: i64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub total_bytes: u64,
    pub summary: Value,
}

/// The milliseconds of one part of a `Server-Timing` header.
#[must_use]
pub fn server_timing(header: &str, part: &str) -> Option<f64> {
    let mut parts = header.split(',').map(str::trim);
    let (_, duration) = parts.find_map(|item| {
        let (name, parameters) = item.split_once(';')?;
        (name == part).then_some((name, parameters))
    })?;
    let milliseconds = duration
        .split(';')
        .find_map(|item| item.trim().strip_prefix("dur="));
    milliseconds?.parse().ok()
}

/// The sum of a metric's series, by the beginning of their names.
pub async fn metric(url: &str, series: &str) -> u64 {
    let text = Client::new(url).get("/metrics").await.expect(200).text();
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(series)?;
        rest.split_whitespace().last()?.parse::<u64>().ok()
    });
    values.sum()
}

/// Somebody who talks to the plane: anonymous, or with an access token.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
    refresh_token: Option<String>,
    user: Option<UserId>,
}

impl Client {
    /// An anonymous client of the plane at `base`, such as `http://127.0.0.1:8000`.
    #[must_use]
    pub fn new(base: &str) -> Self {
        Self::build(base, None)
    }

    /// An anonymous client that trusts this PEM certificate and no other.
    #[must_use]
    pub fn trusting(base: &str, certificate: &str) -> Self {
        let root = reqwest::Certificate::from_pem(certificate.as_bytes());
        Self::build(base, Some(root.expect("a certificate")))
    }

    fn build(base: &str, root: Option<reqwest::Certificate>) -> Self {
        crate::init();
        let http = reqwest::Client::builder()
            .tcp_nodelay(true)
            // Shorter than the server's patience, or a request may meet its goodbye.
            .pool_idle_timeout(Duration::from_secs(1))
            .tls_certs_only(root)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("a client can be made");
        Self {
            http,
            base: base.to_owned(),
            token: None,
            refresh_token: None,
            user: None,
        }
    }

    /// Whether the plane says that it can work.
    pub async fn is_ready(&self) -> bool {
        let answer = self.request(Method::GET, "/health/ready").send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    /// The same client as this user.
    #[must_use]
    pub fn with_token(&self, user: UserId, token: &str) -> Self {
        Self {
            token: Some(token.to_owned()),
            refresh_token: None,
            user: Some(user),
            ..self.clone()
        }
    }

    /// The same person at another replica.
    #[must_use]
    pub fn at(&self, base: &str) -> Self {
        Self {
            base: base.to_owned(),
            ..self.clone()
        }
    }

    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Panics for an anonymous client.
    #[must_use]
    pub fn user(&self) -> UserId {
        self.user.expect("somebody is logged in")
    }

    /// Panics for an anonymous client.
    #[must_use]
    pub fn token(&self) -> &str {
        self.token.as_deref().expect("somebody is logged in")
    }

    /// Panics for a client that did not log in with a password.
    #[must_use]
    pub fn refresh_token(&self) -> &str {
        let token = self.refresh_token.as_deref();
        token.expect("somebody logged in with a password")
    }

    /// A request to a path below the base, with this client's token.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> Reply {
        let response = request.send().await.expect("the plane answers");
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await.expect("the answer ends").to_vec();
        Reply {
            status,
            headers,
            body,
        }
    }

    /// Does not read the body, which may have no end.
    pub async fn send_for_head(&self, request: reqwest::RequestBuilder) -> Reply {
        let response = request.send().await.expect("the plane answers");
        Reply {
            status: response.status(),
            headers: response.headers().clone(),
            body: Vec::new(),
        }
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    pub async fn register(&self, email: &str) -> Reply {
        let body = json!({ "email": email, "password": PASSWORD });
        self.post("/api/v1/auth/register", &body).await
    }

    pub async fn login(&self, email: &str, password: &str) -> Reply {
        let body = json!({ "email": email, "password": password });
        self.post("/api/v1/auth/login", &body).await
    }

    /// Registers and logs in a new person.
    pub async fn sign_up(&self, email: &str) -> Self {
        self.register(email).await.expect(201);
        self.log_in(email).await
    }

    /// Logs in a person whose password is [`PASSWORD`], in a session of its own.
    pub async fn log_in(&self, email: &str) -> Self {
        let answer = self.login(email, PASSWORD).await.expect(200).json();
        let user = answer.pointer("/user/id").and_then(Value::as_str);
        let user = user.expect("a user id").parse().expect("a UUID");
        self.with_token(user, "").renewed(&answer)
    }

    /// Presents this refresh token.
    pub async fn refresh_with(&self, refresh_token: &str) -> Reply {
        let body = json!({ "refresh_token": refresh_token });
        self.post("/api/v1/auth/refresh", &body).await
    }

    /// Goes on with the next tokens.
    pub async fn refresh(&self) -> Self {
        let answer = self.refresh_with(self.refresh_token()).await;
        self.renewed(&answer.expect(200).json())
    }

    fn renewed(&self, answer: &Value) -> Self {
        let text = |name| answer.get(name).and_then(Value::as_str).map(str::to_owned);
        Self {
            token: Some(text("access_token").expect("an access token")),
            refresh_token: Some(text("refresh_token").expect("a refresh token")),
            ..self.clone()
        }
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.send(self.request(Method::DELETE, path)).await
    }

    pub async fn connect(&self, body: &Value) -> Reply {
        self.post("/api/v1/vpn/connect", body).await
    }

    /// Connects and insists that it works.
    pub async fn connected(&self, body: &Value) -> Tunnel {
        self.connect(body).await.expect(200).read()
    }

    pub async fn disconnect(&self, connection: ConnectionId) -> Reply {
        let path = format!("/api/v1/vpn/disconnect/{connection}");
        self.post(&path, &json!({})).await
    }

    /// Disconnects and insists that it works.
    pub async fn disconnected(&self, connection: ConnectionId) -> Ended {
        self.disconnect(connection).await.expect(200).read()
    }

    pub async fn status(&self) -> Value {
        self.get("/api/v1/connection/status")
            .await
            .expect(200)
            .json()
    }

    /// Opens the metrics socket of a user; the answer's status when it is refused.
    pub async fn metrics(&self, user: UserId, token: &str) -> Result<Metrics, u16> {
        self.socket(user, &format!("token={token}")).await
    }

    /// The same with whatever query.
    pub async fn socket(&self, user: UserId, query: &str) -> Result<Metrics, u16> {
        let url = format!(
            "{}/ws/connection/{user}?{query}",
            self.base.replacen("http", "ws", 1)
        );
        match connect_async(url).await {
            Ok((socket, _)) => Ok(Metrics(socket)),
            Err(tokio_tungstenite::tungstenite::Error::Http(response)) => {
                Err(response.status().as_u16())
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// An open metrics socket.
#[derive(Debug)]
pub struct Metrics(WebSocketStream<MaybeTlsStream<TcpStream>>);

/// What came over a metrics socket.
#[derive(Debug)]
pub enum Event {
    Message(Value),
    /// With the close code.
    Closed(Option<u16>),
}

impl Metrics {
    pub async fn next(&mut self) -> Event {
        loop {
            match self.0.next().await {
                Some(Ok(Message::Text(text))) => {
                    return Event::Message(serde_json::from_str(&text).expect("JSON"));
                }
                Some(Ok(Message::Close(close))) => {
                    return Event::Closed(close.map(|close| close.code.into()));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Event::Closed(None),
            }
        }
    }

    /// The next message of this type; panics when the socket closes.
    pub async fn next_of(&mut self, kind: &str) -> Value {
        loop {
            match self.next().await {
                Event::Message(message) if message.get("type").is_some_and(|it| it == kind) => {
                    return message;
                }
                Event::Message(_) => {}
                Event::Closed(code) => panic!("closed with {code:?} before {kind}"),
            }
        }
    }
}
