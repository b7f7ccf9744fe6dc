//! Every operation of the document, asked by everybody: who gets in, who is refused, and how.
//!
//! The table names who may call each operation. One that is missing in it, or stands in it without
//! being in the document, fails the test: nobody adds a route without deciding whose it is.

use std::collections::BTreeSet;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use control_plane::http::permission::RIGHTS;
use control_plane::operators::{self, Restriction};
use control_plane::secrets::{KeyRing, Place};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::Method;
use serde_json::{Value, json};
use shared::ids::UserId;
use shared::wireguard::PrivateKey;
use tests::api::{Client, Reply};
use tests::command::control_plane;
use tests::{SimNode, TestApp};
use uuid::Uuid;

use crate::stripe::configured;
use crate::stripe::script::Scripted;
use crate::webhook;

use Access::{Nodes, Open, Own, OwnOr, People, PeopleOr, Permitted, SelfOr};

/// Whose an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// Anybody's; what opens it, if anything, is in the body.
    Open,
    /// Any person's with an account, about that account.
    People,
    /// The same, and operators' with the right, about everybody.
    PeopleOr(&'static str),
    /// The owner's of what the path names. To others it does not exist.
    Own,
    /// The same, and that of whoever has the right, beside whom it exists for nobody.
    OwnOr(&'static str, Role),
    /// Whose role or operator token has the right; the lowest such role.
    Permitted(&'static str, Role),
    /// The person's of the path, or whoever has the right.
    SelfOr(&'static str, Role),
    /// A VPN host's.
    Nodes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Support,
    Admin,
    Superuser,
}

/// An app that people may let in.
const APP: &str = "org.example.walk";

/// Method, path and whose it is.
const TABLE: &[(&str, &str, Access)] = &[
    ("GET", "/api/v1/health", Open),
    ("GET", "/api/v1/health/live", Open),
    ("GET", "/api/v1/health/ready", Open),
    ("POST", "/api/v1/auth/register", Open),
    ("POST", "/api/v1/auth/login", Open),
    ("POST", "/api/v1/auth/refresh", Open),
    ("POST", "/api/v1/auth/logout", People),
    ("POST", "/api/v1/auth/logout-all", People),
    ("GET", "/api/v1/auth/sessions", People),
    ("DELETE", "/api/v1/auth/sessions/{id}", Own),
    ("POST", "/api/v1/auth/verify-email", Open),
    ("POST", "/api/v1/auth/resend-verification", Open),
    ("POST", "/api/v1/auth/password-reset/request", Open),
    ("POST", "/api/v1/auth/password-reset/confirm", Open),
    ("POST", "/api/v1/auth/mfa/totp/setup", People),
    ("POST", "/api/v1/auth/mfa/totp/enable", People),
    ("POST", "/api/v1/auth/mfa/totp/disable", People),
    ("GET", "/api/v1/oauth/authorize", Open),
    ("POST", "/api/v1/oauth/authorize", Open),
    ("POST", "/api/v1/oauth/token", Open),
    ("POST", "/api/v1/oauth/revoke", Open),
    ("GET", "/.well-known/oauth-authorization-server", Open),
    ("GET", "/.well-known/jwks.json", Open),
    ("GET", "/api/v1/users/me", People),
    ("PUT", "/api/v1/users/me", People),
    ("DELETE", "/api/v1/users/me", People),
    ("PATCH", "/api/v1/users/me/password", People),
    ("GET", "/api/v1/users/me/export", People),
    ("GET", "/api/v1/users/me/devices", People),
    ("POST", "/api/v1/users/me/devices", People),
    ("DELETE", "/api/v1/users/me/devices/{id}", Own),
    (
        "GET",
        "/api/v1/users",
        Permitted("users:read", Role::Support),
    ),
    (
        "GET",
        "/api/v1/users/{id}",
        Permitted("users:read", Role::Support),
    ),
    (
        "PUT",
        "/api/v1/users/{id}/status",
        Permitted("users:write", Role::Admin),
    ),
    (
        "PUT",
        "/api/v1/users/{id}/role",
        Permitted("roles:write", Role::Superuser),
    ),
    ("GET", "/api/v1/subscriptions/plans", Open),
    ("GET", "/api/v1/subscriptions/status", People),
    ("POST", "/api/v1/payments/create", People),
    ("POST", "/api/v1/payments/create-intent", People),
    ("POST", "/api/v1/payments/confirm", People),
    ("POST", "/api/v1/subscriptions/subscribe", People),
    ("PUT", "/api/v1/subscriptions/cancel", People),
    ("PUT", "/api/v1/subscriptions/resume", People),
    ("GET", "/api/v1/billing/payment-methods", People),
    ("PUT", "/api/v1/billing/payment-method", People),
    ("DELETE", "/api/v1/billing/payment-methods/{id}", People),
    ("POST", "/api/v1/billing/portal", People),
    (
        "GET",
        "/api/v1/admin/plans",
        Permitted("plans:read", Role::Support),
    ),
    (
        "POST",
        "/api/v1/admin/plans",
        Permitted("plans:write", Role::Admin),
    ),
    (
        "PUT",
        "/api/v1/admin/plans/{id}",
        Permitted("plans:write", Role::Admin),
    ),
    (
        "DELETE",
        "/api/v1/admin/plans/{id}",
        Permitted("plans:write", Role::Admin),
    ),
    (
        "GET",
        "/api/v1/admin/audit",
        Permitted("audit:read", Role::Admin),
    ),
    (
        "GET",
        "/api/v1/admin/bans",
        Permitted("security:read", Role::Support),
    ),
    (
        "POST",
        "/api/v1/admin/bans",
        Permitted("security:write", Role::Admin),
    ),
    (
        "DELETE",
        "/api/v1/admin/bans/{id}",
        Permitted("security:write", Role::Admin),
    ),
    (
        "GET",
        "/api/v1/admin/rate-limits/stats",
        Permitted("security:read", Role::Support),
    ),
    (
        "GET",
        "/api/v1/admin/security/events",
        Permitted("security:read", Role::Support),
    ),
    (
        "GET",
        "/api/v1/admin/security/alerts",
        Permitted("security:read", Role::Support),
    ),
    (
        "PUT",
        "/api/v1/admin/security/alerts/{id}/acknowledge",
        Permitted("security:write", Role::Admin),
    ),
    (
        "GET",
        "/api/v1/admin/rate-limits/status/{id}",
        Permitted("security:read", Role::Support),
    ),
    (
        "DELETE",
        "/api/v1/admin/rate-limits/reset/{id}",
        Permitted("security:write", Role::Admin),
    ),
    (
        "GET",
        "/api/v1/admin/servers",
        Permitted("servers:read", Role::Support),
    ),
    (
        "POST",
        "/api/v1/admin/servers",
        Permitted("servers:write", Role::Admin),
    ),
    (
        "GET",
        "/api/v1/admin/servers/{id}",
        Permitted("servers:read", Role::Support),
    ),
    (
        "PATCH",
        "/api/v1/admin/servers/{id}",
        Permitted("servers:write", Role::Admin),
    ),
    (
        "DELETE",
        "/api/v1/admin/servers/{id}",
        Permitted("servers:write", Role::Admin),
    ),
    (
        "PUT",
        "/api/v1/admin/servers/{id}/status",
        Permitted("servers:write", Role::Admin),
    ),
    (
        "PUT",
        "/api/v1/admin/servers/{id}/drain",
        Permitted("servers:write", Role::Admin),
    ),
    (
        "DELETE",
        "/api/v1/admin/servers/{id}/drain",
        Permitted("servers:write", Role::Admin),
    ),
    (
        "PUT",
        "/api/v1/admin/servers/{id}/key-rotation",
        Permitted("servers:write", Role::Admin),
    ),
    (
        "DELETE",
        "/api/v1/admin/servers/{id}/key-rotation",
        Permitted("servers:write", Role::Admin),
    ),
    (
        "POST",
        "/api/v1/admin/servers/{id}/revoke",
        Permitted("servers:write", Role::Admin),
    ),
    (
        "GET",
        "/api/v1/admin/nodes/enrolment-tokens",
        Permitted("nodes:enrol", Role::Admin),
    ),
    (
        "POST",
        "/api/v1/admin/nodes/enrolment-tokens",
        Permitted("nodes:enrol", Role::Admin),
    ),
    (
        "DELETE",
        "/api/v1/admin/nodes/enrolment-tokens/{id}",
        Permitted("nodes:enrol", Role::Admin),
    ),
    ("POST", "/api/v1/payments/webhook", Open),
    ("GET", "/api/v1/billing/history", People),
    ("GET", "/api/v1/billing/invoices/{id}", Own),
    (
        "POST",
        "/api/v1/payments/refund",
        OwnOr("billing:write", Role::Admin),
    ),
    (
        "GET",
        "/api/v1/payments/refund/{id}",
        OwnOr("billing:read", Role::Support),
    ),
    (
        "GET",
        "/api/v1/admin/billing/reconciliation",
        Permitted("billing:read", Role::Support),
    ),
    (
        "GET",
        "/api/v1/admin/billing/events",
        Permitted("billing:read", Role::Support),
    ),
    (
        "POST",
        "/api/v1/admin/billing/events/{id}/replay",
        Permitted("billing:write", Role::Admin),
    ),
    ("GET", "/api/v1/servers", People),
    ("GET", "/api/v1/servers/recommended", People),
    ("GET", "/api/v1/servers/{id}", People),
    ("POST", "/api/v1/vpn/connect", People),
    ("POST", "/api/v1/connection/connect", People),
    ("POST", "/api/v1/vpn/disconnect", People),
    ("POST", "/api/v1/vpn/disconnect/{id}", Own),
    ("POST", "/api/v1/connection/disconnect", People),
    ("GET", "/api/v1/connection/status", People),
    ("GET", "/api/v1/connection/statistics", People),
    ("GET", "/api/v1/connection/{id}/config", Own),
    ("GET", "/api/v1/connection/{id}/config.conf", Own),
    ("GET", "/api/v1/connection/{id}/qr.svg", Own),
    ("GET", "/api/v1/connection/{id}/qr.png", Own),
    (
        "GET",
        "/api/v1/ws/connection/{id}",
        SelfOr("connections:read", Role::Support),
    ),
    ("GET", "/api/v1/analytics/usage", PeopleOr("analytics:read")),
    (
        "GET",
        "/api/v1/analytics/connections",
        PeopleOr("analytics:read"),
    ),
    (
        "GET",
        "/api/v1/analytics/bandwidth",
        PeopleOr("analytics:read"),
    ),
    (
        "GET",
        "/api/v1/analytics/servers/status",
        Permitted("analytics:read", Role::Support),
    ),
    (
        "GET",
        "/api/v1/analytics/servers/load",
        Permitted("analytics:read", Role::Support),
    ),
    (
        "GET",
        "/api/v1/analytics/servers/usage",
        Permitted("analytics:read", Role::Support),
    ),
    (
        "GET",
        "/api/v1/analytics/users/top",
        Permitted("analytics:read", Role::Support),
    ),
    (
        "GET",
        "/api/v1/analytics/plans",
        Permitted("analytics:read", Role::Support),
    ),
    ("GET", "/api/v1/connection/events", People),
    (
        "GET",
        "/api/v1/connection/events/{id}",
        SelfOr("connections:read", Role::Support),
    ),
    ("POST", "/api/v1/connection/ticket", People),
    (
        "POST",
        "/api/v1/connection/ticket/{id}",
        SelfOr("connections:read", Role::Support),
    ),
    (
        "GET",
        "/api/v1/admin/overview",
        Permitted("overview:read", Role::Support),
    ),
    (
        "GET",
        "/api/v1/admin/overview/stream",
        Permitted("overview:read", Role::Support),
    ),
    (
        "GET",
        "/api/v1/admin/jobs",
        Permitted("jobs:read", Role::Support),
    ),
    (
        "POST",
        "/api/v1/admin/jobs/{id}/retry",
        Permitted("jobs:write", Role::Admin),
    ),
    ("POST", "/node/v1/enrol", Nodes),
    ("GET", "/node/v1/session", Nodes),
];

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asker {
    Anonymous,
    /// A person whose resource it is not.
    Other,
    Support,
    Admin,
    Superuser,
    Suspended,
    Expired,
    /// One of the tokens of [`forged`].
    Forged(usize),
    /// An operator token with every right.
    Operator,
    /// The same, attenuated to another right.
    Attenuated,
    /// Last: what it does may end what the others ask about.
    Owner,
}

/// What the answer has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Whatever the operation makes of the request: neither refused nor failed.
    In,
    Unauthorized,
    Forbidden,
    /// It is somebody else's, so it is not there.
    Hidden,
}

impl Verdict {
    fn holds(self, status: u16) -> bool {
        match self {
            Self::In => !matches!(status, 401 | 403 | 404 | 405 | 500..),
            Self::Unauthorized => status == 401,
            Self::Forbidden => status == 403,
            Self::Hidden => status == 404,
        }
    }
}

fn verdict(access: Access, asker: Asker) -> Verdict {
    use Verdict::{Forbidden, Hidden, In, Unauthorized};
    let role = match asker {
        Asker::Support => Some(Role::Support),
        Asker::Admin => Some(Role::Admin),
        Asker::Superuser => Some(Role::Superuser),
        _ => None,
    };
    match (access, asker) {
        (Open, _) => In,
        (Nodes, _)
        | (_, Asker::Anonymous | Asker::Suspended | Asker::Expired | Asker::Forged(_))
        | (People | Own, Asker::Operator | Asker::Attenuated) => Unauthorized,
        (PeopleOr(_), Asker::Attenuated) => Forbidden,
        (People | PeopleOr(_), _) | (Own | OwnOr(..) | SelfOr(..), Asker::Owner) => In,
        (Own, _) => Hidden,
        (Permitted(_, least) | OwnOr(_, least) | SelfOr(_, least), _)
            if role.is_some_and(|role| role >= least) =>
        {
            In
        }
        // An operator acts as an admin at most.
        (Permitted(..) | OwnOr(..) | SelfOr(..), Asker::Operator) => In,
        (OwnOr(..), Asker::Attenuated) => Forbidden,
        (OwnOr(..), _) => Hidden,
        (Permitted(..) | SelfOr(..), _) => Forbidden,
    }
}

/// One set of askers and things for one operation, so that no operation is asked about what
/// another has ended.
struct Scene<'a> {
    app: &'a TestApp,
    node: &'a SimNode,
    /// A token with every right.
    operator: &'a str,
    owner: Client,
    other: Client,
    support: Client,
    admin: Client,
    superuser: Client,
    suspended: Client,
    /// Whom the operations on people are about.
    person: UserId,
    device: Uuid,
    session: Uuid,
    connection: Uuid,
    /// A server that nothing runs on, and one client is left on: it cannot be removed.
    managed: Uuid,
    /// An enrolment token that was used.
    enrolment: Uuid,
    /// An attack that is over.
    alert: Uuid,
    /// Something that Stripe told.
    event: Uuid,
    /// Work that nobody here does.
    job: Uuid,
    /// What is to be paid by the owner, and a refund of it.
    payment: Uuid,
    refund: Uuid,
}

impl<'a> Scene<'a> {
    async fn set(
        app: &'a TestApp,
        node: &'a SimNode,
        operator: &'a str,
        access: Access,
    ) -> Scene<'a> {
        let owner = app.user().await;
        let (mut device, mut session, mut connection) = (Uuid::nil(), Uuid::nil(), Uuid::nil());
        if access == Own {
            let key = PrivateKey::generate().public_key();
            let body = json!({ "name": "Phone", "public_key": key });
            let made = owner
                .post("/api/v1/users/me/devices", &body)
                .await
                .expect(201);
            device = id_of(&made.json()["id"]);
            session = Uuid::now_v7();
            app.db()
                .execute(&format!(
                    "INSERT INTO sessions (id, user_id, expires_at)
                     VALUES ('{session}', '{}', now() + interval '1 day')",
                    owner.user()
                ))
                .await;
            connection = owner.connected(&json!({})).await.connection_id.0;
        }
        let admin = app.user_with_role("admin").await;
        let (managed, enrolment) = managed(app).await;
        let (payment, refund) = payment(app, &owner).await;
        Scene {
            app,
            node,
            operator,
            owner,
            other: app.user().await,
            support: app.user_with_role("support").await,
            suspended: suspended(app, &admin).await,
            admin,
            superuser: app.user_with_role("superuser").await,
            person: app.user().await.user(),
            device,
            session,
            connection,
            managed,
            enrolment,
            alert: alert(app).await,
            event: event(app).await,
            job: job(app).await,
            payment,
            refund,
        }
    }

    /// The path with the ids of this scene.
    fn path(&self, path: &str) -> String {
        if path.ends_with("/oauth/authorize") {
            return format!("{path}?client_id={APP}&redirect_uri={APP}%3A%2Fback");
        }
        let Some((before, rest)) = path.split_once('{') else {
            return path.to_owned();
        };
        let (_, after) = rest.split_once('}').expect("a closed parameter");
        if before.contains("/plans/") {
            return format!("{before}free{after}");
        }
        let id = if before.contains("/devices/") {
            self.device
        } else if before.contains("/sessions/") {
            self.session
        } else if ["/ws/", "/connection/events/", "/connection/ticket/"]
            .iter()
            .any(|part| before.contains(part))
        {
            self.owner.user().0
        } else if before.contains("/jobs/") {
            self.job
        } else if before.contains("/users/") {
            self.person.0
        } else if before.contains("/admin/servers/") {
            self.managed
        } else if before.contains("/alerts/") {
            self.alert
        } else if before.contains("/invoices/") {
            self.payment
        } else if before.contains("/refund/") {
            self.refund
        } else if before.contains("/billing/events/") {
            self.event
        } else if before.contains("/enrolment-tokens/") {
            self.enrolment
        } else if before.contains("/servers/") {
            self.node.server().0
        } else {
            self.connection
        };
        format!("{before}{id}{after}")
    }

    fn token(&self, asker: Asker, access: Access) -> Option<String> {
        let of = |client: &Client| Some(client.token().to_owned());
        match asker {
            Asker::Anonymous => None,
            Asker::Owner => of(&self.owner),
            Asker::Other => of(&self.other),
            Asker::Support => of(&self.support),
            Asker::Admin => of(&self.admin),
            Asker::Superuser => of(&self.superuser),
            Asker::Suspended => of(&self.suspended),
            Asker::Expired => Some(self.app.expired_token(self.owner.user())),
            Asker::Forged(number) => forged(self.superuser.token()).into_iter().nth(number),
            Asker::Operator => Some(self.operator.to_owned()),
            Asker::Attenuated => {
                let right = match access {
                    Permitted("audit:read", _) => "users:read",
                    _ => "audit:read",
                };
                let only = Restriction {
                    rights: [right.to_owned()].into(),
                    expires_at: None,
                    resource: None,
                };
                Some(operators::attenuate(self.operator, &only).expect("it is attenuated"))
            }
        }
    }

    async fn ask(&self, method: &str, path: &str, token: Option<&str>) -> Reply {
        let method: Method = method.parse().expect("a method");
        let has_body = method != Method::GET;
        let mut request = self.app.client().request(method, &self.path(path));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if has_body {
            request = request.json(&match path {
                // What is not paid cannot go back.
                "/api/v1/payments/refund" => json!({ "payment_id": self.payment }),
                path => body(path),
            });
        }
        // An answer that has no end once somebody was let in.
        if path.ends_with("/stream") || path.contains("/connection/events") {
            return self.app.client().send_for_head(request).await;
        }
        self.app.client().send(request).await
    }
}

