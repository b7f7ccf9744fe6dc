//! A life cycle's events in any order, twice, and some never: what is kept in the end is always the same.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rstest::rstest;
use serde_json::{Value, json};

use super::*;

const PATIENCE: Duration = Duration::from_secs(120);
/// With twenty seeds, two hundred.
const ORDERS: u64 = 10;

/// Everything that can happen to somebody who pays, the plane hearing of it or not.
async fn live(shop: &Shop, random: &mut StdRng) -> (Client, String) {
    let (user, customer) = shop.customer().await;
    let first = shop.subscribe(&customer, &shop.monthly).await;
    let path = format!("/v1/subscriptions/{first}");
    for step in 0..7 {
        hear(shop, random).await;
        match step {
            0 => drop(
                shop.stripe
                    .post(&path, json!({ "cancel_at_period_end": true }))
                    .await,
            ),
            1 => drop(
                shop.stripe
                    .post(&path, json!({ "cancel_at_period_end": false }))
                    .await,
            ),
            2 => drop(shop.stripe.advance(&first).await),
            3 => {
                shop.stripe.decline(&customer, 1).await;
                shop.stripe.advance(&first).await;
            }
            4 => {
                let open = shop.stripe.get(&path).await["latest_invoice"].take();
                let pay = format!("/v1/invoices/{}/pay", open.as_str().expect("an invoice"));
                shop.stripe.post(&pay, json!({})).await;
            }
            5 => give_back(shop, None).await,
            // The plane may have done it already, because of what went back.
            _ => drop(
                shop.stripe
                    .try_call(Method::DELETE, &path, json!({}), None)
                    .await,
            ),
        }
    }
    shop.subscribe(&customer, &shop.yearly).await;
    give_back(shop, Some(1_234)).await;
    (user, customer)
}

/// Whether the plane is told of what comes next.
async fn hear(shop: &Shop, random: &mut StdRng) {
    if random.random_bool(0.5) {
        shop.stripe.hold_webhooks().await;
    } else {
        shop.stripe.tell_again().await;
    }
}

/// The latest payment, or a part of it.
async fn give_back(shop: &Shop, amount: Option<i64>) {
    let charges = shop.stripe.charges().await;
    let mut paid = charges.iter().filter(|it| it["paid"] == true);
    let latest = paid.next().expect("somebody paid");
    let given = json!({ "charge": latest["id"], "amount": amount });
    shop.stripe.post("/v1/refunds", given).await;
}

/// All that is kept of the person, without what names rows and when they were written.
async fn kept(shop: &Shop, user: &Client) -> Vec<String> {
    let user = user.user();
    let rows = format!(
        "SELECT concat_ws(' ', 'subscription', plan_id, status, start_date, end_date, cancel_at_period_end,
                          access_until, lapsed_at IS NULL)
           FROM subscriptions WHERE user_id = '{user}' AND stripe_hash IS NOT NULL
          UNION ALL
         SELECT concat_ws(' ', 'payment', minor, tax, currency, refunded, p.status, p.plan_id, period_start,
                          period_end, p.created_at, paid_at, s.plan_id)
           FROM payments p LEFT JOIN subscriptions s ON s.id = p.subscription_id WHERE p.user_id = '{user}'
          UNION ALL
         SELECT concat_ws(' ', 'refund', r.minor, r.currency, r.status, p.minor, p.created_at)
           FROM refunds r JOIN payments p ON p.id = r.payment_id WHERE p.user_id = '{user}'
          ORDER BY 1"
    );
    shop.app.db().texts(&rows).await
}

/// Many readings of one person at a time overtake each other, and some are put off.
async fn acted_on(shop: &Shop) {
    wait_until("all is acted on", PATIENCE, async || {
        let waiting = "SELECT count(*) FROM jobs WHERE status = 'waiting'";
        shop.app.db().number(waiting).await == 0
    })
    .await;
}

async fn forget(shop: &Shop, user: &Client) {
    let user = user.user();
    acted_on(shop).await;
    shop.app
        .db()
        .execute(&format!(
            "DELETE FROM payments WHERE user_id = '{user}';
             DELETE FROM subscriptions WHERE user_id = '{user}';
             INSERT INTO subscriptions (id, user_id, plan_id, plan_type)
             VALUES (gen_random_uuid(), '{user}', 'free', 'free');
             DELETE FROM stripe_events"
        ))
        .await;
}

/// Some of the events are lost, some come twice or three times.
fn order(events: &[Value], random: &mut StdRng) -> Vec<String> {
    let mut order = Vec::new();
    for event in events {
        let times = match random.random_range(0..10) {
            0..3 => 0,
            3..8 => 1,
            8 => 2,
            _ => 3,
        };
        order.extend(std::iter::repeat_n(id(event).to_owned(), times));
    }
    order.shuffle(random);
    order
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn every_order_ends_alike(
    #[values(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20)] seed: u64,
) {
    let shop = Shop::open().await;
    let mut random = StdRng::seed_from_u64(seed);
    let (user, _) = live(&shop, &mut random).await;
    shop.stripe.hold_webhooks().await;
    acted_on(&shop).await;
    assert!(shop.app.reconcile(false).await.is_clean());
    let expected = kept(&shop, &user).await;
    assert_eq!(expected.len(), 2 + 4 + 2, "{expected:#?}");
    let events = shop.stripe.events().await;
    for number in 0..ORDERS {
        forget(&shop, &user).await;
        let order = order(&events, &mut random);
        let ids: Vec<&str> = order.iter().map(String::as_str).collect();
        let statuses = shop.stripe.deliver(&ids).await;
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
        acted_on(&shop).await;
        assert!(shop.app.reconcile(false).await.is_clean());
        let found = kept(&shop, &user).await;
        assert_eq!(found, expected, "seed {seed}, order {number}: {order:?}");
    }
    let parked = "SELECT count(*) FROM stripe_events WHERE status = 'parked'";
    assert_eq!(shop.app.db().number(parked).await, 0);
    shop.finish().await;
}
