//! OAuth with a client library that we did not write, and what it would never send.

mod page;
mod phone;

use futures_util::future::join_all;
use oauth2::basic::BasicTokenResponse;
use oauth2::{
    AuthorizationCode, CsrfToken, PkceCodeChallenge, PkceCodeVerifier, RefreshToken, Scope,
    StandardRevocableToken, TokenResponse,
};
use reqwest::{Method, Url};
use rstest::rstest;
use serde_json::{Value, json};
use tests::TestApp;
use tests::api::{PASSWORD, Reply};
use uuid::Uuid;

use self::phone::{
    CALLBACK, CHALLENGE, CLIENT, ISSUER, Phone, authorize_url, changed, hidden_fields, query_of,
    register, unescaped,
};
use crate::mfa::{Authenticator, EMAIL};

/// Insists on a refusal in OAuth's own form.
#[track_caller]
fn refused(reply: &Reply, status: u16, error: &str) {
    assert_eq!(reply.status.as_u16(), status, "{}", reply.text());
    let body: Value = reply.json();
    assert_eq!(body["error"], error, "{body}");
    assert!(body["error_description"].is_string(), "{body}");
    assert_eq!(reply.header("cache-control"), Some("no-store"));
}

async fn me(app: &TestApp, token: &str) -> Reply {
    let client = app.client().with_token(Uuid::nil().into(), token);
    client.get("/api/v1/users/me").await
}

async fn log_in_with_library(phone: &Phone, redirect_uri: &str, otp: &str) -> BasicTokenResponse {
    let library = phone.library(redirect_uri).await;
    let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
    let (url, state) = library
        .authorize_url(CsrfToken::new_random)
        .add_scope(Scope::new("profile".to_owned()))
        .set_pkce_challenge(challenge)
        .url();
    let redirect = phone.log_in(url.as_str(), PASSWORD, otp).await;
    let location = redirect.header("location").expect("a location");
    assert!(
        location.starts_with(&format!("{redirect_uri}?code=")),
        "{location}"
    );
    assert_eq!(query_of(&redirect, "state").as_ref(), Some(state.secret()));
    assert_eq!(query_of(&redirect, "iss").as_deref(), Some(ISSUER));
    let code = query_of(&redirect, "code").expect("a code");
    library
        .exchange_code(AuthorizationCode::new(code))
        .set_pkce_verifier(verifier)
        .request_async(&|request| phone.call(request))
        .await
        .expect("tokens")
}

