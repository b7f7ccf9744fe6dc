//! What a test may do that nobody may at Stripe: let time pass, make a bank decline, lose answers.

use std::collections::BTreeMap;

use actix_web::HttpResponse;
use actix_web::web::{self, Data, Json, Path, ServiceConfig};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::events::{Target, deliver};
use super::server::{Server, answer};
use super::store::new_id;

pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .route("/_control/ready", web::get().to(ready))
        .route("/_control/webhooks", web::put().to(set_webhooks))
        .route("/_control/wishes", web::post().to(wish))
        .route(
            "/_control/subscriptions/{id}/advance",
            web::post().to(advance),
        )
        .route(
            "/_control/subscriptions/{id}/give-up",
            web::post().to(give_up),
        )
        .route("/_control/deliveries", web::post().to(deliver_again))
        .route("/_control/events", web::get().to(events))
        .route("/_control/ledger", web::get().to(ledger))
        .route("/_control/calls", web::get().to(calls));
}

/// Ready when localstripe is.
async fn ready(server: Data<Server>) -> HttpResponse {
    let desk = server.desk.lock().await;
    answer(desk.behind.get("/v1/products").await, "")
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Webhooks {
    /// Where they go from now on; where they went before, when it is left out.
    pub(super) target: Option<(String, String)>,
    /// Whether they go by themselves. What happens meanwhile is only recorded.
    pub(super) is_delivering: bool,
}

async fn set_webhooks(server: Data<Server>, wanted: Json<Webhooks>) -> HttpResponse {
    let Json(wanted) = wanted;
    if let Some((url, secret)) = wanted.target {
        *server.target.lock().await = Some(Target { url, secret });
    }
    server.desk.lock().await.is_delivering = wanted.is_delivering;
    HttpResponse::NoContent().finish()
}

/// What shall happen next; what is left out stays as it was.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Wish {
    pub declines: BTreeMap<String, u32>,
    pub authentications: BTreeMap<String, u32>,
    pub refusals: Vec<u16>,
    pub lost_answers: u32,
    pub tax_basis_points: Option<i64>,
}

async fn wish(server: Data<Server>, wanted: Json<Wish>) -> HttpResponse {
    let Json(wanted) = wanted;
    let mut desk = server.desk.lock().await;
    let wishes = &mut desk.store.wishes;
    wishes.declines.extend(wanted.declines);
    wishes.authentications.extend(wanted.authentications);
    wishes.refusals.extend(wanted.refusals);
    wishes.lost_answers += wanted.lost_answers;
    if let Some(points) = wanted.tax_basis_points {
        wishes.tax_basis_points = points;
    }
    HttpResponse::NoContent().finish()
}

async fn advance(server: Data<Server>, id: Path<String>) -> HttpResponse {
    let mut desk = server.desk.lock().await;
    (desk.key, desk.request) = (None, new_id("req"));
    let outcome = Box::pin(desk.advance(&id)).await;
    match desk.store.keep() {
        Ok(()) => answer(outcome, ""),
        Err(_) => HttpResponse::InternalServerError().finish(),
    }
}

async fn give_up(server: Data<Server>, id: Path<String>, status: Json<String>) -> HttpResponse {
    let mut desk = server.desk.lock().await;
    (desk.key, desk.request) = (None, new_id("req"));
    let outcome = desk.give_up(&id, &status);
    match desk.store.keep() {
        Ok(()) => answer(outcome, ""),
        Err(_) => HttpResponse::InternalServerError().finish(),
    }
}

/// Sends these events in this order, each after the answer to the one before. The answer has the
/// statuses, 0 where nobody answered.
async fn deliver_again(server: Data<Server>, ids: Json<Vec<String>>) -> HttpResponse {
    let mut statuses = Vec::new();
    for id in ids.iter() {
        statuses.push(deliver(&server.desk, &server.target, id).await);
    }
    HttpResponse::Ok().json(statuses)
}

/// All events, the oldest first, with the tries to deliver them.
async fn events(server: Data<Server>) -> HttpResponse {
    let desk = server.desk.lock().await;
    let mut events = desk.store.all("event");
    events.reverse();
    for event in &mut events {
        event["deliveries"] = event["_deliveries"].take();
    }
    HttpResponse::Ok().json(events)
}

/// All charges and refunds, with the idempotency key of the request that made each.
async fn ledger(server: Data<Server>) -> HttpResponse {
    let desk = server.desk.lock().await;
    let with_key = |entries: Vec<Value>| -> Vec<Value> {
        let keyed = entries.into_iter().map(|mut entry| {
            entry["idempotency_key"] = entry["_idempotency_key"].take();
            entry
        });
        keyed.collect()
    };
    match (desk.entries("charge").await, desk.entries("refund").await) {
        (Ok(charges), Ok(refunds)) => HttpResponse::Ok()
            .json(json!({"charges": with_key(charges), "refunds": with_key(refunds)})),
        (Err(refused), _) | (_, Err(refused)) => answer(Err(refused), ""),
    }
}

async fn calls(server: Data<Server>) -> HttpResponse {
    HttpResponse::Ok().json(&*server.calls.lock().await)
}
