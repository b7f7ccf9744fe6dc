//! What can go wrong between the choice of a server and its acknowledgement.

use std::time::Duration;

use serde_json::json;
use shared::ids::ConnectionId;
use shared::protocol::FailureReason;
use tests::sim::Answer;
use tests::{SimNode, TestApp, wait_until};
use uuid::Uuid;

use crate::SOON;

/// Two nodes of which the first is always the first choice, and a short patience.
async fn first_and_second() -> (TestApp, SimNode, SimNode) {
    let app = TestApp::with(|vars| {
        vars.insert("CONNECT_ACK_TIMEOUT_MS".to_owned(), "300".to_owned());
    })
    .await;
    let (first, second) = (app.node("first").await, app.node("second").await);
    app.set_load(&first, 1.0).await;
    app.set_load(&second, 50.0).await;
    (app, first, second)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_node_there_is_no_server() {
    let app = TestApp::start().await;
    let user = app.user().await;
    user.connect(&json!({}))
        .await
        .expect_error(503, "NO_SERVER_AVAILABLE");
    let unknown = json!({ "server_id": Uuid::now_v7() });
    user.connect(&unknown)
        .await
        .expect_error(404, "SERVER_NOT_FOUND");
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_node_is_no_candidate() {
    let app = TestApp::start().await;
    let mut config = app.config("small");
    config.capacity = 2;
    let node = app.node_with(config).await;
    let user = app.user().await;
    for _ in 0..2 {
        user.connected(&json!({})).await;
    }
    user.connect(&json!({}))
        .await
        .expect_error(503, "NO_SERVER_AVAILABLE");
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_refuses_is_passed_over() {
    let (app, first, second) = first_and_second().await;
    let user = app.user().await;
    for reason in [
        FailureReason::PoolExhausted,
        FailureReason::Interface,
        FailureReason::Draining,
    ] {
        first.set_answer(Answer::Fail(reason));
        let tunnel = user.connected(&json!({})).await;
        assert_eq!(tunnel.server.id, second.server(), "{reason:?}");
        user.disconnected(tunnel.connection_id).await;
    }
    assert_eq!(first.peer_count(), 0);
    app.finish(&[&first, &second]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_never_answers_is_passed_over_and_forgets() {
    let (app, first, second) = first_and_second().await;
    let user = app.user_on("free").await;
    first.set_answer(Answer::Never);
    let tunnel = user.connected(&json!({})).await;
    assert_eq!(tunnel.server.id, second.server());
    first.set_answer(Answer::Promptly);
    first.hang_up().await;
    wait_until("the silent node's peer goes", SOON, async || {
        first.peer_count() == 0
    })
    .await;
    app.finish(&[&first, &second]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_no_node_answers_nothing_is_left() {
    let (app, first, second) = first_and_second().await;
    let user = app.user_on("free").await;
    first.set_answer(Answer::Never);
    second.set_answer(Answer::Never);
    user.connect(&json!({}))
        .await
        .expect_error(503, "NO_SERVER_AVAILABLE");
    let live = "SELECT count(*) FROM connections WHERE status IN ('connecting', 'connected')";
    assert_eq!(app.db().number(live).await, 0);
    for node in [&first, &second] {
        node.set_answer(Answer::Promptly);
        node.hang_up().await;
    }
    wait_until("both nodes forget", SOON, async || {
        first.peer_count() + second.peer_count() == 0
    })
    .await;
    // The place in the plan is free again.
    user.connected(&json!({})).await;
    app.finish(&[&first, &second]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_acknowledgement_resurrects_nothing() {
    let (app, first, second) = first_and_second().await;
    let user = app.user_on("free").await;
    first.set_answer(Answer::After(Duration::from_millis(800)));
    let tunnel = user.connected(&json!({})).await;
    assert_eq!(tunnel.server.id, second.server());
    wait_until("the late node has said both", SOON, async || {
        let open =
            "SELECT count(*) FROM connections WHERE status IN ('connecting', 'disconnecting')";
        app.db().number(open).await == 0
    })
    .await;
    let live = "SELECT id FROM connections WHERE status = 'connected'";
    assert_eq!(
        app.db().texts(live).await,
        [tunnel.connection_id.to_string()]
    );
    first.set_answer(Answer::Promptly);
    app.finish(&[&first, &second]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_gone_after_the_choice_is_passed_over() {
    let (app, mut first, second) = first_and_second().await;
    let user = app.user().await;
    // The socket stays open: the plane cannot know yet.
    first.freeze().await;
    let tunnel = user.connected(&json!({})).await;
    assert_eq!(tunnel.server.id, second.server());

    first.stop().await;
    let tunnel = user.connected(&json!({})).await;
    assert_eq!(tunnel.server.id, second.server());
    first.start();
    first.wait_online().await;
    app.finish(&[&first, &second]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_lost_between_push_and_answer_is_made_good() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let user = app.user().await;
    node.set_answer(Answer::HangUpOnce);
    // It dials again within milliseconds and is asked once more, well within the patience.
    let tunnel = user.connected(&json!({})).await;
    assert_eq!(node.connections(), [tunnel.connection_id]);
    assert_eq!(node.operations(), 1, "the repeated push programs nothing");
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_leaves_nothing_half() {
    let (app, first, second) = first_and_second().await;
    let user = app.user_on("free").await;
    first.set_answer(Answer::Never);
    second.set_answer(Answer::Never);
    let body = json!({});
    let gone = tokio::time::timeout(Duration::from_millis(100), user.connect(&body)).await;
    assert!(gone.is_err(), "the client went before the answer");
    for node in [&first, &second] {
        node.set_answer(Answer::Promptly);
        node.hang_up().await;
    }
    app.finish(&[&first, &second]).await;
}

/// What a crash of the database may do to an acknowledgement, after which the node was asked again
/// without an answer, the last time `ago`.
async fn take_back(app: &TestApp, connection: ConnectionId, ago: &str) {
    app.db()
        .execute(&format!(
            "WITH asked AS (
                UPDATE nodes n SET desired_revision = n.desired_revision + 1
                  FROM connections c WHERE c.id = '{connection}' AND n.server_id = c.server_id
             RETURNING n.server_id, n.desired_revision
             )
             UPDATE connections c
                SET status = 'connecting', client_ip = NULL, client_ipv6 = NULL, connected_at = NULL,
                    revision = asked.desired_revision, updated_at = now() - interval '{ago}'
               FROM asked WHERE c.id = '{connection}'"
        ))
        .await;
}

async fn wait_for(app: &TestApp, connection: ConnectionId, state: &str, patience: Duration) {
    let sql = format!(
        "SELECT status || coalesce(': ' || end_reason, '') FROM connections WHERE id = '{connection}'"
    );
    wait_until(
        &format!("the connection is {state}"),
        patience,
        async || app.db().texts(&sql).await == [state],
    )
    .await;
}

/// Makes another user's connection expire: once it has ended, cleanup has judged every connection.
async fn wait_cleaned(app: &TestApp, on: &SimNode) {
    let witness = app
        .user()
        .await
        .connected(&json!({ "server_id": on.server() }))
        .await
        .connection_id;
    let expire = format!(
        "UPDATE connections SET expires_at = now() - interval '1 second' WHERE id = '{witness}'"
    );
    app.db().execute(&expire).await;
    wait_for(app, witness, "disconnected: expired", SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_that_was_lost_waits_for_its_node() {
    let (app, mut first, second) = first_and_second().await;
    let user = app.user_on("free").await;
    let tunnel = user.connected(&json!({})).await;
    let connection = tunnel.connection_id;

    first.stop().await;
    take_back(&app, connection, "10 minutes").await;
    wait_cleaned(&app, &second).await;
    wait_for(&app, connection, "connecting", Duration::ZERO).await;
    first.start();
    wait_for(&app, connection, "connected", SOON).await;
    let address = format!("SELECT host(client_ip) FROM connections WHERE id = '{connection}'");
    assert_eq!(
        app.db().texts(&address).await,
        [tunnel.assigned_ip.to_string()]
    );

    // What was used is never given up unheard; what was not, is after the time of an idle one.
    first.stop().await;
    take_back(&app, connection, "1 day").await;
    let used =
        format!("UPDATE connections SET last_handshake_at = now() WHERE id = '{connection}'");
    app.db().execute(&used).await;
    wait_cleaned(&app, &second).await;
    wait_for(&app, connection, "connecting", Duration::ZERO).await;
    let unused =
        format!("UPDATE connections SET last_handshake_at = NULL WHERE id = '{connection}'");
    app.db().execute(&unused).await;
    wait_for(&app, connection, "disconnecting: no_answer", SOON).await;
    first.start();
    first.wait_online().await;
    app.finish(&[&first, &second]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_there_and_says_nothing_is_given_up() {
    let (app, first, second) = first_and_second().await;
    let user = app.user_on("free").await;
    let connection = user.connected(&json!({})).await.connection_id;
    first.set_answer(Answer::Never);
    take_back(&app, connection, "1 minute").await;
    wait_for(
        &app,
        connection,
        "disconnecting: no_answer",
        Duration::from_secs(40),
    )
    .await;
    first.set_answer(Answer::Promptly);
    first.hang_up().await;
    app.finish(&[&first, &second]).await;
}
