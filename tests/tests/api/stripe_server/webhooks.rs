//! Events as they are signed, recorded, held back and delivered again.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_web::web::{self, Bytes, Data};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use chrono::Utc;
use tests::stripe::signature;
use tests::{wait_for, wait_until};

use super::*;

const SECRET: &str = "whsec_of_this_test";
const DEADLINE: Duration = Duration::from_secs(20);

/// What arrived at an endpoint, which refuses the first so many.
#[derive(Debug, Default)]
struct Inbox {
    refusals: Mutex<u32>,
    arrived: Mutex<Vec<(String, Bytes)>>,
}

impl Inbox {
    fn kinds(&self) -> Vec<String> {
        let arrived = self.arrived.lock().unwrap();
        let kinds = arrived.iter().map(|(_, body)| {
            let event: Value = serde_json::from_slice(body).unwrap();
            event["type"].as_str().unwrap().to_owned()
        });
        kinds.collect()
    }
}

async fn take(inbox: Data<Arc<Inbox>>, request: HttpRequest, body: Bytes) -> HttpResponse {
    let mut refusals = inbox.refusals.lock().unwrap();
    if *refusals > 0 {
        *refusals -= 1;
        return HttpResponse::ServiceUnavailable().finish();
    }
    let signed = request.headers().get("stripe-signature").unwrap();
    let signed = signed.to_str().unwrap();
    inbox
        .arrived
        .lock()
        .unwrap()
        .push((signed.to_owned(), body));
    HttpResponse::Ok().finish()
}

fn endpoint(refusals: u32) -> (Arc<Inbox>, String) {
    let inbox = Arc::new(Inbox {
        refusals: Mutex::new(refusals),
        ..Inbox::default()
    });
    let data = Data::new(Arc::clone(&inbox));
    let server = HttpServer::new(move || {
        App::new()
            .app_data(data.clone())
            .default_service(web::to(take))
    });
    let server = server.workers(1).bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}/webhook", server.addrs()[0]);
    tokio::spawn(server.run());
    (inbox, url)
}

#[tokio::test]
async fn events_arrive_signed_in_order_and_are_listed() {
    let mut stripe = StripeServer::start().await;
    let (inbox, url) = endpoint(0);
    stripe.send_webhooks_to(&url, SECRET).await;
    let anna = customer(&stripe, "4242424242424242").await;
    let events = stripe.events().await;
    wait_until("all events arrive", DEADLINE, async || {
        inbox.kinds().len() == events.len()
    })
    .await;
    assert_eq!(inbox.kinds(), kinds(&events));
    assert_eq!(
        inbox.kinds(),
        [
            "customer.created",
            "payment_method.attached",
            "customer.updated"
        ]
    );
    for (header, body) in inbox.arrived.lock().unwrap().iter() {
        let moment = header.split(['=', ',']).nth(1).unwrap().parse().unwrap();
        assert_eq!(*header, signature(SECRET, moment, body));
        assert!((Utc::now().timestamp() - moment).abs() < 60);
    }
    let listed = stripe.get("/v1/events?type=customer.created").await;
    let only = &listed["data"][0];
    assert_eq!(only["data"]["object"]["id"], anna.as_str());
    let path = format!("/v1/events/{}", id(only));
    assert_eq!(stripe.get(&path).await["id"], only["id"]);
    let later = stripe.get("/v1/events?created[gt]=9999999999").await;
    assert_eq!(later["data"], json!([]));
}

#[tokio::test]
async fn what_is_refused_comes_again() {
    let mut stripe = StripeServer::start().await;
    let (inbox, url) = endpoint(2);
    stripe.send_webhooks_to(&url, SECRET).await;
    stripe.post("/v1/customers", json!({"name": "Anna"})).await;
    wait_until("the event arrives", DEADLINE, async || {
        inbox.kinds() == ["customer.created"]
    })
    .await;
    let statuses = wait_for("its tries are recorded", DEADLINE, async || {
        let tries = stripe.events().await[0]["deliveries"].clone();
        let tries = tries.as_array()?.clone();
        (tries.len() == 3).then_some(tries)
    })
    .await;
    let statuses: Vec<_> = statuses.iter().map(|it| it["status"].as_i64()).collect();
    assert_eq!(statuses, [Some(503), Some(503), Some(200)]);
}

#[tokio::test]
async fn held_events_are_delivered_in_any_order_and_twice() {
    let mut stripe = StripeServer::start().await;
    let (inbox, url) = endpoint(0);
    stripe.send_webhooks_to(&url, SECRET).await;
    stripe.hold_webhooks().await;
    customer(&stripe, "4242424242424242").await;
    let events = stripe.events().await;
    assert_eq!(inbox.kinds().len(), 0);
    let ids: Vec<&str> = events.iter().map(id).collect();
    let order = [ids[2], ids[0], ids[2], ids[1]];
    assert_eq!(stripe.deliver(&order).await, [200; 4]);
    assert_eq!(
        inbox.kinds(),
        [
            "customer.updated",
            "customer.created",
            "customer.updated",
            "payment_method.attached"
        ]
    );
}
