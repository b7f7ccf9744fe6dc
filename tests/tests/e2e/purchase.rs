//! A plan's whole life on a live tunnel: what is bought and what ends reaches the node's peer, which stays.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use reqwest::Method;
use serde_json::{Value, json};
use shared::wireguard::PublicKey;
use tests::api::Client;
use tests::lab::{
    Agent, Backend, Plane, PlaneSettings, WgClient, World, dump, key_of, require_root, try_run,
};
use tests::stripe::{CARD, StripeServer, payload, signature};
use tests::{TestDb, wait_until};

use super::SOON;

const SECRET: &str = "whsec_present";

/// Fields are dropped in this order: what uses something goes before it.
struct Life {
    agent: Agent,
    /// Of a server that the free plan does not open.
    _premium: Agent,
    plane: Plane,
    user: Client,
    world: World,
    _folder: tempfile::TempDir,
    db: TestDb,
    stripe: StripeServer,
    told: HashSet<String>,
}

impl Life {
    async fn begin() -> (Self, PathBuf) {
        require_root();
        let (world, db) = (World::with_nodes(2), TestDb::new().await);
        let stripe = StripeServer::start().await;
        let folder = tempfile::tempdir().expect("a folder can be made");
        let price = json!({"unit_amount": 999, "currency": "usd", "recurring": {"interval": "month"},
            "product_data": {"name": "Premium"}});
        let price = stripe.post("/v1/prices", price).await;
        let settings = PlaneSettings {
            address: world.plane_address,
            database_url: db.url().to_owned(),
            tls: true,
            more: vec![
                ("STRIPE_SECRET_KEY", "sk_test_of_the_tests".to_owned()),
                ("STRIPE_WEBHOOK_SECRET", SECRET.to_owned()),
                ("STRIPE_API_BASE", stripe.base()),
                ("STRIPE_MONTHLY_PRICE_ID", text(&price["id"])),
            ],
        };
        let plane = Plane::start(folder.path(), &settings).await;
        let mut agent = Agent::new(&world, &plane, folder.path(), "node", Backend::detect());
        agent.begin(&plane.enrolment_token("node")).await;
        let user = plane.client().sign_up("ada@example.org").await;
        let premium = premium(&world, &plane, folder.path()).await;
        let path = folder.path().to_owned();
        let life = Self {
            agent,
            _premium: premium,
            plane,
            user,
            world,
            _folder: folder,
            db,
            stripe,
            told: HashSet::new(),
        };
        (life, path)
    }

    /// Stripe tells what it has not told yet.
    async fn tell(&mut self) {
        let client = self.plane.client();
        for event in self.stripe.events().await {
            if !self.told.insert(text(&event["id"])) {
                continue;
            }
            let body = payload(&event);
            let now = chrono::Utc::now().timestamp();
            let request = client
                .request(Method::POST, "/payments/webhook")
                .header("stripe-signature", signature(SECRET, now, &body))
                .body(body);
            let _ = client.send(request).await.expect(200);
        }
    }

    async fn put(&self, act: &str) {
        let path = format!("/api/v1/subscriptions/{act}");
        let request = self.user.request(Method::PUT, &path);
        let _ = self.user.send(request).await.expect(200);
    }

    /// Waits until the person has this plan, and the node's kernel limits the peer or does not.
    async fn wait(&self, what: &str, status: &str, effective: &str) {
        let is_limited = effective == "free";
        wait_until(what, SOON, async || {
            let reply = self.user.get("/api/v1/subscriptions/status").await;
            let it = reply.expect(200).json();
            it["status"] == status
                && it["effective_plan"] == effective
                && self.limits_rates() == is_limited
        })
        .await;
    }

    /// Whether the node's kernel holds anybody to a rate.
    fn limits_rates(&self) -> bool {
        let (space, interface) = (self.world.node(), self.agent.interface());
        let table = format!("prime_vpn_{interface}_limits");
        let arguments = [
            "netns", "exec", &space, "nft", "list", "table", "inet", &table,
        ];
        let rules = try_run("ip", &arguments).stdout;
        String::from_utf8_lossy(&rules).contains("rate ")
    }

