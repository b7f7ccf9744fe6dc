//! The plane is killed while it gives back: whatever it was at, each payment goes back once.

use std::time::Duration;

use control_plane::config::Config;
use control_plane::secrets::{KeyRing, Place};
use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rstest::rstest;
use serde_json::json;
use shared::ids::UserId;
use tests::lab::{Plane, PlaneSettings};
use tests::{TestDb, variables};
use uuid::Uuid;

use super::*;

/// People who have something back at a time: each of a kill's seeds is at a step of its own.
const PEOPLE: usize = 5;
/// With ten seeds of the order, one hundred.
const KILLS: usize = 2;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Stage {
    stripe: StripeServer,
    db: TestDb,
    plane: Plane,
    admin: Client,
    _folder: tempfile::TempDir,
}

impl Stage {
    /// People with so many paid months each, all known to the plane.
    async fn set(months: usize) -> Self {
        let stripe = StripeServer::start().await;
        let monthly = price(&stripe, 999, "month").await;
        let db = TestDb::new().await;
        let folder = tempfile::tempdir().expect("a folder");
        let settings = PlaneSettings {
            address: [127, 0, 0, 1].into(),
            database_url: db.url().to_owned(),
            tls: false,
            more: vec![
                ("STRIPE_SECRET_KEY", "sk_test_of_the_tests".to_owned()),
                ("STRIPE_WEBHOOK_SECRET", SECRET.to_owned()),
                ("STRIPE_API_BASE", stripe.base()),
                ("STRIPE_MONTHLY_PRICE_ID", monthly.clone()),
                ("RATE_LIMIT_ENABLED", "false".to_owned()),
                ("MAIL_DIR", folder.path().display().to_string()),
            ],
        };
        for _ in 0..PEOPLE {
            buy(&stripe, &db, &monthly, months).await;
        }
        let plane = Plane::start(folder.path(), &settings).await;
        plane.cli(&["billing", "reconcile"]);
        let _ = plane.client().sign_up("admin@example.org").await;
        db.execute("UPDATE users SET role = 'admin' WHERE email = 'admin@example.org'")
            .await;
        let admin = plane.client().log_in("admin@example.org").await;
        Self {
            stripe,
            db,
            plane,
            admin,
            _folder: folder,
        }
    }

    /// Asks until somebody answers: an app that repeats its request with its key.
    async fn insist(&self, payment: &str) {
        let body = json!({ "payment_id": payment });
        wait_until(
            "it is given back",
            Duration::from_secs(60),
            async || match self.ask(&body, payment).await {
                Some(status) => {
                    // A plane that has just begun may find the request too slow.
                    let is_expected = matches!(status, 200 | 201 | 408 | 500..);
                    assert!(is_expected, "{status}");
                    status < 300
                }
                None => false,
            },
        )
        .await;
    }

    async fn ask(&self, body: &Value, key: &str) -> Option<u16> {
        let request = self.admin.request(Method::POST, REFUND).json(body);
        let answer = request.header("idempotency-key", key).send().await;
        answer.ok().map(|it| it.status().as_u16())
    }

    /// Ends when one of them has come to some step, or a little later.
    async fn moment(&self, payments: &[String], random: &mut StdRng) {
        let before = self.stripe.refunds().await.len();
        let of_them = format!("payment_id IN ('{}')", payments.join("', '"));
        let count =
            |status: &str| format!("SELECT count(*) FROM refunds WHERE {of_them} AND {status}");
        let promised = count("status <> 'failed'");
        let known = count("status = 'succeeded'");
        let step = random.random_range(0..4);
        let all = random.random_range(1..=PEOPLE);
        wait_until("one has come so far", Duration::from_secs(30), async || {
            let come = match step {
                0 => return true,
                1 => self.db.number(&promised).await,
                2 => i64::try_from(self.stripe.refunds().await.len() - before).unwrap_or(0),
                _ => self.db.number(&known).await,
            };
            usize::try_from(come).is_ok_and(|come| come >= all)
        })
        .await;
        let pause = Duration::from_micros(random.random_range(0..30_000));
        tokio::time::sleep(pause).await;
    }

