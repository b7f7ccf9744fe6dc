//! Registering, logging in, and what a person sees of their account.

use reqwest::Method;
use serde_json::{Value, json};
use tests::TestApp;
use tests::api::PASSWORD;

#[tokio::test(flavor = "multi_thread")]
async fn a_person_registers_logs_in_and_sees_their_account() {
    let app = TestApp::start().await;
    let body = json!({ "email": "Ada@Example.org", "password": PASSWORD, "full_name": "Ada L." });
    let anonymous = app.client();
    let created = anonymous.post("/api/v1/auth/register", &body).await;
    let created = created.expect(201).json();
    assert!(created["id"].is_string(), "{created}");
    assert!(created.get("hashed_password").is_none() && created.get("password").is_none());

    let answer = anonymous.login("ada@example.org", PASSWORD).await;
    let answer = answer.expect(200).json();
    assert_eq!(answer["token_type"], "bearer");
    assert_eq!(answer["expires_in"], 30 * 60);
    assert_eq!(answer["user"]["id"], created["id"]);
    assert!(answer["user"].get("subscription_expiry").is_some());

    let id = created["id"].as_str().expect("an id").parse();
    let token = answer["access_token"].as_str().expect("a token");
    let person = anonymous.with_token(id.expect("a UUID"), token);
    let me = person.get("/api/v1/users/me").await.expect(200).json();
    assert_eq!(me["full_name"], "Ada L.");
    assert_eq!(me["is_active"], true);
    assert_eq!(me["is_superuser"], false);
    assert_eq!(me["is_verified"], false);
    assert_eq!(me["subscription"]["plan"], "free");
    assert_eq!(me["subscription"]["plan_type"], "free");
    assert_eq!(me["subscription"]["status"], "active");
    assert!(me["created_at"].is_string());
    assert_eq!(me["devices"], json!([]));
    let alias = person.get("/users/me").await.expect(200).json();
    assert_eq!(alias, me, "the seed's route is the same handler");
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_taken_in_any_case() {
    let app = TestApp::start().await;
    let _ = app.client().register("ada@example.org").await.expect(201);
    let again = app.client().register("ADA@example.ORG").await;
    again.expect_error(400, "EMAIL_TAKEN");
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_registrations_at_once_make_one_account() {
    let app = TestApp::start().await;
    let (a, b) = (app.client(), app.client());
    let (a, b) = tokio::join!(a.register("ada@example.org"), b.register("ada@example.org"));
    let mut statuses = [a.status.as_u16(), b.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 400]);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_registrations_name_the_field() {
    let app = TestApp::start().await;
    let with = |email: &str, password: &str| json!({ "email": email, "password": password });
    let address = "a@example.org";
    let table: [(Value, &[&str]); 11] = [
        (json!({}), &["email", "password"]),
        (json!({ "email": address }), &["password"]),
        (json!({ "password": PASSWORD }), &["email"]),
        (with("example.org", PASSWORD), &["email"]),
        (with("a@b@example.org", PASSWORD), &["email"]),
        (with("", PASSWORD), &["email"]),
        (
            with(&format!("{}@example.org", "a".repeat(260)), PASSWORD),
            &["email"],
        ),
        (with(address, "short"), &["password"]),
        (with(address, &"x".repeat(5000)), &["password"]),
        (
            json!({ "email": address, "password": 12_345_678 }),
            &["password"],
        ),
        (
            json!({ "email": address, "password": PASSWORD, "full_name": "x".repeat(300) }),
            &["full_name"],
        ),
    ];
    for (body, fields) in table {
        let reply = app.client().post("/api/v1/auth/register", &body).await;
        let named = reply.expect_error(400, "INVALID_INPUT");
        // What cannot be read at all is the body's fault.
        let expected = |field: &String| fields.contains(&field.as_str()) || field == "body";
        assert!(
            !named.is_empty() && named.iter().all(expected),
            "{named:?} for {body}"
        );
    }
    assert_eq!(app.db().number("SELECT count(*) FROM users").await, 0);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn login_takes_the_password_form() {
    let app = TestApp::start().await;
    let _ = app.client().register("ada@example.org").await.expect(201);
    let client = app.client();
    let form = |password: &str| {
        let password = password.replace(' ', "+");
        client
            .request(Method::POST, "/api/v1/auth/login")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!(
                "grant_type=password&username=ada%40example.org&password={password}"
            ))
    };
    let answer = client.send(form(PASSWORD)).await.expect(200).json();
    assert!(answer["access_token"].is_string());
    let refused = client.send(form("not it at all")).await;
    refused.expect_error(401, "INVALID_CREDENTIALS");
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_and_an_unknown_address_look_alike() {
    let app = TestApp::start().await;
    let _ = app.client().register("ada@example.org").await.expect(201);
    let mut bodies = Vec::new();
    for address in ["ada@example.org", "nobody@example.org"] {
        let reply = app.client().login(address, "not the password").await;
        reply.expect_error(401, "INVALID_CREDENTIALS");
        let mut body = reply.json();
        body["error"]["request_id"] = Value::Null;
        bodies.push(body);
    }
    assert_eq!(bodies[0], bodies[1]);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_person_is_kept_out() {
    let app = TestApp::start().await;
    let person = app.client().sign_up("ada@example.org").await;
    app.db().execute("UPDATE users SET is_active = false").await;
    let login = app.client().login("ada@example.org", PASSWORD).await;
    login.expect_error(403, "ACCOUNT_SUSPENDED");
    let me = person.get("/api/v1/users/me").await;
    assert!(me.status.is_client_error(), "{}", me.text());
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_no_account() {
    let app = TestApp::start().await;
    let client = app.client();
    let me = || client.request(Method::GET, "/api/v1/users/me");
    client.send(me()).await.expect_error(401, "UNAUTHORIZED");
    // The last one says `"alg":"none"`.
    for header in [
        "",
        "Bearer",
        "Bearer ",
        "Bearer garbage",
        "Basic YTpi",
        UNSIGNED,
    ] {
        let reply = client.send(me().header("authorization", header)).await;
        reply.expect_error(401, "UNAUTHORIZED");
    }
    app.finish(&[]).await;
}

const UNSIGNED: &str = "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiIwMTkwYTBjOC0wMDAwLTcwMDAtODAwMC0wMDAwMDAwMDAwMDAiLCJleHAiOjk5OTk5OTk5OTl9.";

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_another_secret_or_of_the_past_is_refused() {
    let app = TestApp::start().await;
    let user = app.user().await;
    let elsewhere = TestApp::with(|vars| {
        vars.insert(
            "JWT_SECRET_KEY".to_owned(),
            "another-secret-of-enough-length-1234".to_owned(),
        );
    })
    .await;
    let foreign = user.at(elsewhere.url());
    foreign
        .get("/api/v1/users/me")
        .await
        .expect_error(401, "UNAUTHORIZED");

    let expired = app
        .client()
        .with_token(user.user(), &app.expired_token(user.user()));
    expired
        .get("/api/v1/users/me")
        .await
        .expect_error(401, "TOKEN_EXPIRED");
    app.finish(&[]).await;
}