/// A server with a client of its own and a used enrolment token, and that token.
async fn managed(app: &TestApp) -> (Uuid, Uuid) {
    let (server, token) = (Uuid::now_v7(), Uuid::now_v7());
    let user = app.user().await.user();
    app.db()
        .execute(&format!(
            "INSERT INTO vpn_servers (id, hostname, country, country_code, city, location)
             VALUES ('{server}', '{server}', 'Germany', 'DE', 'Frankfurt', 'eu-central');
             INSERT INTO nodes (server_id) VALUES ('{server}');
             INSERT INTO connections (id, user_id, server_id, status, client_public_key, client_ip,
                                      peer_id, revision)
             VALUES (gen_random_uuid(), '{user}', '{server}', 'connected', 'none', '10.0.0.2', 1, 1);
             INSERT INTO enrolment_tokens (id, hostname, country, country_code, city, location,
                                           expires_at, used_at, server_id)
             VALUES ('{token}', '{server}', 'Germany', 'DE', 'Frankfurt', 'eu-central', now(), now(),
                     '{server}')"
        ))
        .await;
    (server, token)
}

/// An attack that is over.
async fn alert(app: &TestApp) -> Uuid {
    let alert = Uuid::now_v7();
    app.db()
        .execute(&format!(
            "INSERT INTO security_alerts (id, kind, started_at, last_seen_at, ended_at, count)
             VALUES ('{alert}', 'flood', now(), now(), now(), 1)"
        ))
        .await;
    alert
}