    /// How far each had come: nothing, promised, given back, known to be.
    async fn steps(&self, payments: &[String]) -> Vec<&'static str> {
        let given = self.stripe.refunds().await.len();
        let known = "SELECT count(*) FROM refunds WHERE status = 'succeeded'";
        let known = usize::try_from(self.db.number(known).await).expect("a count");
        let mut steps = Vec::new();
        for payment in payments {
            let status = format!("SELECT status FROM refunds WHERE payment_id = '{payment}'");
            steps.push(
                match self.db.texts(&status).await.first().map(String::as_str) {
                    None => "not promised",
                    Some("requested") if given > known => "promised, perhaps given back",
                    Some("requested") => "promised",
                    Some(_) => "known",
                },
            );
        }
        steps
    }
}

async fn buy(stripe: &StripeServer, db: &TestDb, monthly: &str, months: usize) {
    let user = UserId::generate();
    let customer = stripe
        .post("/v1/customers", json!({ "email": "anna@example.org" }))
        .await;
    let keys = Config::read(&variables(db.url()))
        .expect("a configuration")
        .app
        .keys;
    let keys = KeyRing::new(&keys).expect("keys");
    let row = Uuid::now_v7();
    let column = "billing_customers.sealed_stripe_id";
    let sealed = keys.seal(Place { column, row }, id(&customer).as_bytes());
    db.execute(&format!(
        "INSERT INTO users (id, email, hashed_password) VALUES ('{user}', '{user}@example.org', 'none');
         INSERT INTO billing_customers (user_id, id, stripe_hash, sealed_stripe_id)
         VALUES ('{user}', '{row}', '\\x{}', '\\x{}')",
        hex(&keys.fingerprint(id(&customer).as_bytes())),
        hex(&sealed.expect("it is sealed")),
    ))
    .await;
    add_card(stripe, id(&customer), CARD).await;
    let wanted = json!({ "customer": id(&customer), "items": [{ "price": monthly }] });
    let made = stripe.post("/v1/subscriptions", wanted).await;
    for _ in 1..months {
        stripe.advance(id(&made)).await;
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn never_twice_and_never_not(#[values(1, 2, 3, 4, 5, 6, 7, 8, 9, 10)] seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut stage = Stage::set(KILLS).await;
    let payments = "SELECT id FROM payments ORDER BY created_at, user_id";
    let payments = stage.db.texts(payments).await;
    assert_eq!(payments.len(), PEOPLE * KILLS);
    let mut steps = Vec::new();
    for at_a_time in payments.chunks(PEOPLE) {
        let asking = at_a_time.iter().map(|payment| {
            let body = json!({ "payment_id": payment });
            let stage = &stage;
            async move { stage.ask(&body, payment).await }
        });
        let moment = stage.moment(at_a_time, &mut random);
        tokio::select! {
            // Whoever is answered is at the last step.
            _ = join_all(asking) => {}
            () = moment => {}
        }
        stage.plane.kill();
        steps.extend(stage.steps(at_a_time).await);
        stage.plane = stage.plane.restart().await;
        join_all(at_a_time.iter().map(|payment| stage.insist(payment))).await;
    }
    eprintln!("killed at: {steps:?}");
    stage.plane.cli(&["billing", "reconcile"]);

    let refunds = stage.stripe.refunds().await;
    let mut charges: Vec<_> = refunds.iter().map(|it| it["charge"].to_string()).collect();
    charges.sort_unstable();
    charges.dedup();
    assert_eq!(
        (refunds.len(), charges.len()),
        (payments.len(), payments.len())
    );
    assert!(refunds.iter().all(|it| it["amount"] == 999), "{refunds:?}");
    let rows = "SELECT count(*) FROM refunds WHERE status = 'succeeded'";
    let all = i64::try_from(payments.len()).expect("a count");
    assert_eq!(stage.db.number(rows).await, all);
    assert_eq!(stage.db.number("SELECT count(*) FROM refunds").await, all);
    let left = "SELECT count(*) FROM payments WHERE refunded <> minor";
    assert_eq!(stage.db.number(left).await, 0);
    // Nothing is left of what was paid: nothing runs.
    let running =
        "SELECT count(*) FROM subscriptions WHERE status <> 'canceled' AND stripe_hash IS NOT NULL";
    assert_eq!(stage.db.number(running).await, 0);
}
