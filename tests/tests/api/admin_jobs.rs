//! Jobs as operators see them, and have them tried again.

use serde_json::{Value, json};
use tests::api::{Client, Reply};
use tests::mail::MailServer;
use tests::redis::free_port;
use tests::{TestApp, wait_until};
use uuid::Uuid;

use crate::SOON;

const JOBS: &str = "/api/v1/admin/jobs";

async fn list(client: &Client, query: &str) -> Value {
    client
        .get(&format!("{JOBS}{query}"))
        .await
        .expect(200)
        .json()
}

async fn retry(client: &Client, id: &str) -> Reply {
    client.post(&format!("{JOBS}/{id}/retry"), &json!({})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_failed_is_seen_and_done_after_all() {
    let port = free_port();
    let app = TestApp::with(|vars| {
        vars.insert("SMTP_HOST".to_owned(), "127.0.0.1".to_owned());
        vars.insert("SMTP_PORT".to_owned(), port.to_string());
        vars.insert("SMTP_SECURITY".to_owned(), "none".to_owned());
    })
    .await;
    let (support, admin) = (
        app.user_with_role("support").await,
        app.user_with_role("admin").await,
    );
    let _ = app.client().register("ada@example.org").await.expect(201);
    let mail = "SELECT count(*) FROM jobs WHERE kind = 'mail'";
    assert!(app.db().number(mail).await >= 1);
    wait_until("they are given up", SOON, async || {
        let last = "UPDATE jobs SET attempts = 19, run_at = now() WHERE status = 'waiting' AND attempts < 19";
        app.db().execute(last).await;
        let waiting = "SELECT count(*) FROM jobs WHERE status = 'waiting'";
        app.db().number(waiting).await == 0
    })
    .await;

    let failed = list(&support, "?status=failed&kind=mail&per_page=1").await;
    let total = failed["meta"]["total"].as_u64().expect("a number");
    assert!(total >= 1, "{failed}");
    let job = failed["data"][0].clone();
    assert_eq!(
        (&job["kind"], &job["status"]),
        (&json!("mail"), &json!("failed"))
    );
    assert_eq!(job["attempts"], 20);
    let reason = "the mail server is not reached: connection refused";
    assert_eq!(job["last_error"], reason);
    assert!(
        job.get("sealed").is_none() && !job.to_string().contains('@'),
        "{job}"
    );
    let id = job["id"].as_str().expect("an id");

    let refused = retry(&support, id).await;
    refused.expect_error(403, "FORBIDDEN");
    let server = MailServer::start_at(port).await;
    let again = retry(&admin, id).await.expect(200).json();
    assert_eq!(
        (&again["status"], &again["attempts"]),
        (&json!("waiting"), &json!(0))
    );
    assert!(again["ended_at"].is_null());
    wait_until("it is done", SOON, async || {
        let done = format!(
            "SELECT count(*) FROM jobs WHERE id = '{id}' AND status = 'done' AND sealed = ''"
        );
        app.db().number(&done).await == 1
    })
    .await;
    let arrived = "SELECT count(*) FROM jobs WHERE status = 'done' AND kind = 'mail'";
    assert_eq!(app.db().number(arrived).await, 1);
    drop(server);
    let audited = "SELECT actor || ' ' || subject || ' ' || (before ->> 'status') || ' ' || (after ->> 'status')
        FROM audit_log WHERE action = 'job.retry'";
    let expected = format!("{} {id} failed waiting", admin.user());
    assert_eq!(app.db().texts(audited).await, [expected]);
    let _ = app.take_failed_jobs().await;
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_failed_is_tried_again() {
    let app = TestApp::start().await;
    let admin = app.user_with_role("admin").await;
    let [waiting, done, erased] = [(); 3].map(|()| Uuid::now_v7().to_string());
    app.db()
        .execute(&format!(
            "INSERT INTO jobs (id, kind, sealed, status, ended_at) VALUES
             ('{waiting}', 'of_a_test', 'x', 'waiting', NULL),
             ('{done}', 'of_a_test', '', 'done', now()),
             ('{erased}', 'of_a_test', '', 'failed', now())"
        ))
        .await;
    for id in [&waiting, &done, &erased] {
        retry(&admin, id).await.expect_error(409, "CONFLICT");
    }
    let unknown = Uuid::now_v7().to_string();
    retry(&admin, &unknown)
        .await
        .expect_error(404, "JOB_NOT_FOUND");
    let all = list(&admin, "?kind=of_a_test").await;
    assert_eq!(all["meta"]["total"], 3);
    let one = list(&admin, "?kind=of_a_test&status=waiting").await;
    assert_eq!(one["data"][0]["id"], waiting);
    assert_eq!(list(&admin, "?kind=of_nobody").await["meta"]["total"], 0);
    for wrong in ["?status=lost", "?kind=a%00b", "?per_page=0"] {
        let reply = admin.get(&format!("{JOBS}{wrong}")).await;
        reply.expect_error(400, "INVALID_INPUT");
    }
    let audited = "SELECT count(*) FROM audit_log WHERE action = 'job.retry'";
    assert_eq!(app.db().number(audited).await, 0);
    app.db()
        .execute("DELETE FROM jobs WHERE kind = 'of_a_test'")
        .await;
    app.finish(&[]).await;
}
