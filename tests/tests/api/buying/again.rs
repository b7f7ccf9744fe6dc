//! The same thing asked for many times, at once and after lost answers: it is bought once.

use std::future::Future;

use futures_util::future::join_all;
use tests::stripe::Wish;

use super::*;

async fn all<F: Future<Output = Reply>>(count: usize, ask: impl Fn() -> F) -> Vec<Value> {
    let replies = join_all((0..count).map(|_| ask())).await;
    let answers = replies.into_iter().map(|reply| reply.expect(200).json());
    answers.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_who_subscribe_at_once_pay_once() {
    let shop = Shop::open().await;
    let person = shop.person_with(GOOD).await;
    for answer in all(30, || subscribe(&person, "monthly")).await {
        assert_eq!(answer["status"], "succeeded", "{answer}");
        assert_eq!(answer["subscription"]["plan"], "premium_monthly");
    }
    assert_eq!(shop.subscriptions(&person).await.len(), 1);
    assert_eq!(shop.stripe.charges().await.len(), 1);
    for answer in all(10, || subscribe(&person, "yearly")).await {
        assert_eq!(answer["subscription"]["plan"], "premium_yearly");
    }
    assert_eq!(shop.stripe.charges().await.len(), 2);
    let purchases = shop.purchases().await;
    assert_eq!(purchases, ["subscription done", "change done"]);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_who_ask_for_a_page_or_a_payment_get_the_same_one() {
    let shop = Shop::open().await;
    let person = shop.person().await;
    let mut pages = all(30, || checkout(&person, "monthly")).await;
    pages.dedup();
    assert_eq!(pages.len(), 1);
    let mut payments = all(30, || intent(&person, "monthly")).await;
    payments.dedup();
    assert_eq!(payments.len(), 1);
    let id = &payments[0]["payment_intent_id"];
    let card = shop.card(GOOD).await;
    for answer in all(30, || confirm(&person, id, Some(&card))).await {
        assert_eq!(answer["status"], "succeeded");
    }
    assert_eq!(shop.stripe.charges().await.len(), 1);
    assert_eq!(shop.subscriptions(&person).await.len(), 1);
    let customers = shop.stripe.get("/v1/customers").await;
    assert_eq!(customers["data"].as_array().expect("a list").len(), 1);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_wants_two_plans_at_once_has_one() {
    let shop = Shop::open().await;
    let person = shop.person_with(GOOD).await;
    let asked = (0..10).map(|number| {
        let plan = if number % 2 == 0 { "monthly" } else { "yearly" };
        subscribe(&person, plan)
    });
    for reply in join_all(asked).await {
        assert!(
            [200, 409].contains(&reply.status.as_u16()),
            "{}",
            reply.text()
        );
    }
    let running = shop.subscriptions(&person).await;
    let running = running.iter().filter(|it| it["status"] == "active");
    assert_eq!(running.count(), 1);
    assert!([MONTHLY, YEARLY].contains(&&*has(&person).await));
    shop.close().await;
}

/// Answers are lost after Stripe did what it was asked, or it fails for a moment.
#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_charge_nobody_twice() {
    let shop = Shop::open().await;
    for (lost_answers, refusals) in [(1, vec![]), (2, vec![]), (3, vec![]), (0, vec![500; 2])] {
        let person = shop.person_with(GOOD).await;
        let before = shop.paid().await;
        let wish = Wish {
            lost_answers,
            refusals,
            ..Wish::default()
        };
        shop.stripe.wish(wish).await;
        tests::wait_until("it is bought", crate::SOON, async || {
            let reply = subscribe(&person, "monthly").await;
            let status = reply.status.as_u16();
            assert!([200, 503].contains(&status), "{}", reply.text());
            status == 200
        })
        .await;
        assert_eq!(has(&person).await, MONTHLY);
        assert_eq!(shop.paid().await, before + 1);
        assert_eq!(shop.subscriptions(&person).await.len(), 1);
    }
    shop.close().await;
}

/// As if a process had died between two steps: what is written down is all that the next one knows.
#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_goes_on_from_every_step() {
    let shop = Shop::open().await;
    let person = shop.person().await;
    let begun = intent(&person, "monthly").await.expect(200).json();
    // Stripe's answer was never written down.
    let taken = "SELECT encode(sealed_order, 'hex') FROM purchases";
    let known = shop.app.db().texts(taken).await.remove(0);
    let again = intent(&person, "monthly").await.expect(200).json();
    assert_eq!(again, begun);
    let card = shop.card(GOOD).await;
    let path = format!(
        "/v1/payment_intents/{}/confirm",
        text(&begun["payment_intent_id"])
    );
    let given = json!({"payment_method": card});
    shop.stripe.post(&path, given).await;
    // It was paid, and nobody was told.
    assert_eq!(has(&person).await, FREE);
    intent(&person, "monthly")
        .await
        .expect_error(409, "ALREADY_SUBSCRIBED");
    assert_eq!(has(&person).await, MONTHLY);
    assert_eq!(shop.app.db().texts(taken).await, [known]);
    assert_eq!(shop.paid().await, 1);
    shop.close().await;
}