/// Something that Stripe told, and that changes nothing.
async fn event(app: &TestApp) -> Uuid {
    let name = format!("evt_{}", Uuid::now_v7());
    let body = webhook::event(&name, "product.created", &json!({}));
    let _ = webhook::deliver(app, &body).await.expect(200);
    let latest = "SELECT id::text FROM stripe_events ORDER BY received_at DESC LIMIT 1";
    let ids = app.db().texts(latest).await;
    ids[0].parse().expect("an id")
}

/// Work that nobody here does, and that failed.
async fn job(app: &TestApp) -> Uuid {
    let job = Uuid::now_v7();
    app.db()
        .execute(&format!(
            "DELETE FROM jobs WHERE kind = 'of_nobody';
             INSERT INTO jobs (id, kind, sealed, status, ended_at)
             VALUES ('{job}', 'of_nobody', 'x', 'failed', now())"
        ))
        .await;
    job
}

/// What this person has to pay, and a refund that cannot be.
async fn payment(app: &TestApp, owner: &Client) -> (Uuid, Uuid) {
    let (payment, refund) = (Uuid::now_v7(), Uuid::now_v7());
    let keys = KeyRing::new(&app.configuration().app.keys).expect("keys");
    let place = Place {
        column: "payments.sealed_stripe_id",
        row: payment,
    };
    let sealed = keys.seal(place, b"in_1").expect("it is sealed");
    let sealed: String = sealed.iter().map(|byte| format!("{byte:02x}")).collect();
    app.db()
        .execute(&format!(
            "INSERT INTO payments (id, user_id, minor, currency, status, stripe_hash, sealed_stripe_id, created_at)
             VALUES ('{payment}', '{}', 999, 'USD', 'open', '{payment}', '\\x{sealed}', now());
             INSERT INTO refunds (id, payment_id, minor, currency, status)
             VALUES ('{refund}', '{payment}', 999, 'USD', 'failed')",
            owner.user()
        ))
        .await;
    (payment, refund)
}

