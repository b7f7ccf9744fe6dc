//! Enrolment against a plane that answers, refuses, or is not there.

use rstest::rstest;
use secrecy::SecretString;
use shared::ids::ServerId;
use shared::protocol::enrolment::EnrolRequest;
use shared::wireguard::PrivateKey;

use super::rig::Plane;
use crate::link::{enrol, tls};

fn request() -> EnrolRequest {
    EnrolRequest {
        hostname: "vpn1".into(),
        agent_version: "0.1.0".into(),
        public_key: PrivateKey::generate().public_key(),
        endpoint: "vpn.example.com:51820".into(),
        subnet: "10.8.0.0/16".parse().expect("net"),
        subnet_v6: None,
        capacity: 65_533,
    }
}

#[tokio::test]
async fn enrolment_sends_the_token_and_reads_the_identity() {
    let plane = Plane::new().await;
    let server_id = ServerId::generate();
    let body = format!(
        r#"{{"server_id":"{server_id}","token":"node","expires_at":"2030-01-01T00:00:00Z"}}"#
    );
    let (url, token, request) = (plane.url(), SecretString::from("single-use"), request());
    let enrolled = enrol(&url, tls(None).expect("TLS"), &token, &request);
    let (enrolled, seen) = tokio::join!(enrolled, plane.answer("201 Created", &body));
    let enrolled = enrolled.expect("enrolled");
    assert_eq!(
        (enrolled.server_id, enrolled.token.token.as_str()),
        (server_id, "node")
    );
    assert!(seen.starts_with("POST /node/v1/enrol"), "{seen}");
    assert!(seen.contains("authorization: Bearer single-use"), "{seen}");
}

#[tokio::test]
async fn a_busy_plane_is_asked_again() {
    let plane = Plane::new().await;
    let server_id = ServerId::generate();
    let busy = r#"{"error":{"code":"SERVICE_UNAVAILABLE","message":"Busy","details":[],"request_id":"req_1"}}"#;
    let body = format!(
        r#"{{"server_id":"{server_id}","token":"node","expires_at":"2030-01-01T00:00:00Z"}}"#
    );
    let (url, token, request) = (plane.url(), SecretString::from("single-use"), request());
    let enrolled = enrol(&url, tls(None).expect("TLS"), &token, &request);
    let (enrolled, ()) = tokio::join!(enrolled, async {
        plane.answer("503 Service Unavailable", busy).await;
        plane.answer("201 Created", &body).await;
    });
    assert_eq!(enrolled.expect("enrolled").server_id, server_id);
}

#[rstest]
#[case::refused(
    "401 Unauthorized",
    r#"{"error":{"code":"ENROLMENT_TOKEN_EXPIRED","message":"This token has expired.","details":[{"field":"hostname","message":"bound to vpn2"}],"request_id":"req_1"}}"#,
    &["This token has expired.", "ENROLMENT_TOKEN_EXPIRED", "hostname: bound to vpn2"],
)]
#[case::another_site("200 OK", "<html>", &["PLANE_URL", "200"])]
#[case::proxy("502 Bad Gateway", "<html>", &["PLANE_URL", "502"])]
#[tokio::test]
async fn a_refused_enrolment_says_why(
    #[case] status: &str,
    #[case] body: &str,
    #[case] words: &[&str],
) {
    let plane = Plane::new().await;
    let (url, token, request) = (plane.url(), SecretString::from("single-use"), request());
    let refused = enrol(&url, tls(None).expect("TLS"), &token, &request);
    let (refused, _) = tokio::join!(refused, plane.answer(status, body));
    let text = refused.expect_err("refused").to_string();
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
    assert!(!text.contains("single-use"));
}

#[tokio::test]
async fn an_unreachable_plane_is_named() {
    let plane = Plane::new().await;
    let url = plane.url();
    drop(plane);
    let refused = enrol(
        &url,
        tls(None).expect("TLS"),
        &SecretString::from("t"),
        &request(),
    )
    .await;
    let text = refused.expect_err("nobody there").to_string();
    assert!(
        text.contains(&url.to_string()) && text.contains("refused"),
        "{text}"
    );
}