    fn has_peer(&self, key: PublicKey) -> bool {
        let peers = dump(&self.world.node(), self.agent.interface());
        peers.iter().any(|peer| peer.public_key == key)
    }

    async fn subscription(&self) -> Value {
        let all = self.stripe.get("/v1/subscriptions?status=all").await;
        all["data"][0].clone()
    }

    async fn connect_premium(&self) -> tests::api::Reply {
        let id = "SELECT id::text FROM vpn_servers WHERE hostname = 'premium'";
        let id = self.db.texts(id).await.remove(0);
        let body = json!({"server_id": id});
        self.user.connect(&body).await
    }
}

async fn premium(world: &World, plane: &Plane, folder: &Path) -> Agent {
    let folder = folder.join("premium");
    std::fs::create_dir(&folder).expect("a folder can be made");
    let backend = Backend::detect();
    let mut agent = Agent::at(world.site(1), plane, &folder, "premium", backend);
    let named = ["node", "enrolment-token", "--hostname", "premium"];
    let place = [
        "--country",
        "Japan",
        "--country-code",
        "JP",
        "--city",
        "Tokyo",
    ];
    let kind = ["--location", "asia-east", "--tier", "1"];
    let token = plane.cli(&[&named[..], &place, &kind].concat());
    agent.begin(&token).await;
    agent
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_bought_canceled_resumed_not_paid_and_lost_on_one_tunnel() {
    let (mut life, folder) = Life::begin().await;
    let client = WgClient::new(&life.world, &folder, Backend::detect()).await;
    life.connect_premium()
        .await
        .expect_error(403, "PLAN_REQUIRED");
    let tunnel = life.user.connected(&json!({})).await;
    client.configure(&tunnel.wg_config);
    let key = key_of(&tunnel.wg_config);
    let internet = World::INTERNET.to_string();
    assert!(client.pings(&internet, SOON), "on the free plan");
    life.wait("the free plan holds", "active", "free").await;
    let operations = life.agent.status().expect("it answers").operations();

    let body = json!({"plan_type": "monthly", "success_url": "http://localhost/paid",
        "cancel_url": "http://localhost/plans"});
    let reply = life.user.post("/api/v1/payments/create", &body).await;
    let page = text(&reply.expect(200).json()["checkout_url"]);
    let _ = life.stripe.pay(&page, CARD).await.expect("it is paid");
    life.tell().await;
    life.wait("it is bought", "active", "premium_monthly").await;
    let second = life.connect_premium().await.expect(200);
    let subscription = life.subscription().await;
    let (id, customer) = (text(&subscription["id"]), text(&subscription["customer"]));

    for act in ["cancel", "resume"] {
        life.put(act).await;
        life.wait(act, "active", "premium_monthly").await;
    }
    life.stripe.decline(&customer, 1).await;
    life.stripe.advance(&id).await;
    life.tell().await;
    life.wait("the renewal failed", "past_due", "premium_monthly")
        .await;
    assert!(client.pings(&internet, SOON), "while there is grace");

    // Nothing is paid, and the grace is over.
    let later = "UPDATE subscriptions SET access_until = now() WHERE status = 'past_due'";
    life.db.execute(later).await;
    life.wait("the grace ended", "past_due", "free").await;
    life.stripe.give_up(&id, "canceled").await;
    life.tell().await;
    life.wait("it is over", "active", "free").await;
    let premium = text(&second.json()["connection_id"]);
    wait_until("what the plan opened ended", SOON, async || {
        let open = life.user.status().await["connections"].take();
        let open = open.as_array().expect("a list").clone();
        open.len() == 1 && open[0]["connection_id"] != premium
    })
    .await;

    assert!(client.pings(&internet, SOON), "on the free plan again");
    assert!(life.has_peer(key));
    let now = life.agent.status().expect("it answers").operations();
    assert_eq!(now, operations, "the peer was left alone all the time");
    assert_eq!(
        life.stripe
            .charges()
            .await
            .iter()
            .filter(|it| it["paid"] == true)
            .count(),
        1
    );
}