/// An operator token with every right, as the command gives it.
async fn minted(app: &TestApp) -> String {
    let rights = RIGHTS.iter().flat_map(|(right, _)| ["--right", *right]);
    let arguments: Vec<_> = ["token", "mint", "--name", "walk"]
        .into_iter()
        .chain(rights)
        .collect();
    control_plane(Some(app.db().url()), &arguments, "")
        .await
        .expect()
}

fn id_of(value: &Value) -> Uuid {
    value
        .as_str()
        .and_then(|id| id.parse().ok())
        .expect("an id")
}

/// A person whose account an administrator has just suspended.
async fn suspended(app: &TestApp, admin: &Client) -> Client {
    let person = app.user().await;
    let path = format!("/api/v1/users/{}/status", person.user());
    let request = admin.request(Method::PUT, &path);
    let request = request.json(&json!({ "is_active": false }));
    let _ = admin.send(request).await.expect(200);
    person
}

/// Nothing that does much, and no question about what is not there.
fn body(path: &str) -> Value {
    match path {
        "/api/v1/vpn/disconnect" | "/api/v1/connection/disconnect" => json!({ "connection_id": 5 }),
        "/api/v1/vpn/connect" | "/api/v1/connection/connect" => json!({ "server_id": 5 }),
        _ => json!({}),
    }
}

