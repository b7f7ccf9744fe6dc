//! The two processes as a test holds them.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reqwest::{Method, Response, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

use super::control::{Webhooks, Wish};
use super::form;
use crate::lab::binary;
use crate::redis::free_port;
use crate::wait_until;

/// A card that pays.
pub const CARD: &str = "4242424242424242";

const DEADLINE: Duration = Duration::from_secs(30);

/// Stripe as two processes of this test alone, killed with this value.
#[derive(Debug)]
pub struct StripeServer {
    behind: Child,
    server: Child,
    port: u16,
    behind_port: u16,
    folder: tempfile::TempDir,
    target: Option<(String, String)>,
    http: reqwest::Client,
}

impl StripeServer {
    /// Without webhooks: they are recorded only, until [`Self::send_webhooks_to`].
    pub async fn start() -> Self {
        Self::begin(true).await
    }

    /// The same without anything on disk, for whoever asks it for much: it cannot [`Self::resume`].
    pub async fn in_memory() -> Self {
        Self::begin(false).await
    }

    async fn begin(is_kept: bool) -> Self {
        crate::init();
        let folder = tempfile::tempdir().expect("a folder can be made");
        let (behind_port, port) = (free_port(), free_port());
        let no_redirects = reqwest::redirect::Policy::none();
        let http = reqwest::Client::builder()
            .redirect(no_redirects)
            // Shorter than the server's patience, or a request may meet its goodbye.
            .pool_idle_timeout(Duration::from_secs(1))
            .build();
        let stripe = Self {
            behind: start_behind(behind_port, folder.path()),
            server: start_server(port, behind_port, is_kept.then(|| folder.path()), None),
            port,
            behind_port,
            folder,
            target: None,
            http: http.expect("a client can be made"),
        };
        stripe.wait_until_ready().await;
        stripe
    }

    async fn wait_until_ready(&self) {
        let ready = format!("{}/_control/ready", self.base());
        wait_until("the Stripe server answers", DEADLINE, async || {
            let answer = self.http.get(&ready).send().await;
            answer.is_ok_and(|it| it.status().is_success())
        })
        .await;
    }

