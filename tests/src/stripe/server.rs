//! The HTTP around the desk: keys, idempotency, faults that a test asked for.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web::{self, Bytes, Data};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use anyhow::Context;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::sync::mpsc::unbounded_channel;

use super::behind::Behind;
use super::desk::{API_VERSION, Answer, Desk};
use super::events::{Target, deliver_all};
use super::failure::Failure;
use super::store::{KeptAnswer, Store, new_id};
use super::{control, form, visitors};

#[derive(Debug, Clone)]
pub struct Settings {
    pub port: u16,
    /// Where localstripe listens.
    pub behind: String,
    /// Where objects are kept; in memory only without one.
    pub folder: Option<PathBuf>,
    pub webhooks: Option<Target>,
}

#[derive(Debug)]
pub(super) struct Server {
    pub(super) desk: Arc<Mutex<Desk>>,
    pub(super) target: Arc<Mutex<Option<Target>>>,
    /// What was asked of the API, for a test that counts: method, path, idempotency key.
    pub(super) calls: Mutex<Vec<Value>>,
}

/// Serves until the process is ended.
pub async fn serve(settings: Settings) -> anyhow::Result<()> {
    let (post, told) = unbounded_channel();
    let desk = Desk {
        store: Store::open(settings.folder.as_deref()).context("what was kept")?,
        behind: Behind::new(&settings.behind),
        base: format!("http://127.0.0.1:{}", settings.port),
        post: post.clone(),
        is_delivering: true,
        key: None,
        request: String::new(),
    };
    let server = Data::new(Server {
        desk: Arc::new(Mutex::new(desk)),
        target: Arc::new(Mutex::new(settings.webhooks)),
        calls: Mutex::default(),
    });
    let (desk, target) = (Arc::clone(&server.desk), Arc::clone(&server.target));
    tokio::spawn(deliver_all(desk, target, told, post));
    HttpServer::new(move || {
        App::new()
            .app_data(server.clone())
            .configure(control::routes)
            .configure(visitors::routes)
            .default_service(web::to(api))
    })
    .workers(1)
    // Whoever calls is a test on the same machine, which may be busy.
    .client_request_timeout(Duration::ZERO)
    .keep_alive(Duration::from_secs(75))
    .bind((Ipv4Addr::LOCALHOST, settings.port))?
    .run()
    .await?;
    Ok(())
}

async fn api(server: Data<Server>, request: HttpRequest, body: Bytes) -> HttpResponse {
    let header = |name: &str| {
        let value = request.headers().get(name)?;
        value.to_str().ok().map(str::to_owned)
    };
    let key = header("idempotency-key");
    if !has_secret_key(header("authorization").as_deref()) {
        return answer(Err(Failure::unauthorized()), "");
    }
    let call = json!({"method": request.method().as_str(), "path": request.path(),
        "idempotency_key": key});
    server.calls.lock().await.push(call);
    let encoded = if body.is_empty() {
        Bytes::copy_from_slice(request.query_string().as_bytes())
    } else {
        body
    };
    let mut desk = server.desk.lock().await;
    if !desk.store.wishes.refusals.is_empty() {
        let status = desk.store.wishes.refusals.remove(0);
        return answer(Err(Failure::internal(status, "Refused on demand.")), "");
    }
    desk.request = new_id("req");
    desk.key = key;
    let Ok(method) = Method::from_bytes(request.method().as_str().as_bytes()) else {
        return HttpResponse::MethodNotAllowed().finish();
    };
    let response = Box::pin(once(&mut desk, &method, request.path(), &encoded)).await;
    if let Err(error) = desk.store.keep() {
        return answer(Err(Failure::internal(500, &error.to_string())), "");
    }
    if desk.store.wishes.lost_answers > 0 {
        desk.store.wishes.lost_answers -= 1;
        return broken_off();
    }
    response
}

/// A key that was used gives the answer that it gave; a refusal of the parameters is not kept.
async fn once(desk: &mut Desk, method: &Method, path: &str, encoded: &[u8]) -> HttpResponse {
    let key = desk.key.clone().filter(|_| *method == Method::POST);
    let fingerprint = format!("{path}?{}", String::from_utf8_lossy(encoded));
    if let Some(kept) = key.as_ref().and_then(|key| desk.store.answers.get(key)) {
        if kept.fingerprint != fingerprint {
            return answer(Err(Failure::key_reused()), &desk.request);
        }
        let mut response = json(kept.status, &kept.body, &desk.request);
        response.headers_mut().insert(
            actix_web::http::header::HeaderName::from_static("idempotent-replayed"),
            actix_web::http::header::HeaderValue::from_static("true"),
        );
        return response;
    }
    let given = form::parse(encoded);
    let given = if given.is_object() { given } else { json!({}) };
    let outcome = match desk.operation(method, path, &given).await {
        Ok(object) => desk.present(&object, &given).await,
        Err(refused) => Err(refused),
    };
    let (status, body) = parts(&outcome);
    if let Some(key) = key
        && ![400, 401, 404].contains(&status)
    {
        let kept = KeptAnswer {
            fingerprint,
            status,
            body: body.clone(),
        };
        desk.store.answers.insert(key, kept);
    }
    json(status, &body, &desk.request)
}

fn has_secret_key(authorization: Option<&str>) -> bool {
    let Some((scheme, value)) = authorization.and_then(|it| it.split_once(' ')) else {
        return false;
    };
    match scheme {
        "Bearer" => value.starts_with("sk_"),
        "Basic" => BASE64_STANDARD
            .decode(value)
            .is_ok_and(|it| it.starts_with(b"sk_")),
        _ => false,
    }
}

fn parts(outcome: &Answer) -> (u16, Value) {
    match outcome {
        Ok(object) => (200, object.clone()),
        Err(refused) => (refused.status, refused.body()),
    }
}

pub(super) fn answer(outcome: Answer, request: &str) -> HttpResponse {
    let (status, body) = parts(&outcome);
    json(status, &body, request)
}

fn json(status: u16, body: &Value, request: &str) -> HttpResponse {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    HttpResponse::build(status)
        .insert_header(("request-id", request.to_owned()))
        .insert_header(("stripe-version", API_VERSION))
        .json(body)
}

/// What was asked is done, and whoever asked never hears of it.
fn broken_off() -> HttpResponse {
    let lost = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    let body = futures_util::stream::once(async { Err::<Bytes, _>(lost) });
    HttpResponse::Ok()
        .content_type("application/json")
        .streaming(body)
}
