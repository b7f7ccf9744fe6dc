//! What is not believed, and what that costs its sender.

use reqwest::Method;
use rstest::rstest;
use serde_json::json;
use tests::redis::TestRedis;
use tests::{TestApp, wait_until};

use super::{PATH, SECRET, deliver, event, plane, send, signature, stored};
use crate::SOON;
use crate::guard::{app, number};
use crate::stripe::script::Scripted;

fn body() -> String {
    event("evt_1", "product.created", &json!({ "id": "prod_1" }))
}

async fn alerts(app: &TestApp) -> Vec<String> {
    let rows = "SELECT kind || ' ' || count FROM security_alerts ORDER BY started_at, id";
    app.db().texts(rows).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stripe_did_not_sign_is_refused_and_leaves_nothing() {
    let (app, stripe) = plane().await;
    let client = app.client();
    let (body, longer) = (body(), format!("{} ", body()));
    let body = body.as_str();
    let good = signature(SECRET, 0, body);
    let cut = &body[..body.len() - 1];
    let refused = [
        ("no signature", None, body),
        ("nonsense", Some("t=now,v1=yes".to_owned()), body),
        (
            "a stranger's",
            Some(signature("whsec_of_nobody", 0, body)),
            body,
        ),
        ("stale", Some(signature(SECRET, 301, body)), body),
        ("of the future", Some(signature(SECRET, -330, body)), body),
        ("truncated", Some(good.clone()), cut),
        ("with more behind it", Some(good.clone()), longer.as_str()),
        ("of another body", Some(good.clone()), "{}"),
        ("only for tests", Some(good.replace("v1=", "v0=")), body),
        ("emptied", Some(good.clone()), ""),
    ];
    for (what, signature, body) in refused {
        for path in [PATH, "/payments/webhook"] {
            let reply = send(&client, path, signature.as_deref(), body).await;
            assert_eq!(reply.status.as_u16(), 400, "{what}");
            reply.expect_error(400, "WEBHOOK_SIGNATURE_INVALID");
        }
    }
    assert!(stored(&app).await.is_empty());
    assert_eq!(app.db().number("SELECT count(*) FROM jobs").await, 0);
    // Who shows no signature or one that cannot be read is somebody else's scanner, not somebody's forgery.
    wait_until("it is an attack", SOON, async || {
        alerts(&app).await == ["bad_webhooks 14"]
    })
    .await;
    assert!(stripe.asked().is_empty());
    app.finish(&[]).await;
}

#[rstest]
#[case("whsec_present")]
#[case("whsec_former")]
#[tokio::test(flavor = "multi_thread")]
async fn each_secret_of_a_change_is_good_at_both_paths(#[case] secret: &str) {
    let (app, _stripe) = plane().await;
    let client = app.client();
    let body = body();
    let mut signature = signature(secret, 299, &body);
    signature.push_str(",v1=00");
    for path in [PATH, "/payments/webhook"] {
        let reply = send(&client, path, Some(&signature), &body)
            .await
            .expect(200);
        assert_eq!(reply.json(), json!({ "received": true }));
    }
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_sent_again_is_stored_and_acted_on_once() {
    let (app, _stripe) = plane().await;
    let body = body();
    let all = futures_util::future::join_all((0..10).map(|_| deliver(&app, &body))).await;
    for reply in all {
        let _ = reply.expect(200);
    }
    app.jobs_end().await;
    assert_eq!(stored(&app).await, ["product.created done"]);
    let jobs = "SELECT count(*) FROM jobs WHERE kind = 'stripe_event'";
    assert_eq!(app.db().number(jobs).await, 1);
    let _ = deliver(&app, &body).await.expect(200);
    assert_eq!(app.db().number(jobs).await, 1);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_has_a_bound_of_its_own() {
    let (app, _stripe) = plane().await;
    let of_size =
        |id: &str, size: usize| event(id, "product.created", &json!({ "text": "x".repeat(size) }));
    let _ = deliver(&app, &of_size("evt_1", 300 * 1024))
        .await
        .expect(200);
    deliver(&app, &of_size("evt_2", 512 * 1024))
        .await
        .expect_error(413, "PAYLOAD_TOO_LARGE");
    app.jobs_end().await;
    assert_eq!(stored(&app).await, ["product.created done"]);
    app.finish(&[]).await;
}

#[rstest]
#[case("")]
#[case("no JSON")]
#[case("[]")]
#[case(r#"{"type":"product.created"}"#)]
#[case(r#"{"id":"evt_1"}"#)]
#[case(r#"{"id":"../evt_1","type":"product.created"}"#)]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_signed_and_no_event_is_refused(#[case] body: &str) {
    let (app, _stripe) = plane().await;
    deliver(&app, body).await.expect_error(400, "INVALID_INPUT");
    assert!(stored(&app).await.is_empty());
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_postgres_stripe_is_told_to_come_again() {
    let (app, _stripe) = plane().await;
    app.wait_hearing(0, true).await;
    let body = body();
    let away = app.db().take_away().await;
    deliver(&app, &body)
        .await
        .expect_error(503, "SERVICE_UNAVAILABLE");
    away.bring_back().await;
    wait_until("it is taken", SOON, async || {
        deliver(&app, &body).await.status == 200
    })
    .await;
    app.jobs_end().await;
    assert_eq!(stored(&app).await, ["product.created done"]);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_payments_there_is_no_webhook() {
    let app = TestApp::start().await;
    deliver(&app, &body())
        .await
        .expect_error(503, "PAYMENTS_NOT_CONFIGURED");
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_forges_again_and_again_is_banned_and_others_are_not() {
    let redis = TestRedis::start().await;
    let app = app(
        &redis,
        1,
        &[
            ("SUSPICIOUS_ACTIVITY_THRESHOLD", "5"),
            ("STRIPE_SECRET_KEY", "sk_test_of_the_tests"),
            ("STRIPE_WEBHOOK_SECRET", SECRET),
        ],
    )
    .await;
    let client = app.client();
    let body = body();
    let from = async |address: &str, signature: &str| {
        let request = client
            .request(Method::POST, PATH)
            .header("X-Forwarded-For", address)
            .header("stripe-signature", signature)
            .body(body.clone());
        client.send(request).await
    };
    let forged = signature("whsec_of_nobody", 0, &body);
    wait_until("the forger is banned", SOON, async || {
        from("203.0.113.7", &forged).await.status == 403
    })
    .await;
    let good = signature(SECRET, 0, &body);
    from("203.0.113.7", &good)
        .await
        .expect_error(403, "ADDRESS_BANNED");
    let _ = from("198.51.100.1", &good).await.expect(200);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_webhook_has_a_budget_of_its_own() {
    let redis = TestRedis::start().await;
    let stripe = Scripted::start();
    let app = app(
        &redis,
        1,
        &[
            ("RATE_LIMIT_PAYMENTS", "1/1h"),
            ("RATE_LIMIT_DEFAULT", "1/1h"),
            ("IP_RATE_LIMIT", "1"),
            ("GLOBAL_RATE_LIMIT", "1"),
            ("RATE_LIMIT_WEBHOOK", "20/1h"),
            ("STRIPE_SECRET_KEY", "sk_test_of_the_tests"),
            ("STRIPE_WEBHOOK_SECRET", SECRET),
            ("STRIPE_API_BASE", stripe.url()),
        ],
    )
    .await;
    let client = app.client();
    let body = body();
    let good = signature(SECRET, 0, &body);
    let from_stripe = async || {
        let request = client
            .request(Method::POST, PATH)
            .header("X-Forwarded-For", "198.51.100.1")
            .header("stripe-signature", &good)
            .body(body.clone());
        client.send(request).await
    };
    for left in (0..20).rev() {
        let reply = from_stripe().await.expect(200);
        assert_eq!(number(&reply, "x-ratelimit-remaining"), left);
    }
    from_stripe().await.expect_error(429, "RATE_LIMITED");
    app.finish(&[]).await;
}
