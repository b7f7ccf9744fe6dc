//! The document covers every route, and no route is open by mistake.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};
use tests::TestApp;
use uuid::Uuid;

/// What answers without an access token, and why it may.
const OPEN: &[(&str, &str)] = &[
    ("GET", "/api/v1/subscriptions/plans"),
    // Its body is signed.
    ("POST", "/api/v1/payments/webhook"),
    ("POST", "/api/v1/auth/register"),
    ("POST", "/api/v1/auth/login"),
    ("POST", "/api/v1/auth/verify-email"),
    ("POST", "/api/v1/auth/resend-verification"),
    ("POST", "/api/v1/auth/password-reset/request"),
    ("POST", "/api/v1/auth/password-reset/confirm"),
    // The refresh token in the body says who asks.
    ("POST", "/api/v1/auth/refresh"),
    // A browser brings a request of an app's, an app brings a code or a token.
    ("GET", "/api/v1/oauth/authorize"),
    ("POST", "/api/v1/oauth/authorize"),
    ("POST", "/api/v1/oauth/token"),
    ("POST", "/api/v1/oauth/revoke"),
    ("GET", "/.well-known/oauth-authorization-server"),
    ("GET", "/.well-known/jwks.json"),
    ("GET", "/api/v1/health"),
    ("GET", "/health"),
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
    ("GET", "/api/v1/health/live"),
    ("GET", "/api/v1/health/ready"),
];

/// The routes of the contract that exist by now.
const CONTRACT: &[(&str, &str)] = &[
    ("GET", "/api/v1/subscriptions/plans"),
    ("GET", "/api/v1/subscriptions/status"),
    ("GET", "/api/v1/admin/plans"),
    ("POST", "/api/v1/admin/plans"),
    ("PUT", "/api/v1/admin/plans/{id}"),
    ("DELETE", "/api/v1/admin/plans/{id}"),
    ("POST", "/api/v1/payments/webhook"),
    ("POST", "/api/v1/payments/create"),
    ("POST", "/api/v1/payments/create-intent"),
    ("POST", "/api/v1/payments/confirm"),
    ("POST", "/api/v1/subscriptions/subscribe"),
    ("PUT", "/api/v1/subscriptions/cancel"),
    ("PUT", "/api/v1/subscriptions/resume"),
    ("GET", "/api/v1/billing/payment-methods"),
    ("PUT", "/api/v1/billing/payment-method"),
    ("DELETE", "/api/v1/billing/payment-methods/{id}"),
    ("POST", "/api/v1/billing/portal"),
    ("POST", "/api/v1/payments/refund"),
    ("GET", "/api/v1/payments/refund/{id}"),
    ("GET", "/api/v1/billing/history"),
    ("GET", "/api/v1/billing/invoices/{id}"),
    ("POST", "/api/v1/auth/register"),
    ("POST", "/api/v1/auth/login"),
    ("POST", "/api/v1/auth/verify-email"),
    ("POST", "/api/v1/auth/resend-verification"),
    ("POST", "/api/v1/auth/password-reset/request"),
    ("POST", "/api/v1/auth/password-reset/confirm"),
    ("POST", "/api/v1/auth/refresh"),
    ("POST", "/api/v1/auth/logout"),
    ("POST", "/api/v1/auth/logout-all"),
    ("GET", "/api/v1/auth/sessions"),
    ("DELETE", "/api/v1/auth/sessions/{id}"),
    ("POST", "/api/v1/auth/mfa/totp/setup"),
    ("POST", "/api/v1/auth/mfa/totp/enable"),
    ("POST", "/api/v1/auth/mfa/totp/disable"),
    ("GET", "/api/v1/oauth/authorize"),
    ("POST", "/api/v1/oauth/token"),
    ("POST", "/api/v1/oauth/revoke"),
    ("GET", "/.well-known/oauth-authorization-server"),
    ("GET", "/.well-known/jwks.json"),
    ("GET", "/api/v1/users/me"),
    ("PUT", "/api/v1/users/me"),
    ("DELETE", "/api/v1/users/me"),
    ("PATCH", "/api/v1/users/me/password"),
    ("GET", "/api/v1/users/me/export"),
    ("GET", "/api/v1/users/me/devices"),
    ("POST", "/api/v1/users/me/devices"),
    ("DELETE", "/api/v1/users/me/devices/{id}"),
    ("GET", "/api/v1/users"),
    ("GET", "/api/v1/users/{id}"),
    ("PUT", "/api/v1/users/{id}/status"),
    ("PUT", "/api/v1/users/{id}/role"),
    ("GET", "/api/v1/admin/audit"),
    ("GET", "/api/v1/admin/servers"),
    ("POST", "/api/v1/admin/servers"),
    ("GET", "/api/v1/admin/servers/{id}"),
    ("PATCH", "/api/v1/admin/servers/{id}"),
    ("DELETE", "/api/v1/admin/servers/{id}"),
    ("PUT", "/api/v1/admin/servers/{id}/status"),
    ("PUT", "/api/v1/admin/servers/{id}/drain"),
    ("DELETE", "/api/v1/admin/servers/{id}/drain"),
    ("PUT", "/api/v1/admin/servers/{id}/key-rotation"),
    ("DELETE", "/api/v1/admin/servers/{id}/key-rotation"),
    ("POST", "/api/v1/admin/servers/{id}/revoke"),
    ("GET", "/api/v1/admin/nodes/enrolment-tokens"),
    ("POST", "/api/v1/admin/nodes/enrolment-tokens"),
    ("DELETE", "/api/v1/admin/nodes/enrolment-tokens/{id}"),
    ("GET", "/api/v1/servers"),
    ("GET", "/api/v1/servers/recommended"),
    ("GET", "/api/v1/servers/{id}"),
    ("POST", "/api/v1/vpn/connect"),
    ("POST", "/api/v1/connection/connect"),
    ("POST", "/api/v1/vpn/disconnect"),
    ("POST", "/api/v1/vpn/disconnect/{id}"),
    ("POST", "/api/v1/connection/disconnect"),
    ("GET", "/api/v1/connection/status"),
    ("GET", "/api/v1/connection/statistics"),
    ("GET", "/api/v1/connection/{id}/config"),
    ("GET", "/api/v1/connection/{id}/config.conf"),
    ("GET", "/api/v1/connection/{id}/qr.svg"),
    ("GET", "/api/v1/connection/{id}/qr.png"),
    ("GET", "/api/v1/ws/connection/{id}"),
    ("GET", "/api/v1/analytics/usage"),
    ("GET", "/api/v1/analytics/connections"),
    ("GET", "/api/v1/analytics/bandwidth"),
    ("GET", "/api/v1/analytics/servers/status"),
    ("GET", "/api/v1/analytics/servers/load"),
    ("GET", "/api/v1/analytics/servers/usage"),
    ("GET", "/api/v1/analytics/users/top"),
    ("GET", "/api/v1/analytics/plans"),
    ("GET", "/api/v1/connection/events"),
    ("GET", "/api/v1/connection/events/{id}"),
    ("POST", "/api/v1/connection/ticket"),
    ("POST", "/api/v1/connection/ticket/{id}"),
    ("GET", "/api/v1/admin/overview"),
    ("GET", "/api/v1/admin/overview/stream"),
    ("GET", "/api/v1/admin/jobs"),
    ("POST", "/api/v1/admin/jobs/{id}/retry"),
];

