//! What a stock WireGuard client imports.

use rstest::rstest;
use serde_json::json;
use shared::ids::ConnectionId;
use tests::TestApp;

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_is_what_connect_said() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let user = app.user().await;
    let tunnel = user.connected(&json!({})).await;
    let text = user
        .get(&format!(
            "/api/v1/connection/{}/config.conf",
            tunnel.connection_id
        ))
        .await;
    let text = text.expect(200);
    let disposition = text.header("content-disposition").unwrap_or_default();
    assert!(disposition.contains(".conf"), "{disposition}");
    let text = text.text();
    for line in [
        "[Interface]".to_owned(),
        "[Peer]".to_owned(),
        format!("PublicKey = {}", tunnel.server_public_key),
        format!("Endpoint = {}", tunnel.server_endpoint),
    ] {
        assert!(text.lines().any(|given| given == line), "{line} in {text}");
        assert!(
            tunnel.wg_config.lines().any(|given| given == line),
            "{line} in {}",
            tunnel.wg_config
        );
    }
    let address = text
        .lines()
        .find_map(|line| line.strip_prefix("Address = "))
        .expect("an address");
    assert!(
        address.contains(&format!("{}/32", tunnel.assigned_ip)),
        "{address}"
    );
    let v6 = tunnel.assigned_ipv6.expect("a dual-stack node");
    assert!(address.contains(&format!("{v6}/128")), "{address}");
    assert!(text.contains("AllowedIPs = 0.0.0.0/0, ::/0"), "{text}");

    let shown = user
        .get(&format!(
            "/api/v1/connection/{}/config",
            tunnel.connection_id
        ))
        .await;
    let shown = shown.expect(200).json();
    assert!(
        shown
            .to_string()
            .contains(&tunnel.server_public_key.to_string()),
        "{shown}"
    );
    app.finish(&[&node]).await;
}

#[rstest]
#[case::svg("qr.svg", "image/svg+xml")]
#[case::png("qr.png", "image/png")]
#[tokio::test(flavor = "multi_thread")]
async fn the_picture_is_a_picture(#[case] form: &str, #[case] kind: &str) {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let user = app.user().await;
    let tunnel = user.connected(&json!({})).await;
    let picture = user
        .get(&format!(
            "/api/v1/connection/{}/{form}",
            tunnel.connection_id
        ))
        .await;
    let picture = picture.expect(200);
    assert_eq!(picture.header("content-type"), Some(kind));
    match form {
        "qr.svg" => assert!(picture.text().contains("<svg"), "{}", picture.text()),
        _ => assert!(picture.body.starts_with(b"\x89PNG\r\n\x1a\n")),
    }
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_its_owner_sees_it_and_only_while_it_lives() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let (ada, eve) = (app.user().await, app.user().await);
    let tunnel = ada.connected(&json!({})).await;
    let unknown = ConnectionId::generate();
    for form in ["config", "config.conf", "qr.svg", "qr.png"] {
        let path = |id| format!("/api/v1/connection/{id}/{form}");
        let foreign = eve.get(&path(tunnel.connection_id)).await;
        foreign.expect_error(404, "CONNECTION_NOT_FOUND");
        ada.get(&path(unknown))
            .await
            .expect_error(404, "CONNECTION_NOT_FOUND");
        let anonymous = app.client().get(&path(tunnel.connection_id)).await;
        anonymous.expect_error(401, "UNAUTHORIZED");
    }
    ada.disconnected(tunnel.connection_id).await;
    let path = format!("/api/v1/connection/{}/config.conf", tunnel.connection_id);
    let gone = ada.get(&path).await;
    assert!(gone.status.is_client_error(), "{}", gone.status);
    app.finish(&[&node]).await;
}
