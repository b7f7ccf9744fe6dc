//! How a node gets its identity, and how it does not.

use shared::protocol::NodeToken;
use tests::sim::{EnrolmentRefused, SimConfig};
use tests::{SimNode, TestApp, wait_until};

use crate::SOON;

async fn enrol(app: &TestApp, token: &str, hostname: &str) -> Result<SimNode, EnrolmentRefused> {
    SimNode::enrol_only(app.url(), token, SimConfig::named(hostname)).await
}

async fn refused(app: &TestApp, token: &str, hostname: &str) {
    let refused = enrol(app, token, hostname)
        .await
        .expect_err("it is refused");
    assert!(
        matches!(refused.status.as_u16(), 400 | 401 | 403 | 409),
        "{} {}",
        refused.status,
        refused.body
    );
    assert!(
        refused.body["error"]["code"].is_string(),
        "{}",
        refused.body
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_works_once() {
    let app = TestApp::start().await;
    let token = app.enrolment_token("fra").await;
    let mut node = enrol(&app, &token, "fra")
        .await
        .expect("the first use works");
    refused(&app, &token, "fra").await;
    assert_eq!(app.db().number("SELECT count(*) FROM vpn_servers").await, 1);
    node.start();
    node.wait_online().await;
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_at_once_one_wins() {
    let app = TestApp::start().await;
    let token = app.enrolment_token("fra").await;
    let (a, b) = tokio::join!(enrol(&app, &token, "fra"), enrol(&app, &token, "fra"));
    assert!(a.is_ok() != b.is_ok());
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_bound_to_its_host() {
    let app = TestApp::start().await;
    let token = app.enrolment_token("fra").await;
    refused(&app, &token, "nyc").await;
    // The attempt did not use it up.
    assert!(enrol(&app, &token, "fra").await.is_ok());
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_token_is_refused() {
    let app = TestApp::start().await;
    let token = app.expired_enrolment_token("fra").await;
    refused(&app, &token, "fra").await;
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_another_root_key_is_refused() {
    let app = TestApp::start().await;
    let elsewhere = TestApp::with(|vars| {
        vars.insert("NODE_ROOT_KEY".to_owned(), "ab".repeat(32));
    })
    .await;
    let forged = elsewhere.enrolment_token("fra").await;
    refused(&app, &forged, "fra").await;
    app.finish(&[]).await;
    elsewhere.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_is_refused() {
    let app = TestApp::start().await;
    for token in ["", "garbage", "aGVsbG8="] {
        refused(&app, token, "fra").await;
    }
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_kind_of_token_is_not_another() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    refused(&app, &node.token().token, "fra").await;
    refused(&app, app.user().await.token(), "fra").await;

    let enrolment = NodeToken {
        token: app.enrolment_token("nyc").await,
        ..node.token()
    };
    let mut impostor =
        SimNode::with_identity(app.url(), node.server(), enrolment, SimConfig::named("nyc"));
    impostor.start();
    wait_until("the dial is refused", SOON, async || {
        impostor.session().dial_status == Some(401)
    })
    .await;
    impostor.stop().await;
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_node_gets_no_session() {
    let app = TestApp::start().await;
    let mut node = app.node("fra").await;
    node.stop().await;
    app.db()
        .execute("UPDATE nodes SET token_epoch = token_epoch + 1")
        .await;
    node.start();
    wait_until("the dial is refused", SOON, async || {
        node.session().dial_status == Some(401)
    })
    .await;
    node.stop().await;
    app.finish(&[]).await;
}