/// What somebody may try who saw a good token, and even knows how the service signs.
fn forged(good: &str) -> Vec<String> {
    let secret = tests::variables("")["JWT_SECRET_KEY"].clone();
    let claims = payload(good);
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        claims
    };
    let sign = |claims: &Value, secret: &str| {
        let key = EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).expect("it signs")
    };
    let unsigned = |header: &Value, claims: &Value| format!("{}.{}.", part(header), part(claims));
    // The header says RSA, and the signature is an HMAC.
    let confused = {
        let message = format!("{}.{}", part(&json!({ "alg": "RS256" })), part(&claims));
        let key = EncodingKey::from_secret(secret.as_bytes());
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256);
        format!("{message}.{}", signature.expect("it signs"))
    };
    vec![
        unsigned(&json!({ "alg": "none", "typ": "JWT" }), &claims),
        unsigned(&json!({ "alg": "HS256", "typ": "JWT" }), &claims),
        confused,
        sign(&with("iss", json!("somebody-else")), &secret),
        sign(&with("aud", json!("another-api")), &secret),
        sign(&with("sid", Value::Null), &secret),
        sign(&claims, "a-key-that-is-not-the-services-own"),
        format!("{good}x"),
        "not-a-token".to_owned(),
    ]
}

fn payload(token: &str) -> Value {
    let claims = token.split('.').nth(1).expect("three parts");
    let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).expect("base64");
    serde_json::from_slice(&claims).expect("JSON")
}

