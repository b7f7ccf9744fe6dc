//! The plane is killed while people buy, at any moment. Who never comes back has what they paid for once
//! everything is compared, and nothing else told of it; who tries again has the plan, and paid once.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tests::lab::{Plane, PlaneSettings};
use tests::wait_until;

use super::*;

/// Each has people who buy side by side, and one kill. `PURCHASE_KILLS` makes it more, seeds and all.
const ROUNDS: u64 = 10;
const PEOPLE: usize = 10;
/// Within which people begin, so that they are at different steps.
const BEGIN: u64 = 700;
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

async fn buy(shop: &Shop, person: &Client, buyer: &Buyer) {
    wait_until("the plan is bought", PATIENCE, async || {
        attempt(shop, person, buyer.way, &buyer.card).await == Some(true)
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

fn rounds() -> u64 {
    let told = std::env::var("PURCHASE_KILLS").ok();
    told.map_or(ROUNDS, |it| it.parse().expect("a number of rounds"))
}

fn within(random: &mut StdRng, milliseconds: u64) -> Duration {
    Duration::from_millis(random.random_range(0..milliseconds))
}

/// Whose Stripe's customers are, by address: a purchase that was cut off may have made two of one person.
#[derive(Default)]
struct Addresses(BTreeMap<String, String>);

impl Addresses {
    /// How often each person was charged.
    async fn charges(&mut self, shop: &Shop) -> BTreeMap<String, usize> {
        let mut paid = BTreeMap::new();
        for charge in shop.stripe.charges().await {
            let customer = text(&charge["customer"]);
            if !self.0.contains_key(&customer) {
                let read = shop.stripe.get(&format!("/v1/customers/{customer}")).await;
                self.0.insert(customer.clone(), text(&read["email"]));
            }
            *paid.entry(self.0[&customer].clone()).or_default() += 1;
        }
        paid
    }
}

/// How many subscriptions run at Stripe.
async fn active(shop: &Shop) -> usize {
    let (mut count, mut after) = (0, String::new());
    loop {
        let path = format!("/v1/subscriptions?status=active&limit=100{after}");
        let page = shop.stripe.get(&path).await;
        let data = page["data"].as_array().expect("a list");
        count += data.len();
        let Some(last) = data.last().filter(|_| page["has_more"] == true) else {
            return count;
        };
        after = format!("&starting_after={}", text(&last["id"]));
    }
}

/// Somebody who buys, with a card and a way to it.
struct Buyer {
    person: Client,
    email: String,
    way: Way,
    card: String,
}

async fn buyers(shop: &Shop) -> Vec<Buyer> {
    let buyer = async |way| {
        let person = shop.person().await;
        let email = format!("SELECT email FROM users WHERE id = '{}'", person.user());
        Buyer {
            email: shop.app.db().texts(&email).await.remove(0),
            card: shop.card(GOOD).await,
            person,
            way,
        }
    };
    join_all(Way::ALL.into_iter().cycle().take(PEOPLE).map(buyer)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_buys_while_the_plane_is_killed_pays_once_and_has_the_plan() {
    let rounds = rounds();
    let mut shop = Shop::open().await;
    let mut all = Vec::new();
    for _ in 0..rounds {
        all.push(buyers(&shop).await);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut plane = plane(&mut shop, folder.path()).await;
    let mut addresses = Addresses::default();
    // How many had paid when the plane died, and how many of them it did not know of.
    let (mut paid_before, mut unknown) = (0, 0);
    for (round, buyers) in (0..rounds).zip(all) {
        let mut random = StdRng::seed_from_u64(round);
        let people: Vec<_> = buyers.iter().map(|it| it.person.at(plane.url())).collect();
        let once = people.iter().zip(&buyers).map(|(person, buyer)| {
            let begin = within(&mut random, BEGIN);
            let shop = &shop;
            async move {
                tokio::time::sleep(begin).await;
                attempt(shop, person, buyer.way, &buyer.card).await
            }
        });
        let once: Vec<_> = once.collect();
        let moment = within(&mut random, LONGEST);
        let killing = async {
            tokio::time::sleep(moment).await;
            plane.kill();
        };
        let _ = tokio::join!(join_all(once), killing);

        // Nobody comes back, and Stripe tells of nothing: a comparison alone finds what was paid for.
        let paid = addresses.charges(&shop).await;
        let has_plan = |buyer: &Buyer| {
            format!(
                "SELECT count(*) FROM entitlements WHERE user_id = '{}' AND plan_id = 'premium_monthly'",
                buyer.person.user()
            )
        };
        for buyer in &buyers {
            let has_paid = paid.contains_key(&buyer.email);
            paid_before += usize::from(has_paid);
            let has_it = shop.app.db().number(&has_plan(buyer)).await == 1;
            unknown += usize::from(has_paid && !has_it);
        }
        plane.cli(&["billing", "reconcile"]);
        for buyer in &buyers {
            let has_paid = paid.contains_key(&buyer.email);
            let has_it = shop.app.db().number(&has_plan(buyer)).await == 1;
            assert_eq!(has_it, has_paid, "round {round}, {:?}", buyer.way);
        }

        plane = plane.restart().await;
        let again = people.iter().zip(&buyers);
        join_all(again.map(|(person, buyer)| buy(&shop, person, buyer))).await;
        for person in &people {
            assert_eq!(has(person).await, MONTHLY, "round {round}");
        }
    }
    let count = usize::try_from(rounds).expect("few") * PEOPLE;
    eprintln!(
        "of {count} people {paid_before} had paid when the plane was killed, {unknown} without its knowing"
    );
    assert!(unknown > 0, "no kill came between a payment and its row");
    assert!(paid_before < count, "no kill came before a payment");
    let paid = addresses.charges(&shop).await;
    assert_eq!(paid.len(), count, "everybody paid");
    assert!(paid.values().all(|times| *times == 1), "once: {paid:?}");
    assert_eq!(active(&shop).await, count);
    let open = "SELECT count(*) FROM purchases WHERE status = 'open'";
    assert_eq!(shop.app.db().number(open).await, 0);
}
