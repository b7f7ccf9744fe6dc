//! Comparing with Stripe: every kind of difference is found and repaired, by one replica.

use serde_json::{Value, json};
use tests::command::control_plane_with;

use super::*;

const LAST: &str = "/api/v1/admin/billing/reconciliation";

/// `looked at, repaired, failed` of each kind.
fn counts(report: &Value) -> [String; 3] {
    ["subscriptions", "payments", "refunds"].map(|kind| {
        let count = &report[kind];
        format!(
            "{} {} {}",
            count["looked_at"], count["repaired"], count["failed"]
        )
    })
}

impl Shop {
    async fn reconciled(&self, is_dry_run: bool) -> [String; 3] {
        let report = self.app.reconcile(is_dry_run).await;
        assert!(report.is_complete);
        counts(&serde_json::to_value(report).expect("JSON"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_told_us_is_found() {
    let shop = Shop::open().await;
    shop.stripe.hold_webhooks().await;
    let (user, customer) = shop.customer().await;
    let subscription = shop.subscribe(&customer, &shop.monthly).await;
    assert_eq!(shop.running(&user).await, ["free active"]);
    // What it would be is said, and left.
    assert_eq!(shop.reconciled(true).await, ["1 1 0", "1 1 0", "0 0 0"]);
    assert_eq!(shop.running(&user).await, ["free active"]);
    assert!(history(&user).await.is_empty());
    assert_eq!(shop.reconciled(false).await, ["1 1 0", "1 1 0", "0 0 0"]);
    assert_eq!(shop.running(&user).await, ["premium_monthly active"]);
    assert_eq!(history(&user).await.len(), 1);
    assert_eq!(shop.reconciled(false).await, ["1 0 0", "1 0 0", "0 0 0"]);

    // A refund of a part, and a renewal that fails.
    let charges = shop.stripe.charges().await;
    let part = json!({ "charge": charges[0]["id"], "amount": 100 });
    shop.stripe.post("/v1/refunds", part).await;
    assert_eq!(shop.reconciled(false).await, ["1 0 0", "1 0 0", "1 1 0"]);
    assert_eq!(history(&user).await[0]["refunded"], json!(1.0));
    shop.stripe.decline(&customer, 1).await;
    shop.stripe.advance(&subscription).await;
    // The test's clock moves what was billed as well.
    assert_eq!(shop.reconciled(false).await, ["1 1 0", "2 2 0", "1 0 0"]);
    assert_eq!(shop.running(&user).await, ["premium_monthly past_due"]);

    // It ends.
    let path = format!("/v1/subscriptions/{subscription}");
    shop.stripe.call(Method::DELETE, &path, json!({})).await;
    assert_eq!(shop.reconciled(false).await, ["1 1 0", "2 0 0", "1 0 0"]);
    assert_eq!(shop.running(&user).await, ["free active"]);
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_here_is_put_right() {
    let shop = Shop::open().await;
    let buyer = shop.buyer().await;
    shop.stripe.hold_webhooks().await;
    shop.app
        .db()
        .execute(
            "UPDATE subscriptions SET plan_id = 'premium_yearly', plan_type = 'yearly', cancel_at_period_end = true
              WHERE stripe_hash IS NOT NULL;
             UPDATE payments SET minor = 1, status = 'void', paid_at = NULL",
        )
        .await;
    assert_eq!(shop.reconciled(false).await, ["1 1 0", "1 1 0", "0 0 0"]);
    assert_eq!(shop.running(&buyer.user).await, ["premium_monthly active"]);
    let payments = history(&buyer.user).await;
    assert_eq!(
        (&payments[0]["amount"], &payments[0]["status"]),
        (&json!(9.99), &json!("succeeded"))
    );
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stripe_does_not_know_ends() {
    let shop = Shop::open().await;
    let buyer = shop.buyer().await;
    shop.stripe.decline(&buyer.customer, 1).await;
    shop.stripe.advance(&buyer.subscription).await;
    shop.acted().await;
    // Another Stripe, which is empty.
    let other = StripeServer::start().await;
    let settings = settings(&shop, &other.base());
    let said = control_plane_with(shop.app.db().url(), &settings, &["billing", "reconcile"]).await;
    let said = said.expect();
    assert!(
        said.contains("subscriptions: 1 looked at, 1 repaired, 0 failed"),
        "{said}"
    );
    assert!(
        said.contains("payments: 1 looked at, 1 repaired, 0 failed"),
        "{said}"
    );
    assert_eq!(shop.running(&buyer.user).await, ["free active"]);
    let payments = history(&buyer.user).await;
    let statuses: Vec<_> = payments.iter().map(|it| it["status"].clone()).collect();
    assert_eq!(statuses, ["void", "succeeded"]);
    shop.finish().await;
}

fn settings(shop: &Shop, base: &str) -> Vec<(&'static str, String)> {
    vec![
        ("STRIPE_SECRET_KEY", "sk_test_of_the_tests".to_owned()),
        ("STRIPE_WEBHOOK_SECRET", SECRET.to_owned()),
        ("STRIPE_API_BASE", base.to_owned()),
        ("STRIPE_MONTHLY_PRICE_ID", shop.monthly.clone()),
        ("STRIPE_YEARLY_PRICE_ID", shop.yearly.clone()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promised_refund_is_made_and_what_it_paid_for_ends() {
    let shop = Shop::with(&[("REFUND_ENDS_ACCESS", "true")]).await;
    let buyer = shop.buyer().await;
    shop.stripe.hold_webhooks().await;
    // A replica died after its commit, and the job with it.
    shop.app
        .db()
        .execute(&format!(
            "INSERT INTO refunds (id, payment_id, minor, currency) VALUES (gen_random_uuid(), '{}', 999, 'USD')",
            buyer.payment
        ))
        .await;
    let report = shop.reconciled(true).await;
    assert_eq!(report, ["1 0 0", "1 0 0", "1 1 0"]);
    assert!(shop.stripe.refunds().await.is_empty());
    let report = shop.reconciled(false).await;
    assert_eq!(report, ["1 0 0", "1 0 0", "1 1 0"]);
    assert_eq!(shop.stripe.refunds().await.len(), 1);
    assert_eq!(shop.running(&buyer.user).await, ["free active"]);
    let _ = shop.reconciled(false).await;
    assert_eq!(shop.stripe.refunds().await.len(), 1);
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_without_being_paid_for_ends() {
    let shop = Shop::with(&[("REFUND_ENDS_ACCESS", "false")]).await;
    let buyer = shop.buyer().await;
    let _ = refund(&buyer.user, &json!({ "payment_id": buyer.payment }))
        .await
        .expect(201);
    shop.acted().await;
    assert_eq!(shop.running(&buyer.user).await, ["premium_monthly active"]);
    // The operator wants it otherwise from now on.
    let settings = settings(&shop, &shop.stripe.base());
    let arguments = ["billing", "reconcile"];
    let said = control_plane_with(shop.app.db().url(), &settings, &arguments).await;
    let said = said.expect();
    assert!(
        said.contains("subscriptions: 2 looked at, 1 repaired"),
        "{said}"
    );
    assert_eq!(shop.running(&buyer.user).await, ["free active"]);
    shop.acted().await;
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_replicas_compares_at_night() {
    let mut shop = Shop::replicas(0, &[]).await;
    shop.app
        .db()
        .execute(
            r#"INSERT INTO billing_reconciliations (id, started_at, ended_at, is_dry_run, is_complete, report)
               VALUES (gen_random_uuid(), now() - interval '2 days', now() - interval '2 days', false, true,
                       '{"subscriptions": {"looked_at": 0, "repaired": 0, "failed": 0},
                         "payments": {"looked_at": 0, "repaired": 0, "failed": 0},
                         "refunds": {"looked_at": 0, "repaired": 0, "failed": 0}, "is_complete": true}')"#,
        )
        .await;
    for _ in 0..3 {
        shop.app.start_replica().await;
    }
    let made =
        "SELECT count(*) FROM billing_reconciliations WHERE started_at > now() - interval '1 day'";
    wait_until("it is made", SOON, async || {
        shop.app.db().number(made).await > 0
    })
    .await;
    let support = shop.app.user_with_role("support").await;
    let last = support.get(LAST).await.expect(200).json();
    assert_eq!(last["last"]["is_dry_run"], json!(false));
    assert_eq!(counts(&last["last"]["report"]), ["0 0 0"; 3]);
    let user = shop.app.user_on("free").await;
    user.get(LAST).await.expect_error(403, "FORBIDDEN");
    assert_eq!(shop.app.db().number(made).await, 1);
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_breaks_off_is_no_comparison() {
    let mut shop = Shop::open().await;
    let _ = shop.buyer().await;
    shop.stripe.stop();
    let report = shop.app.reconcile(false).await;
    assert!(!report.is_complete && !report.is_clean());
    let said = control_plane_with(shop.app.db().url(), &[], &["billing", "reconcile"]).await;
    assert!(
        !said.success && said.err.contains("STRIPE_SECRET_KEY"),
        "{said:?}"
    );
    shop.finish().await;
}
