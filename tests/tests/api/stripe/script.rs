//! A server in Stripe's place that answers what a test tells it to.

use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix_web::dev::ServerHandle;
use actix_web::http::StatusCode;
use actix_web::web::{self, Bytes};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Json(u16, Value, Vec<(&'static str, &'static str)>),
    Text(u16, String),
    /// Never.
    Hangs,
}

impl Answer {
    pub(crate) fn ok(value: Value) -> Self {
        Self::Json(200, value, Vec::new())
    }

    pub(crate) fn status(status: u16) -> Self {
        Self::Json(status, json!({}), Vec::new())
    }

    pub(crate) fn error(status: u16, kind: &str, code: &str) -> Self {
        let error = json!({ "error": { "type": kind, "code": code, "message": "No" } });
        Self::Json(status, error, Vec::new())
    }

    pub(crate) fn with(self, name: &'static str, value: &'static str) -> Self {
        match self {
            Self::Json(status, json, mut headers) => {
                headers.push((name, value));
                Self::Json(status, json, headers)
            }
            other => other,
        }
    }

    async fn respond(self) -> HttpResponse {
        let builder = |status| HttpResponse::build(StatusCode::from_u16(status).expect("a status"));
        match self {
            Self::Json(status, json, headers) => {
                let mut response = builder(status);
                for header in headers {
                    response.insert_header(header);
                }
                response.json(json)
            }
            Self::Text(status, text) => builder(status).body(text),
            Self::Hangs => pending().await,
        }
    }
}

/// One request that came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// Method, path and query.
    pub(crate) line: String,
    pub(crate) body: String,
    headers: HashMap<String, String>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> String {
        self.headers.get(name).cloned().unwrap_or_default()
    }
}

#[derive(Debug, Default)]
struct Script {
    next: VecDeque<Answer>,
    /// By method, path and query, before what is left.
    things: HashMap<String, Value>,
    otherwise: Option<Answer>,
    asked: Vec<Asked>,
    /// Requests wait here after their answers are made.
    gate: Option<Arc<Semaphore>>,
}

#[derive(Debug)]
pub(crate) struct Scripted {
    url: String,
    script: Arc<Mutex<Script>>,
    handle: ServerHandle,
}

impl Scripted {
    pub(crate) fn start() -> Self {
        let script = Arc::<Mutex<Script>>::default();
        let shared = web::Data::from(Arc::clone(&script));
        let server = HttpServer::new(move || {
            App::new()
                .app_data(shared.clone())
                .default_service(web::to(answer))
        })
        .workers(1)
        .disable_signals()
        .bind("127.0.0.1:0")
        .expect("a port");
        let url = format!("http://{}", server.addrs()[0]);
        let server = server.run();
        let handle = server.handle();
        tokio::spawn(server);
        Self {
            url,
            script,
            handle,
        }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        lock(&self.script)
    }

    /// The next request's answer.
    pub(crate) fn answer(&self, answer: Answer) {
        self.script().next.push_back(answer);
    }

    /// What a request is answered that nothing else is said of.
    pub(crate) fn otherwise(&self, answer: Answer) {
        self.script().otherwise = Some(answer);
    }

    /// What there is at a path.
    pub(crate) fn put(&self, path: &str, thing: Value) {
        self.script().things.insert(format!("GET {path}"), thing);
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.script().asked.clone()
    }

    /// From now on answers are made and kept, until as many as permits are added are let go.
    pub(crate) fn hold(&self) -> Arc<Semaphore> {
        let gate = Arc::new(Semaphore::new(0));
        self.script().gate = Some(Arc::clone(&gate));
        gate
    }

    /// Answers that are made from now on are not kept.
    pub(crate) fn release_new(&self) {
        self.script().gate = None;
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        // Whoever waits for an answer that never comes is cut off.
        drop(self.handle.stop(false));
    }
}

async fn answer(
    request: HttpRequest,
    body: Bytes,
    script: web::Data<Mutex<Script>>,
) -> HttpResponse {
    let (answer, gate) = {
        let mut script = lock(&script);
        let line = format!("{} {}", request.method(), request.uri());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let headers = request.headers().iter();
        script.asked.push(Asked {
            body: text(&body),
            headers: headers
                .map(|(name, value)| (name.to_string(), text(value.as_bytes())))
                .collect(),
            line: line.clone(),
        });
        let thing = script.things.get(&line).cloned().map(Answer::ok);
        let answer = script.next.pop_front().or(thing);
        let missing = || Answer::error(404, "invalid_request_error", "resource_missing");
        let answer = answer.or_else(|| script.otherwise.clone());
        (answer.unwrap_or_else(missing), script.gate.clone())
    };
    if let Some(gate) = gate {
        gate.acquire().await.expect("the gate stays").forget();
    }
    answer.respond().await
}

fn lock(script: &Mutex<Script>) -> MutexGuard<'_, Script> {
    script.lock().unwrap_or_else(PoisonError::into_inner)
}
