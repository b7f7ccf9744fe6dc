//! Hashes that came from elsewhere: imported, verified, replaced.

use serde_json::json;
use tests::TestApp;
use tests::command::{Said, control_plane};

/// Of "U*U", in the three forms of bcrypt.
const HASH: &str = "05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";

async fn import(app: &TestApp, csv: &str) -> Said {
    control_plane(Some(app.db().url()), &["admin", "import-users", "-"], csv).await
}

async fn hash_of(app: &TestApp, email: &str) -> String {
    let sql = format!("SELECT hashed_password FROM users WHERE email = '{email}'");
    app.db().texts(&sql).await.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_imported_person_logs_in_and_gets_a_hash_of_ours() {
    let app = TestApp::start().await;
    let csv = format!(
        "email,hashed_password,full_name,is_verified,created_at\n\
         Ada@Example.org,$2a${HASH},Ada L.,true,2024-05-01T10:00:00Z\n\
         bob@example.org,$2b${HASH},,,\n\
         eve@example.org,$2y${HASH},,false,2024-05-01 10:00:00\n"
    );
    let said = import(&app, &csv).await.expect();
    assert!(said.starts_with("3 added, 0 skipped"), "{said}");

    for email in ["ada@example.org", "bob@example.org", "eve@example.org"] {
        let wrong = app.client().login(email, "U*u").await;
        wrong.expect_error(401, "INVALID_CREDENTIALS");
        assert!(hash_of(&app, email).await.starts_with("$2"));
        let _ = app.client().login(email, "U*U").await.expect(200);
        let renewed = hash_of(&app, email).await;
        assert!(renewed.starts_with("$argon2id$"), "{renewed}");
        let _ = app.client().login(email, "U*U").await.expect(200);
        assert_eq!(hash_of(&app, email).await, renewed, "once is enough");
    }
    let answer = app.client().login("ada@example.org", "U*U").await.json();
    assert_eq!(
        (&answer["user"]["full_name"], &answer["user"]["is_verified"]),
        (&json!("Ada L."), &json!(true))
    );
    let plans = "SELECT count(*) FROM subscriptions WHERE plan_id = 'free' AND status = 'active'";
    assert_eq!(app.db().number(plans).await, 3);
    let created = "SELECT count(*) FROM users WHERE created_at = '2024-05-01T10:00:00Z'";
    assert_eq!(app.db().number(created).await, 2);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_says_what_it_left_out_and_can_run_again() {
    let app = TestApp::start().await;
    let _ = app.client().register("ada@example.org").await.expect(201);
    let before = hash_of(&app, "ada@example.org").await;
    let csv = format!(
        "hashed_password,email\n\
         $2b${HASH},ADA@example.org\n\
         $2b${HASH},bob@example.org\n\
         not-a-hash,eve@example.org\n\
         $2b${HASH}\n\
         $2b${HASH},nobody\n\
         $2b${HASH},Bob@example.org\n"
    );
    let said = import(&app, &csv).await;
    assert!(!said.success);
    assert!(said.out.starts_with("1 added, 2 skipped"), "{}", said.out);
    assert!(said.out.contains("3 invalid"), "{}", said.out);
    for line in [
        "line 4: hashed_password",
        "line 5: has another number",
        "line 6: email",
    ] {
        assert!(said.err.contains(line), "{}", said.err);
    }
    assert!(
        !said.err.contains("example.org"),
        "no address is told: {}",
        said.err
    );
    assert_eq!(hash_of(&app, "ada@example.org").await, before);
    let again = import(&app, &csv).await;
    assert!(again.out.starts_with("0 added, 3 skipped"), "{}", again.out);
    assert_eq!(app.db().number("SELECT count(*) FROM users").await, 2);
    assert_eq!(
        app.db().number("SELECT count(*) FROM subscriptions").await,
        2
    );
    let rows =
        "SELECT after ->> 'added' FROM audit_log WHERE action = 'account.import' ORDER BY id";
    assert_eq!(app.db().texts(rows).await, ["1", "0"]);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_file_is_stored_in_batches() {
    let app = TestApp::start().await;
    let lines = (0..2_500).map(|number| format!("user{number}@example.org,$2b${HASH}\n"));
    let csv: String = std::iter::once("email,hashed_password\n".to_owned())
        .chain(lines)
        .collect();
    let said = import(&app, &csv).await.expect();
    assert!(said.starts_with("2500 added"), "{said}");
    assert_eq!(
        app.db().number("SELECT count(*) FROM subscriptions").await,
        2_500
    );
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_its_columns_is_refused() {
    let app = TestApp::start().await;
    let said = import(&app, "email,password\nada@example.org,x\n").await;
    assert!(
        !said.success && said.err.contains("hashed_password"),
        "{}",
        said.err
    );
    let path = "/nowhere/people.csv";
    let said = control_plane(Some(app.db().url()), &["admin", "import-users", path], "").await;
    assert!(!said.success && said.err.contains(path), "{}", said.err);
    app.finish(&[]).await;
}
