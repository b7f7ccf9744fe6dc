//! Saved cards.

use super::*;

async fn cards(person: &Client) -> Vec<Value> {
    let reply = person.get("/api/v1/billing/payment-methods").await;
    let list = reply.expect(200).json()["payment_methods"].take();
    list.as_array().expect("a list").clone()
}

async fn remove(person: &Client, card: &str) -> Reply {
    let path = format!("/api/v1/billing/payment-methods/{card}");
    person.delete(&path).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cards_are_saved_listed_and_forgotten() {
    let shop = Shop::open().await;
    let person = shop.person().await;
    assert!(cards(&person).await.is_empty());
    let (first, second) = (shop.card(GOOD).await, shop.card(ASKS).await);
    for card in [&first, &second] {
        let body = json!({"payment_method": card});
        let saved = put(&person, "billing/payment-method", &body).await;
        assert_eq!(saved.expect(200).json()["is_default"], true);
    }
    let listed = cards(&person).await;
    assert_eq!(
        listed[0],
        json!({"id": second, "brand": "visa", "last4": "3184", "exp_month": 12, "exp_year": 2034,
            "is_default": true})
    );
    assert_eq!(
        (&listed[1]["id"], &listed[1]["is_default"]),
        (&json!(first), &json!(false))
    );
    let _ = remove(&person, &second).await.expect(204);
    remove(&person, &second)
        .await
        .expect_error(404, "PAYMENT_METHOD_NOT_FOUND");
    remove(&person, "none")
        .await
        .expect_error(400, "INVALID_INPUT");
    assert_eq!(cards(&person).await.len(), 1);
    let acts = [
        "payment_method.set",
        "payment_method.set",
        "payment_method.remove",
    ];
    assert_eq!(shop.audited(&person).await, acts);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_persons_card_is_not_there() {
    let shop = Shop::open().await;
    let (owner, other, new) = (
        shop.person_with(GOOD).await,
        shop.person_with(GOOD).await,
        shop.person().await,
    );
    let card = text(&cards(&owner).await[0]["id"]);
    for person in [&other, &new] {
        put(
            person,
            "billing/payment-method",
            &json!({"payment_method": card}),
        )
        .await
        .expect_error(404, "PAYMENT_METHOD_NOT_FOUND");
        remove(person, &card)
            .await
            .expect_error(404, "PAYMENT_METHOD_NOT_FOUND");
    }
    let unknown = json!({"payment_method": "pm_none"});
    put(&owner, "billing/payment-method", &unknown)
        .await
        .expect_error(404, "PAYMENT_METHOD_NOT_FOUND");
    assert_eq!(cards(&owner).await.len(), 1);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_card_pays_for_what_runs_and_the_one_that_pays_stays() {
    let shop = Shop::open().await;
    let person = shop.subscriber("monthly").await;
    let old = text(&cards(&person).await[0]["id"]);
    remove(&person, &old).await.expect_error(409, "CONFLICT");
    let new = shop.card(GOOD).await;
    let body = json!({"payment_method": new});
    let _ = put(&person, "billing/payment-method", &body)
        .await
        .expect(200);
    let subscription = &shop.subscriptions(&person).await[0];
    assert_eq!(subscription["default_payment_method"], new);
    let _ = remove(&person, &old).await.expect(204);
    remove(&person, &new).await.expect_error(409, "CONFLICT");
    let _ = put(&person, "subscriptions/cancel", &json!({}))
        .await
        .expect(200);
    let _ = remove(&person, &new).await.expect(204);
    shop.close().await;
}
