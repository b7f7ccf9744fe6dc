//! An ended session's access token: refused everywhere within a second, with Redis and without.

use tests::TestApp;
use tests::redis::TestRedis;

use crate::sessions::{is_in, log_out, wait_out};

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_session_is_over_on_every_replica_within_a_second() {
    let app = TestApp::replicas(2).await;
    app.wait_hearing(0, true).await;
    app.wait_hearing(1, true).await;
    for _ in 0..5 {
        let here = app.user().await;
        let there = here.at(app.url_of(1));
        assert!(is_in(&there).await);
        log_out(&here).await.expect(204);
        wait_out(&there).await;
    }
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_an_ended_session_is_over_at_once() {
    let mut redis = TestRedis::start().await;
    let url = redis.url();
    let app = TestApp::replicas_with(2, |vars| {
        vars.insert("REDIS_URL".to_owned(), url.clone());
    })
    .await;
    app.wait_hearing(0, true).await;
    app.wait_hearing(1, true).await;
    redis.kill();
    let here = app.user().await;
    let there = here.at(app.url_of(1));
    assert!(is_in(&there).await);
    log_out(&here).await.expect(204);
    assert!(!is_in(&here).await);
    wait_out(&there).await;
    app.wait_hearing(1, false).await;

    let here = app.user().await;
    log_out(&here).await.expect(204);
    assert!(!is_in(&here.at(app.url_of(1))).await, "Postgres is asked");
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_before_a_replica_listened_is_known_to_it() {
    let mut redis = TestRedis::start().await;
    let (url, port) = (redis.url(), redis.port());
    let with_redis = |vars: &mut control_plane::config::Variables| {
        vars.insert("REDIS_URL".to_owned(), url.clone());
    };
    let mut app = TestApp::replicas_with(1, with_redis).await;
    app.wait_hearing(0, true).await;
    let early = app.user().await;
    log_out(&early).await.expect(204);
    redis.kill();
    app.wait_hearing(0, false).await;
    let meanwhile = app.user().await;
    // As another replica would, whose word did not get through.
    app.db()
        .execute(&format!(
            "UPDATE sessions SET revoked_at = now(), revoke_reason = 'ended'
              WHERE user_id = '{}'",
            meanwhile.user()
        ))
        .await;
    let _redis = TestRedis::start_at(port).await;
    app.wait_hearing(0, true).await;
    assert!(!is_in(&meanwhile).await, "read again when Redis was back");

    app.start_replica().await;
    app.wait_hearing(1, true).await;
    for ended in [&early, &meanwhile] {
        assert!(!is_in(&ended.at(app.url_of(1))).await, "read at the start");
    }
    app.finish(&[]).await;
}
