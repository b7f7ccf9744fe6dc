//! What is kept of Stripe's ids when `SECRET_KEY` changes.

use control_plane::config::{Config, Variables};
use control_plane::secrets::KeyRing;
use control_plane::secrets::rotation::{COLUMNS, rotate};
use tests::{TestApp, variables};

use super::{deliver, event, pays, plane, running, subscription, wait_stored};
use crate::stripe::configured;

const OLD: &str = "a-secret-of-the-tests-that-is-long-enough";
const NEW: &str = "a-new-secret-of-the-tests-of-enough-length";
const UPDATED: &str = "customer.subscription.updated";

fn with_keys(vars: &mut Variables, old: &str) {
    vars.insert("SECRET_KEY".to_owned(), NEW.to_owned());
    vars.insert("SECRET_KEYS_OLD".to_owned(), old.to_owned());
}

pub(crate) async fn resealed(app: &TestApp) -> Vec<String> {
    let mut vars = variables("postgres://localhost/none");
    with_keys(&mut vars, OLD);
    let config = Config::read(&vars).expect("a configuration");
    let keys = KeyRing::new(&config.app.keys).expect("keys");
    let mut connection = app.db().connect().await;
    let mut resealed = Vec::new();
    for column in COLUMNS {
        let rotated = rotate(&mut connection, &keys, *column).await;
        let rotated = rotated.expect("the column can be rotated");
        assert!(rotated.unreadable.is_empty(), "{rotated:?}");
        if rotated.resealed > 0 {
            resealed.push(format!("{} {}", rotated.column, rotated.resealed));
        }
    }
    resealed.sort();
    resealed
}

#[tokio::test(flavor = "multi_thread")]
async fn who_pays_is_found_before_and_after_the_old_key_is_forgotten() {
    let (mut app, stripe) = plane().await;
    let user = app.user_on("free").await;
    pays(&app, &stripe, &user).await;
    let it = subscription("sub_1", "active", "price_monthly");
    stripe.put("/v1/subscriptions/sub_1", it.clone());
    let first = event("evt_1", UPDATED, &it);
    let _ = deliver(&app, &first).await.expect(200);
    wait_stored(&app, &[&format!("{UPDATED} done")]).await;
    let url = app.db().url().to_owned();
    let renewed = |old: &'static str| {
        let (url, stripe) = (url.clone(), stripe.url().to_owned());
        TestApp::with(move |vars| {
            configured(vars, &stripe);
            vars.insert("DATABASE_URL".to_owned(), url.clone());
            with_keys(vars, old);
        })
    };
    // The rows are as the old key wrote them, and nobody is left who has no other.
    app.stop_replica(0).await;
    let both = renewed(OLD).await;
    let _ = deliver(&both, &first).await.expect(200);
    stripe.put(
        "/v1/subscriptions/sub_1",
        subscription("sub_1", "active", "price_yearly"),
    );
    let second = event("evt_2", UPDATED, &it);
    let _ = deliver(&both, &second).await.expect(200);
    let done = format!("{UPDATED} done");
    wait_stored(&app, &[&done, &done]).await;
    assert_eq!(running(&app, &user).await, ["premium_yearly active"]);
    both.finish(&[]).await;

    assert_eq!(
        resealed(&app).await,
        [
            "billing_customers.sealed_stripe_id 1",
            "stripe_events.sealed_payload 1",
            "subscriptions.sealed_stripe_id 1",
        ]
    );
    let new = renewed("").await;
    stripe.put(
        "/v1/subscriptions/sub_1",
        subscription("sub_1", "canceled", "price_yearly"),
    );
    let _ = deliver(&new, &event("evt_3", UPDATED, &it))
        .await
        .expect(200);
    wait_stored(&app, &[&done, &done, &done]).await;
    assert_eq!(running(&app, &user).await, ["free active"]);
    new.finish(&[]).await;
    app.finish(&[]).await;
}
