//! The plane is killed while people buy, at any moment: whoever tries again has the plan, and paid once.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tests::lab::{Plane, PlaneSettings};
use tests::wait_until;

use super::*;

/// Each has people who buy side by side, and one kill.
const ROUNDS: u64 = 10;
const PEOPLE: usize = 10;
/// Within which the kill comes: a purchase takes as long.
const LONGEST: u64 = 1_500;
/// Who is refused because Stripe seems to be away waits for its next probe.
const PATIENCE: Duration = Duration::from_secs(120);

/// What came of a request: its status and body, or nothing.
async fn ask(person: &Client, path: &str, body: &Value) -> Option<(u16, Value)> {
    let request = person.request(Method::POST, &format!("/api/v1/{path}"));
    let response = request.json(body).send().await.ok()?;
    let status = response.status().as_u16();
    Some((status, response.json().await.ok()?))
}

/// The ways in which a plan is bought.
#[derive(Debug, Clone, Copy)]
enum Way {
    Page,
    App,
    SavedCard,
}

impl Way {
    const ALL: [Self; 3] = [Self::Page, Self::App, Self::SavedCard];
}

/// One try from the beginning, as a client makes it that remembers nothing. True once the plan is had.
async fn attempt(shop: &Shop, person: &Client, way: Way, card: &str) -> Option<bool> {
    let plan = json!({"plan_type": "monthly"});
    let (status, answer) = match way {
        Way::Page => {
            let body = json!({"plan_type": "monthly", "success_url": PAID, "cancel_url": BACK});
            let (status, answer) = ask(person, "payments/create", &body).await?;
            if status == 200 {
                // Who paid already is told so, and comes back.
                let _ = shop.stripe.pay(&text(&answer["checkout_url"]), GOOD).await;
                return Some(false);
            }
            (status, answer)
        }
        Way::App => {
            let (status, begun) = ask(person, "payments/create-intent", &plan).await?;
            if status == 200 {
                let body = json!({"payment_intent_id": begun["payment_intent_id"], "payment_method": card});
                ask(person, "payments/confirm", &body).await?
            } else {
                (status, begun)
            }
        }
        Way::SavedCard => {
            let body = json!({"plan_type": "monthly", "payment_method": card});
            ask(person, "subscriptions/subscribe", &body).await?
        }
    };
    match status {
        200 => Some(answer["status"] == "succeeded"),
        409 => Some(answer["error"]["code"] == "ALREADY_SUBSCRIBED"),
        503 => Some(false),
        _ => panic!("{way:?} {status} {answer}"),
    }
}

async fn buy(shop: &Shop, person: &Client, way: Way) {
    let card = shop.card(GOOD).await;
    wait_until("the plan is bought", PATIENCE, async || {
        attempt(shop, person, way, &card).await == Some(true)
    })
    .await;
}

/// The same shop with its plane in a process of its own.
async fn plane(shop: &mut Shop, folder: &std::path::Path) -> Plane {
    let variables: BTreeMap<_, _> = shop.app.variables().clone();
    let own = [
        "STRIPE_SECRET_KEY",
        "STRIPE_WEBHOOK_SECRET",
        "STRIPE_API_BASE",
        "STRIPE_TIMEOUT",
    ];
    let prices = ["STRIPE_MONTHLY_PRICE_ID", "STRIPE_YEARLY_PRICE_ID"];
    let more = own.into_iter().chain(prices);
    let settings = PlaneSettings {
        address: Ipv4Addr::LOCALHOST,
        database_url: shop.app.db().url().to_owned(),
        tls: false,
        more: more.map(|name| (name, variables[name].clone())).collect(),
    };
    shop.app.stop_replica(0).await;
    Plane::start(folder, &settings).await
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_buys_while_the_plane_is_killed_pays_once_and_has_the_plan() {
    let mut shop = Shop::open().await;
    let mut people = Vec::new();
    for _ in 0..ROUNDS {
        people.push(join_all((0..PEOPLE).map(|_| shop.person())).await);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut plane = plane(&mut shop, folder.path()).await;
    for (round, people) in (0..ROUNDS).zip(people) {
        let mut random = StdRng::seed_from_u64(round);
        let moment = Duration::from_millis(random.random_range(0..LONGEST));
        let people: Vec<_> = people.iter().map(|it| it.at(plane.url())).collect();
        let buying = people.iter().zip(Way::ALL.into_iter().cycle());
        let buying = join_all(buying.map(|(person, way)| buy(&shop, person, way)));
        let killing = async {
            tokio::time::sleep(moment).await;
            plane.kill();
            plane.restart().await
        };
        let (_, restarted) = tokio::join!(buying, killing);
        plane = restarted;
        for person in &people {
            assert_eq!(has(person).await, MONTHLY, "round {round}");
        }
    }
    let mut paid: BTreeMap<String, usize> = BTreeMap::new();
    for charge in shop.stripe.charges().await {
        *paid.entry(text(&charge["customer"])).or_default() += 1;
    }
    let count = usize::try_from(ROUNDS).expect("few") * PEOPLE;
    assert_eq!(paid.len(), count, "everybody paid");
    assert!(paid.values().all(|times| *times == 1), "once: {paid:?}");
    let active = "/v1/subscriptions?status=active&limit=100";
    let active = shop.stripe.get(active).await;
    assert_eq!(active["data"].as_array().expect("a list").len(), count);
    let open = "SELECT count(*) FROM purchases WHERE status = 'open'";
    assert_eq!(shop.app.db().number(open).await, 0);
}