#[rstest]
#[case::private_scheme(CALLBACK)]
#[case::loopback("http://127.0.0.1:4711/callback")]
#[tokio::test(flavor = "multi_thread")]
async fn a_library_logs_in_refreshes_and_revokes(#[case] redirect_uri: &str) {
    let (app, phone) = Phone::with_plane().await;
    let _ = app.client().sign_up(EMAIL).await;
    let tokens = log_in_with_library(&phone, redirect_uri, "").await;
    assert_eq!(
        tokens.expires_in().map(|life| life.as_secs()),
        Some(30 * 60)
    );
    let _ = me(&app, tokens.access_token().secret()).await.expect(200);

    let library = phone.library(redirect_uri).await;
    let send = |request| phone.call(request);
    let first = tokens.refresh_token().expect("a refresh token");
    let refresh = async |token: &RefreshToken| {
        library
            .exchange_refresh_token(token)
            .request_async(&send)
            .await
    };
    let next = refresh(first).await.expect("new tokens");
    let second = next.refresh_token().expect("a refresh token");
    assert_ne!(first.secret(), second.secret());
    let _ = me(&app, next.access_token().secret()).await.expect(200);

    let revoke = |token: StandardRevocableToken| {
        let request = library.revoke_token(token).expect("a secure URL");
        async move { request.request_async(&send).await }
    };
    revoke(second.clone().into()).await.expect("it is revoked");
    let after = me(&app, next.access_token().secret()).await;
    after.expect_error(401, "UNAUTHORIZED");
    assert!(refresh(second).await.is_err());
    revoke(second.clone().into())
        .await
        .expect("once more does no harm");
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reused_refresh_token_ends_its_session() {
    let (app, phone) = Phone::with_plane().await;
    let _ = app.client().sign_up(EMAIL).await;
    let tokens = log_in_with_library(&phone, CALLBACK, "").await;
    let token = tokens.refresh_token().expect("a refresh token").secret();
    let fields = [
        ("grant_type", "refresh_token"),
        ("client_id", CLIENT),
        ("refresh_token", token),
    ];
    register(&app, "other", &["https://other.example.org/"]).await;
    let foreign = phone
        .form("/oauth/token", &changed(&fields, &[("client_id", "other")]))
        .await;
    refused(&foreign, 400, "invalid_grant");
    let next = phone.form("/oauth/token", &fields).await.expect(200).json();
    let again = phone.form("/oauth/token", &fields).await;
    refused(&again, 400, "invalid_grant");
    let access = next["access_token"].as_str().expect("a token");
    me(&app, access).await.expect_error(401, "UNAUTHORIZED");
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_token_can_be_revoked_and_unknown_ones_too() {
    let (app, phone) = Phone::with_plane().await;
    let _ = app.client().sign_up(EMAIL).await;
    let tokens = log_in_with_library(&phone, CALLBACK, "").await;
    let access = tokens.access_token().secret();
    let revoke = async |client: &str, token: &str| {
        phone
            .form("/oauth/revoke", &[("client_id", client), ("token", token)])
            .await
    };
    let _ = revoke(CLIENT, "unknown").await.expect(200);
    refused(&revoke("nobody", access).await, 401, "invalid_client");
    refused(&revoke(CLIENT, "").await, 400, "invalid_request");
    let _ = me(&app, access).await.expect(200);
    let _ = revoke(CLIENT, access).await.expect(200);
    me(&app, access).await.expect_error(401, "UNAUTHORIZED");
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_acts_without_its_persons_role() {
    let (app, phone) = Phone::with_plane().await;
    let _ = app.client().sign_up(EMAIL).await;
    app.db()
        .execute("UPDATE users SET role = 'superuser'")
        .await;
    let tokens = log_in_with_library(&phone, CALLBACK, "").await;
    let other = app.user().await;
    let watched = other
        .metrics(other.user(), tokens.access_token().secret())
        .await;
    assert_eq!(watched.err(), Some(403), "a superuser could watch");
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_with_a_second_factor_needs_it_here_too() {
    let (app, phone) = Phone::with_plane().await;
    let person = app.client().sign_up(EMAIL).await;
    let authenticator = Authenticator::enabled(&person).await;
    let url = authorize_url(&[]);
    for otp in ["", "no code"] {
        let page = phone.log_in(&url, PASSWORD, otp).await.expect(401);
        assert!(page.text().contains("second factor"), "{}", page.text());
        assert!(page.header("location").is_none());
    }
    let tokens = log_in_with_library(&phone, CALLBACK, &authenticator.next_code()).await;
    let _ = me(&app, tokens.access_token().secret()).await.expect(200);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_exchanged_by_who_asked_for_it() {
    let (app, phone) = Phone::with_plane().await;
    register(&app, "other", &[CALLBACK]).await;
    let _ = app.client().sign_up(EMAIL).await;
    let code = phone.code(&[]).await;
    let table = [
        (("code_verifier", ""), 400, "invalid_request"),
        (("code_verifier", "short"), 400, "invalid_request"),
        (("code_verifier", CHALLENGE), 400, "invalid_grant"),
        (
            ("redirect_uri", "http://127.0.0.1/callback"),
            400,
            "invalid_grant",
        ),
        (("redirect_uri", ""), 400, "invalid_request"),
        (("client_id", "other"), 400, "invalid_grant"),
        (("client_id", "nobody"), 401, "invalid_client"),
        (("client_id", ""), 400, "invalid_request"),
        (("code", "\0"), 400, "invalid_grant"),
        (("code", ""), 400, "invalid_request"),
        (("grant_type", ""), 400, "invalid_request"),
        (("grant_type", "password"), 400, "unsupported_grant_type"),
    ];
    for (change, status, error) in table {
        refused(&phone.exchange(&code, &[change]).await, status, error);
    }
    let _ = phone.exchange(&code, &[]).await.expect(200);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_code_ends_what_it_was_exchanged_for() {
    let (app, phone) = Phone::with_plane().await;
    let _ = app.client().sign_up(EMAIL).await;
    let code = phone.code(&[]).await;
    let tokens = phone.exchange(&code, &[]).await.expect(200);
    assert_eq!(tokens.header("cache-control"), Some("no-store"));
    let tokens = tokens.json();
    assert_eq!(tokens["token_type"], "Bearer");
    let access = tokens["access_token"].as_str().expect("a token");
    let _ = me(&app, access).await.expect(200);
    refused(&phone.exchange(&code, &[]).await, 400, "invalid_grant");
    me(&app, access).await.expect_error(401, "UNAUTHORIZED");
    let refresh = [
        ("grant_type", "refresh_token"),
        ("client_id", CLIENT),
        (
            "refresh_token",
            tokens["refresh_token"].as_str().expect("a token"),
        ),
    ];
    refused(
        &phone.form("/oauth/token", &refresh).await,
        400,
        "invalid_grant",
    );
    let replays = "SELECT count(*) FROM audit_log WHERE action = 'oauth.code_reuse'";
    assert_eq!(app.db().number(replays).await, 1);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_thirty_exchanges_of_one_code_at_most_one_succeeds() {
    let (app, phone) = Phone::with_plane().await;
    let _ = app.client().sign_up(EMAIL).await;
    let code = phone.code(&[]).await;
    let replies = join_all((0..30).map(|_| phone.exchange(&code, &[]))).await;
    let (good, bad): (Vec<_>, Vec<_>) = replies.iter().partition(|it| it.status == 200);
    assert_eq!(good.len(), 1);
    for reply in bad {
        refused(reply, 400, "invalid_grant");
    }
    let live = "SELECT count(*) FROM sessions WHERE revoked_at IS NULL AND client_id IS NOT NULL";
    assert_eq!(app.db().number(live).await, 0, "it was copied");
    app.finish(&[]).await;
}

#[rstest]
#[case::expired("UPDATE oauth_codes SET expires_at = now() - interval '1 second'")]
#[case::suspended("UPDATE users SET is_active = false")]
#[tokio::test(flavor = "multi_thread")]
async fn a_code_comes_to_nothing_when(#[case] meanwhile: &str) {
    let (app, phone) = Phone::with_plane().await;
    let _ = app.client().sign_up(EMAIL).await;
    let code = phone.code(&[]).await;
    app.db().execute(meanwhile).await;
    refused(&phone.exchange(&code, &[]).await, 400, "invalid_grant");
    let sessions = "SELECT count(*) FROM sessions WHERE client_id IS NOT NULL";
    assert_eq!(app.db().number(sessions).await, 0);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_voids_the_codes_of_the_old_one() {
    let (app, phone) = Phone::with_plane().await;
    let person = app.client().sign_up(EMAIL).await;
    let code = phone.code(&[]).await;
    let body =
        json!({ "current_password": PASSWORD, "new_password": "a password of another kind" });
    let request = person.request(Method::PATCH, "/api/v1/users/me/password");
    let _ = person.send(request.json(&body)).await.expect(204);
    refused(&phone.exchange(&code, &[]).await, 400, "invalid_grant");
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn codes_and_tokens_are_stored_as_hashes() {
    let (app, phone) = Phone::with_plane().await;
    let _ = app.client().sign_up(EMAIL).await;
    let code = phone.code(&[]).await;
    let stored = app
        .db()
        .texts("SELECT t FROM oauth_codes AS t")
        .await
        .join(" ");
    let hex: String = code.bytes().map(|byte| format!("{byte:02x}")).collect();
    assert!(
        !stored.contains(&code) && !stored.contains(&hex),
        "{stored}"
    );
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_mounts_and_the_documents_are_there() {
    let (app, phone) = Phone::with_plane().await;
    let at_root = authorize_url(&[]);
    let versioned = at_root.replace("/oauth/authorize", "/api/v1/oauth/authorize");
    let (one, two) = (phone.get(&at_root).await, phone.get(&versioned).await);
    assert_eq!(one.expect(200).text(), two.expect(200).text());
    let metadata = phone
        .get(&format!("{ISSUER}/.well-known/oauth-authorization-server"))
        .await;
    let metadata = metadata.expect(200).json();
    assert_eq!(metadata["token_endpoint"], format!("{ISSUER}/oauth/token"));
    for (name, value) in [
        ("code_challenge_methods_supported", "S256"),
        ("token_endpoint_auth_methods_supported", "none"),
        ("response_types_supported", "code"),
    ] {
        assert_eq!(metadata[name], serde_json::json!([value]), "{name}");
    }
    assert_eq!(
        metadata["authorization_response_iss_parameter_supported"],
        true
    );
    let keys = phone.get(&format!("{ISSUER}/.well-known/jwks.json")).await;
    assert_eq!(keys.expect(200).json()["keys"], serde_json::json!([]));
    let json = phone
        .request(Method::POST, &format!("{ISSUER}/oauth/token"))
        .header("content-type", "application/json")
        .body("{}");
    phone
        .send(json)
        .await
        .expect_error(415, "UNSUPPORTED_MEDIA_TYPE");
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verifier_of_the_library_is_held_to_its_challenge() {
    let (app, phone) = Phone::with_plane().await;
    let _ = app.client().sign_up(EMAIL).await;
    let library = phone.library(CALLBACK).await;
    let code = phone.code(&[]).await;
    let foreign =
        PkceCodeVerifier::new("another-verifier-that-is-long-enough-to-be-one".to_owned());
    let refused = library
        .exchange_code(AuthorizationCode::new(code))
        .set_pkce_verifier(foreign)
        .request_async(&|request| phone.call(request))
        .await;
    let oauth2::RequestTokenError::ServerResponse(error) = refused.expect_err("it is refused")
    else {
        panic!("the library reads the refusal");
    };
    assert_eq!(
        error.error(),
        &oauth2::basic::BasicErrorResponseType::InvalidGrant
    );
    app.finish(&[]).await;
}