fn routes(document: &Value) -> Vec<(String, String)> {
    let paths = document["paths"].as_object().expect("paths");
    let methods = |path: &Value| -> Vec<String> {
        let object = path.as_object().expect("methods");
        object.keys().map(|method| method.to_uppercase()).collect()
    };
    paths
        .iter()
        .flat_map(|(path, item)| {
            methods(item)
                .into_iter()
                .map(move |method| (method, path.clone()))
        })
        .filter(|(method, _)| ["GET", "POST", "PUT", "PATCH", "DELETE"].contains(&method.as_str()))
        .collect()
}

/// Any name of a parameter is as good as another.
fn anonymous_parameters(path: &str) -> String {
    let part = |part: &str| match part.starts_with('{') {
        true => "{id}".to_owned(),
        false => part.to_owned(),
    };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

async fn document(app: &TestApp) -> Value {
    app.client()
        .get("/api/v1/openapi.json")
        .await
        .expect(200)
        .json()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_has_the_contracts_routes() {
    let app = TestApp::start().await;
    let found: BTreeSet<_> = routes(&document(&app).await)
        .into_iter()
        .map(|(method, path)| (method, anonymous_parameters(&path)))
        .collect();
    for (method, path) in CONTRACT {
        let route = ((*method).to_owned(), (*path).to_owned());
        assert!(
            found.contains(&route),
            "{method} {path} is missing in {found:#?}"
        );
    }
    let _ = app.client().get("/docs/").await.expect(200);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_documented_route_exists_and_asks_for_a_token() {
    let app = TestApp::start().await;
    let client = app.client();
    for (method, path) in routes(&document(&app).await) {
        let anonymous = anonymous_parameters(&path).replace("{id}", &Uuid::now_v7().to_string());
        let verb: Method = method.parse().expect("a method");
        let mut request = client.request(verb, &anonymous);
        if method != "GET" {
            request = request.json(&json!({}));
        }
        let reply = client.send(request).await;
        let open = OPEN.contains(&(method.as_str(), path.as_str()));
        let node = path.starts_with("/node/");
        assert_ne!(reply.status.as_u16(), 405, "{method} {path} is no route");
        assert_eq!(
            reply.status.as_u16() == 401,
            !open,
            "{method} {path} answered {} to nobody (open: {open}, node: {node})",
            reply.status
        );
    }
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_documented_with_the_envelope() {
    let app = TestApp::start().await;
    let document = document(&app).await;
    assert!(document["components"]["schemas"]["ErrorEnvelope"].is_object());
    assert!(document["components"]["securitySchemes"].is_object());
    assert_eq!(document["info"]["license"]["name"], "MIT");
    app.finish(&[]).await;
}
