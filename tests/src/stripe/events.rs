//! Webhooks: signed as Stripe signs, delivered in the order of the events, tried again when refused.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use super::desk::Desk;
use super::store::{now, shown};

/// Where webhooks go.
#[derive(Debug, Clone)]
pub struct Target {
    pub url: String,
    pub secret: String,
}

const TIMEOUT: Duration = Duration::from_secs(10);
/// Stripe waits hours; whoever tests an outage does not.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const TRIES: usize = 10;

/// The header `Stripe-Signature` over these bytes.
#[must_use]
pub fn signature(secret: &str, moment: i64, payload: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let mut context = hmac::Context::with_key(&key);
    context.update(format!("{moment}.").as_bytes());
    context.update(payload);
    format!("t={moment},v1={}", hex::encode(context.sign()))
}

/// The bytes of an event as they are sent.
#[must_use]
pub fn payload(event: &Value) -> Vec<u8> {
    serde_json::to_vec_pretty(&shown(event)).unwrap_or_default()
}

/// Delivers what is told, until the server ends.
pub(super) async fn deliver_all(
    desk: Arc<Mutex<Desk>>,
    target: Arc<Mutex<Option<Target>>>,
    mut told: UnboundedReceiver<String>,
    again: UnboundedSender<String>,
) {
    while let Some(id) = told.recv().await {
        let status = deliver(&desk, &target, &id).await;
        let Some(status) = status else { continue };
        if (200..300).contains(&status) {
            continue;
        }
        let tries = tries(&desk, &id).await;
        let again = again.clone();
        if tries < TRIES {
            let doublings = u32::try_from(tries).unwrap_or(u32::MAX).saturating_sub(1);
            tokio::spawn(async move {
                tokio::time::sleep(FIRST_PAUSE * 2_u32.pow(doublings)).await;
                // The worker ends only with the server.
                let _ = again.send(id);
            });
        }
    }
}

/// Sends one event now. The status is 0 when nobody answered; none when there is nothing to send
/// or nowhere to send it.
pub(super) async fn deliver(
    desk: &Mutex<Desk>,
    target: &Mutex<Option<Target>>,
    id: &str,
) -> Option<u16> {
    let (event, http) = {
        let desk = desk.lock().await;
        (desk.store.find(id)?.clone(), desk.behind.http.clone())
    };
    let target = target.lock().await.clone()?;
    let (body, moment) = (payload(&event), now());
    let request = http
        .post(&target.url)
        .timeout(TIMEOUT)
        .header("content-type", "application/json; charset=utf-8")
        .header("stripe-signature", signature(&target.secret, moment, &body))
        .body(body);
    let status = match request.send().await {
        Ok(response) => response.status().as_u16(),
        Err(_) => 0,
    };
    record(desk, id, status).await;
    Some(status)
}

async fn record(desk: &Mutex<Desk>, id: &str, status: u16) {
    let mut desk = desk.lock().await;
    if let Some(mut event) = desk.store.find(id).cloned() {
        if let Some(deliveries) = event["_deliveries"].as_array_mut() {
            deliveries.push(json!({"at": now(), "status": status}));
        }
        if (200..300).contains(&status) {
            event["pending_webhooks"] = 0.into();
        }
        desk.store.put(&event);
    }
}

async fn tries(desk: &Mutex<Desk>, id: &str) -> usize {
    let desk = desk.lock().await;
    let event = desk.store.find(id);
    event.map_or(0, |it| it["_deliveries"].as_array().map_or(0, Vec::len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_stripes() {
        // By `printf '1700000000.{}' | openssl dgst -sha256 -hmac whsec_test`.
        assert_eq!(
            signature("whsec_test", 1_700_000_000, b"{}"),
            "t=1700000000,v1=35495024f4ef3f94e5a93e22221544c4b75e9a42300cd965ab81cb85cd994e91"
        );
    }
}
