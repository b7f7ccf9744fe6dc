//! Nobody is led elsewhere from a page that they trust.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_address_leads_to_listed_hosts_alone() {
    let shop = Shop::open().await;
    let person = shop.person().await;
    let portal = |url: &str| json!({"return_url": url});
    for address in [
        "https://evil.example/",
        "https://localhost.evil.example/",
        "https://localhost@evil.example/",
        r"https://evil.example\@localhost/",
        "//localhost/",
        "javascript:alert(1)",
        "http://localhost\r\n.evil.example/",
        "http://127.0.0.1/",
    ] {
        let reply = person
            .post("/api/v1/billing/portal", &portal(address))
            .await;
        assert_eq!(
            reply.expect_error(400, "INVALID_INPUT"),
            ["return_url"],
            "{address}"
        );
        let body = json!({"payment_intent_id": "pi_1", "return_url": address});
        let reply = person.post("/api/v1/payments/confirm", &body).await;
        assert_eq!(reply.expect_error(400, "INVALID_INPUT"), ["return_url"]);
    }
    let open = person.post("/api/v1/billing/portal", &portal(BACK)).await;
    let page = text(&open.expect(200).json()["url"]);
    let page = shop.stripe.open(&page).await.text().await.expect("a page");
    assert!(page.contains(BACK), "{page}");
    shop.close().await;
}
