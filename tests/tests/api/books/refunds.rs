//! Money that goes back: to whom, how much, and once.

use futures_util::future::join_all;
use serde_json::{Value, json};
use tests::stripe::Wish;
use uuid::Uuid;

use super::*;

fn whole(payment: &str) -> Value {
    json!({ "payment_id": payment })
}

fn part(payment: &str, amount: f64) -> Value {
    json!({ "payment_id": payment, "amount": amount })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_payer_has_it_back_whole_and_once() {
    let shop = Shop::open().await;
    let buyer = shop.buyer().await;
    let body = json!({ "payment_id": buyer.payment, "reason": "It is slow here" });
    let made = refund(&buyer.user, &body).await.expect(201).json();
    assert_eq!(
        (&made["status"], &made["amount"]),
        (&json!("succeeded"), &json!(9.99))
    );
    assert_eq!(made["reason"], "It is slow here");
    let read = buyer.user.get(&format!("{REFUND}/{}", id(&made))).await;
    assert_eq!(read.expect(200).json(), made);
    refund(&buyer.user, &whole(&buyer.payment))
        .await
        .expect_error(409, "ALREADY_REFUNDED");
    let payments = history(&buyer.user).await;
    assert_eq!(payments[0]["refunded"], json!(9.99));
    assert_eq!(payments[0]["refunds"], json!([made]));
    let refunds = shop.stripe.refunds().await;
    assert_eq!(refunds.len(), 1);
    assert_eq!(refunds[0]["amount"], 999);
    let key = format!("refund-{}", id(&made));
    assert_eq!(refunds[0]["idempotency_key"], key);
    let audited = "SELECT actor || ' ' || subject || ' ' || (after ->> 'amount')
        FROM audit_log WHERE action = 'refund.request'";
    let expected = format!("{} {} 9.99", buyer.user.user(), buyer.payment);
    assert_eq!(shop.app.db().texts(audited).await, [expected]);
    shop.acted().await;
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_at_a_time_are_one() {
    let shop = Shop::open().await;
    let buyer = shop.buyer().await;
    let admin = shop.app.user_with_role("admin").await;
    let body = whole(&buyer.payment);
    let askers = (0..20).map(|number| if number % 2 == 0 { &buyer.user } else { &admin });
    let replies = join_all(askers.map(|asker| refund(asker, &body))).await;
    let mut made = 0;
    for reply in replies {
        if reply.status.as_u16() == 201 {
            made += 1;
        } else {
            reply.expect_error(409, "ALREADY_REFUNDED");
        }
    }
    assert_eq!(made, 1);
    shop.acted().await;
    assert_eq!(shop.stripe.refunds().await.len(), 1);
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_give_back_parts_and_never_more_than_there_is() {
    let shop = Shop::open().await;
    let buyer = shop.buyer().await;
    let admin = shop.app.user_with_role("admin").await;
    let made = refund(&admin, &part(&buyer.payment, 4.5)).await.expect(201);
    assert_eq!(made.json()["amount"], json!(4.5));
    refund(&admin, &part(&buyer.payment, 5.5))
        .await
        .expect_error(409, "REFUND_TOO_LARGE");
    refund(&buyer.user, &whole(&buyer.payment))
        .await
        .expect_error(409, "ALREADY_REFUNDED");
    let rest = refund(&admin, &whole(&buyer.payment)).await.expect(201);
    assert_eq!(rest.json()["amount"], json!(5.49));
    refund(&admin, &part(&buyer.payment, 0.01))
        .await
        .expect_error(409, "ALREADY_REFUNDED");
    shop.acted().await;
    let amounts: Vec<_> = shop.stripe.refunds().await;
    let amounts: Vec<_> = amounts.iter().map(|it| it["amount"].clone()).collect();
    assert_eq!(amounts, [549, 450]);
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_amount_is_refused() {
    let shop = Shop::open().await;
    let buyer = shop.buyer().await;
    let admin = shop.app.user_with_role("admin").await;
    for amount in [
        json!(-1),
        json!(-9.99),
        json!(0),
        json!(-0.0),
        json!(9.999),
        json!(0.001),
        json!(1e300),
        json!(1e-300),
        json!(92_233_720_368_547_758.08),
        json!(u64::MAX),
        json!("9.99"),
        json!([9.99]),
    ] {
        let body = json!({ "payment_id": buyer.payment, "amount": amount });
        for asker in [&buyer.user, &admin] {
            let fields = refund(asker, &body)
                .await
                .expect_error(400, "INVALID_INPUT");
            assert_eq!(fields, ["amount"], "{amount}");
        }
    }
    assert!(shop.stripe.refunds().await.is_empty());
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_payer_has_no_part_and_nobody_has_more_than_all() {
    let shop = Shop::open().await;
    let buyer = shop.buyer().await;
    let fields = refund(&buyer.user, &part(&buyer.payment, 5.0))
        .await
        .expect_error(400, "INVALID_INPUT");
    assert_eq!(fields, ["amount"]);
    let admin = shop.app.user_with_role("admin").await;
    for (asker, amount) in [(&buyer.user, 10.0), (&admin, 10.0), (&admin, 999_999.99)] {
        refund(asker, &part(&buyer.payment, amount))
            .await
            .expect_error(409, "REFUND_TOO_LARGE");
    }
    assert!(shop.stripe.refunds().await.is_empty());
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_is_the_same_refund() {
    let shop = Shop::open().await;
    let buyer = shop.buyer().await;
    let admin = shop.app.user_with_role("admin").await;
    let body = part(&buyer.payment, 2.0);
    let first = refund_with_key(&admin, &body, "one").await.expect(201);
    let again = refund_with_key(&admin, &body, "one").await.expect(200);
    assert_eq!(first.json(), again.json());
    refund_with_key(&admin, &part(&buyer.payment, 3.0), "one")
        .await
        .expect_error(409, "CONFLICT");
    refund_with_key(&buyer.user, &whole(&buyer.payment), "one")
        .await
        .expect_error(409, "CONFLICT");
    let other = refund_with_key(&admin, &body, "two").await.expect(201);
    assert_ne!(other.json()["id"], first.json()["id"]);
    let wrong = refund_with_key(&admin, &body, "a b").await;
    wrong.expect_error(400, "INVALID_INPUT");
    shop.acted().await;
    assert_eq!(shop.stripe.refunds().await.len(), 2);
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_answer_is_lost_has_one_refund() {
    let shop = Shop::open().await;
    let buyer = shop.buyer().await;
    shop.stripe
        .wish(Wish {
            lost_answers: 1,
            ..Wish::default()
        })
        .await;
    let made = refund(&buyer.user, &whole(&buyer.payment))
        .await
        .expect(201);
    assert_eq!(made.json()["status"], "succeeded");
    shop.acted().await;
    assert_eq!(shop.stripe.refunds().await.len(), 1);
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_stripe_is_away_a_refund_is_promised() {
    let mut shop = Shop::open().await;
    let buyer = shop.buyer().await;
    shop.stripe.stop();
    let made = refund(&buyer.user, &whole(&buyer.payment))
        .await
        .expect(201)
        .json();
    assert_eq!(made["status"], "requested");
    refund(&buyer.user, &whole(&buyer.payment))
        .await
        .expect_error(409, "ALREADY_REFUNDED");
    shop.stripe.resume().await;
    let path = format!("{REFUND}/{}", id(&made));
    // The breaker leaves Stripe alone for a while.
    let patience = std::time::Duration::from_secs(90);
    wait_until("it is made", patience, async || {
        buyer.user.get(&path).await.json()["status"] == "succeeded"
    })
    .await;
    shop.acted().await;
    assert_eq!(shop.stripe.refunds().await.len(), 1);
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_paid_does_not_go_back() {
    let shop = Shop::open().await;
    let buyer = shop.buyer().await;
    shop.stripe.decline(&buyer.customer, 1).await;
    shop.stripe.advance(&buyer.subscription).await;
    shop.acted().await;
    let payments = history(&buyer.user).await;
    let admin = shop.app.user_with_role("admin").await;
    for asker in [&buyer.user, &admin] {
        refund(asker, &whole(id(&payments[0])))
            .await
            .expect_error(409, "PAYMENT_NOT_REFUNDABLE");
    }
    // A month has passed since the first was paid, which the test's clock tells nobody.
    assert!(shop.app.reconcile(false).await.is_clean());
    refund(&buyer.user, &whole(&buyer.payment))
        .await
        .expect_error(409, "REFUND_WINDOW_OVER");
    let _ = refund(&admin, &whole(&buyer.payment)).await.expect(201);
    shop.acted().await;
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stripe_will_not_give_back_fails() {
    let shop = Shop::open().await;
    let buyer = shop.buyer().await;
    // Somebody was faster in Stripe's dashboard, and nobody told us.
    shop.stripe.hold_webhooks().await;
    let charges = shop.stripe.charges().await;
    let given = json!({ "charge": charges[0]["id"] });
    shop.stripe.post("/v1/refunds", given).await;
    let made = refund(&buyer.user, &whole(&buyer.payment))
        .await
        .expect(201)
        .json();
    assert_eq!(made["status"], "failed");
    let payments = history(&buyer.user).await;
    assert_eq!(payments[0]["refunded"], json!(9.99));
    let refunds = payments[0]["refunds"].as_array().expect("a list");
    let mut statuses: Vec<_> = refunds.iter().map(|it| it["status"].as_str()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [Some("failed"), Some("succeeded")]);
    refund(&buyer.user, &whole(&buyer.payment))
        .await
        .expect_error(409, "ALREADY_REFUNDED");
    assert_eq!(shop.stripe.refunds().await.len(), 1);
    let audited = "SELECT count(*) FROM audit_log WHERE action = 'refund.fail'";
    assert_eq!(shop.app.db().number(audited).await, 1);
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_is_its_payers_and_the_operators() {
    let shop = Shop::open().await;
    let buyer = shop.buyer().await;
    let (other, _) = shop.customer().await;
    let support = shop.app.user_with_role("support").await;
    for stranger in [&other, &support] {
        refund(stranger, &whole(&buyer.payment))
            .await
            .expect_error(404, "PAYMENT_NOT_FOUND");
    }
    refund(&buyer.user, &whole(&Uuid::now_v7().to_string()))
        .await
        .expect_error(404, "PAYMENT_NOT_FOUND");
    let made = refund(&buyer.user, &whole(&buyer.payment))
        .await
        .expect(201)
        .json();
    let path = format!("{REFUND}/{}", id(&made));
    other.get(&path).await.expect_error(404, "REFUND_NOT_FOUND");
    assert_eq!(support.get(&path).await.expect(200).json(), made);
    let unversioned = path.replace("/api/v1", "");
    let _ = buyer.user.get(&unversioned).await.expect(200);
    let unknown = format!("{REFUND}/{}", Uuid::now_v7());
    support
        .get(&unknown)
        .await
        .expect_error(404, "REFUND_NOT_FOUND");
    shop.acted().await;
    shop.finish().await;
}