fn part(value: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(value.to_string())
}

fn operations(document: &Value) -> BTreeSet<(String, String)> {
    let paths = document["paths"].as_object().expect("paths");
    paths
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().expect("methods").keys();
            methods.map(move |method| (method.to_uppercase(), with_id(path)))
        })
        .collect()
}

/// Any name of a parameter is as good as another.
fn with_id(path: &str) -> String {
    let parts = path.split('/').map(|part| match part.starts_with('{') {
        true => "{id}",
        false => part,
    });
    parts.collect::<Vec<_>>().join("/")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_knows_its_own() {
    // It knows an invoice; whatever else is asked is refused before it is called.
    let stripe = Scripted::start();
    let invoice = "/v1/invoices/in_1?expand%5B%5D=payment_intent";
    stripe.put(invoice, json!({ "id": "in_1", "status": "open" }));
    let app = TestApp::with(|vars| configured(vars, stripe.url())).await;
    let node = app.node("walked").await;
    let document = app
        .client()
        .get("/api/v1/openapi.json")
        .await
        .expect(200)
        .json();
    let named: BTreeSet<_> = TABLE
        .iter()
        .map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned()))
        .collect();
    assert_eq!(
        named,
        operations(&document),
        "the table and the document differ"
    );

    let forgeries = forged(app.user().await.token()).len();
    let mut askers = vec![
        Asker::Anonymous,
        Asker::Expired,
        Asker::Suspended,
        Asker::Attenuated,
        Asker::Operator,
        Asker::Other,
        Asker::Support,
        Asker::Admin,
        Asker::Superuser,
    ];
    askers.extend((0..forgeries).map(Asker::Forged));
    askers.push(Asker::Owner);
    let operator = minted(&app).await;
    app.db()
        .execute(&format!(
            "INSERT INTO oauth_clients (id, name, redirect_uris)
             VALUES ('{APP}', 'Walk', '{{{APP}:/back}}')"
        ))
        .await;
    let mut wrong = Vec::new();
    for (method, path, access) in TABLE {
        let scene = Scene::set(&app, &node, &operator, *access).await;
        for asker in &askers {
            let token = scene.token(*asker, *access);
            let reply = scene.ask(method, path, token.as_deref()).await;
            let (verdict, status) = (verdict(*access, *asker), reply.status.as_u16());
            if !verdict.holds(status) {
                let text = reply.text();
                wrong.push(format!(
                    "{asker:?} {method} {path}: {status}, not {verdict:?}: {text}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    app.db()
        .execute("DELETE FROM jobs WHERE kind = 'of_nobody'")
        .await;
    app.finish(&[&node]).await;
}