    /// What `STRIPE_API_BASE` is to be.
    #[must_use]
    pub fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Stripe is down until [`Self::resume`].
    pub fn stop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }

    /// Up again at the same address, with all that it knew.
    pub async fn resume(&mut self) {
        let target = self.target.as_ref();
        self.server = start_server(
            self.port,
            self.behind_port,
            Some(self.folder.path()),
            target,
        );
        self.wait_until_ready().await;
    }

    /// A request as Stripe's clients make it; panics when it is refused.
    pub async fn call(&self, method: Method, path: &str, parameters: Value) -> Value {
        let (status, body) = self.try_call(method, path, parameters, None).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    pub async fn post(&self, path: &str, parameters: Value) -> Value {
        self.call(Method::POST, path, parameters).await
    }

    /// The path may carry a query.
    pub async fn get(&self, path: &str) -> Value {
        self.call(Method::GET, path, Value::Null).await
    }

    pub async fn try_call(
        &self,
        method: Method,
        path: &str,
        parameters: Value,
        key: Option<&str>,
    ) -> (StatusCode, Value) {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.base()))
            .bearer_auth("sk_test_harness")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form::encode(&parameters));
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let response = request.send().await.expect("the Stripe server answers");
        let status = response.status();
        (status, response.json().await.expect("JSON"))
    }

    /// Sends a form of one of the pages, such as that of a checkout session's `url`.
    pub async fn submit(&self, url: &str, fields: Value) -> Response {
        let request = self
            .http
            .post(url)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form::encode(&fields));
        request.send().await.expect("the page answers")
    }

    pub async fn open(&self, url: &str) -> Response {
        let answer = self.http.get(url).send().await;
        answer.expect("the page answers")
    }

    /// Pays a checkout session's page with this card, as a person would, 3-D Secure included.
    /// Gives the address to which the person is sent at the end, or what the page says instead.
    pub async fn pay(&self, url: &str, number: &str) -> Result<String, String> {
        let card = json!({"number": number, "exp_month": "12", "exp_year": "2034", "cvc": "123"});
        let mut response = self.submit(url, card).await;
        loop {
            if response.status() != StatusCode::SEE_OTHER {
                return Err(response.text().await.expect("a page"));
            }
            let location = response.headers()["location"].to_str().expect("a URL");
            let location = location.to_owned();
            if !location.starts_with(&self.base()) {
                return Ok(location);
            }
            response = if location.contains("/authenticate/") {
                self.submit(&location, json!({"confirmed": "true"})).await
            } else {
                self.open(&location).await
            };
        }
    }

    /// What the person's bank says about an intent that asks for 3-D Secure.
    pub async fn authenticate(&self, intent: &str, is_confirmed: bool) {
        let page = format!("{}/_pay/authenticate/{intent}", self.base());
        let answer = json!({"confirmed": is_confirmed.to_string()});
        self.submit(&page, answer).await;
    }

    /// A month passes for this subscription, or whatever its period is: Stripe renews it, or ends
    /// it. The answer is the subscription.
    pub async fn advance(&self, subscription: &str) -> Value {
        let path = format!("/_control/subscriptions/{subscription}/advance");
        self.control(Method::POST, &path, &()).await
    }

    /// Stripe tried to collect for the last time: `canceled` or `unpaid`.
    pub async fn give_up(&self, subscription: &str, status: &str) -> Value {
        let path = format!("/_control/subscriptions/{subscription}/give-up");
        self.control(Method::POST, &path, &status).await
    }

    pub async fn wish(&self, wish: Wish) {
        self.control(Method::POST, "/_control/wishes", &wish).await;
    }

    /// The bank declines this many of the customer's next charges.
    pub async fn decline(&self, customer: &str, times: u32) {
        let declines = [(customer.to_owned(), times)].into();
        self.wish(Wish {
            declines,
            ..Wish::default()
        })
        .await;
    }

    /// This many of the customer's next payments need 3-D Secure, whatever the card.
    pub async fn require_authentication(&self, customer: &str, times: u32) {
        let authentications = [(customer.to_owned(), times)].into();
        self.wish(Wish {
            authentications,
            ..Wish::default()
        })
        .await;
    }

    /// From now on events go there, signed with this secret.
    pub async fn send_webhooks_to(&mut self, url: &str, secret: &str) {
        self.target = Some((url.to_owned(), secret.to_owned()));
        self.set_webhooks(true).await;
    }

    /// Events are recorded and go nowhere.
    pub async fn hold_webhooks(&self) {
        self.set_webhooks(false).await;
    }

    /// Events go by themselves again, where they went before.
    pub async fn tell_again(&self) {
        self.set_webhooks(true).await;
    }

    async fn set_webhooks(&self, is_delivering: bool) {
        let wanted = Webhooks {
            target: self.target.clone(),
            is_delivering,
        };
        self.control(Method::PUT, "/_control/webhooks", &wanted)
            .await;
    }

    /// Every event so far, the oldest first; `deliveries` has a status for each try.
    pub async fn events(&self) -> Vec<Value> {
        let events = self.control(Method::GET, "/_control/events", &()).await;
        events.as_array().expect("a list").clone()
    }

    /// Sends events once more, in this order, held or not. Gives the status of each, 0 where nobody
    /// answered.
    pub async fn deliver(&self, ids: &[&str]) -> Vec<u16> {
        let statuses = self
            .control(Method::POST, "/_control/deliveries", &ids)
            .await;
        serde_json::from_value(statuses).expect("a status an event")
    }

    /// Every charge that was made, declined ones among them: see `paid`, `idempotency_key`.
    pub async fn charges(&self) -> Vec<Value> {
        self.ledger("charges").await
    }

    pub async fn refunds(&self) -> Vec<Value> {
        self.ledger("refunds").await
    }

    async fn ledger(&self, what: &str) -> Vec<Value> {
        let ledger = self.control(Method::GET, "/_control/ledger", &()).await;
        ledger[what].as_array().expect("a list").clone()
    }

    /// Every request to the API so far: `method`, `path`, `idempotency_key`.
    pub async fn calls(&self) -> Vec<Value> {
        let calls = self.control(Method::GET, "/_control/calls", &()).await;
        calls.as_array().expect("a list").clone()
    }

    async fn control(&self, method: Method, path: &str, body: &(impl Serialize + Sync)) -> Value {
        let url = format!("{}{path}", self.base());
        let response = self.http.request(method, url).json(body).send().await;
        let response = response.expect("the Stripe server answers");
        let status = response.status();
        let body = response.text().await.expect("a body");
        assert!(status.is_success(), "{path}: {status} {body}");
        serde_json::from_str(&body).unwrap_or_default()
    }
}

impl Drop for StripeServer {
    fn drop(&mut self) {
        for process in [&mut self.server, &mut self.behind] {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn start_behind(port: u16, folder: &Path) -> Child {
    let python = std::env::var("TEST_LOCALSTRIPE").expect(
        "TEST_LOCALSTRIPE must name a Python that has localstripe, such as the one that \
         `scripts/setup test` makes in target/py",
    );
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/lib/stripe_books.py");
    let mut command = Command::new(python);
    command.arg(script).arg(port.to_string()).arg(folder);
    let process = command.stdin(Stdio::null()).spawn();
    process.expect("Python runs")
}

fn start_server(
    port: u16,
    behind: u16,
    folder: Option<&Path>,
    target: Option<&(String, String)>,
) -> Child {
    let mut command = Command::new(binary("STRIPE_SERVER_BIN", "stripe-server"));
    command
        .args(["--port", &port.to_string()])
        .args(["--localstripe", &format!("http://127.0.0.1:{behind}")])
        .stdin(Stdio::null());
    if let Some(folder) = folder {
        command.arg("--folder").arg(folder);
    }
    if let Some((url, secret)) = target {
        command
            .args(["--webhook-url", url])
            .env("STRIPE_WEBHOOK_SECRET", secret);
    }
    command.spawn().expect("the Stripe server runs")
}
