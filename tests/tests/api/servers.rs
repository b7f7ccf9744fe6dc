//! The catalogue that people see.

use serde_json::Value;
use tests::{Place, TestApp};
use uuid::Uuid;

fn hostnames(answer: &Value) -> Vec<&str> {
    let servers = answer["servers"].as_array().expect("a list");
    let names = servers
        .iter()
        .map(|server| server["hostname"].as_str().expect("a name"));
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names
}

async fn three_places(app: &TestApp) -> [tests::SimNode; 3] {
    let nodes = [
        app.node_at(
            "fra",
            Place::new("Germany", "DE", "Frankfurt", "eu-central"),
        )
        .await,
        app.node_at("ber", Place::new("Germany", "DE", "Berlin", "eu-east"))
            .await,
        app.node_at(
            "nyc",
            Place::new("United States", "US", "New York", "us-east").tier(1),
        )
        .await,
    ];
    app.db()
        .execute(
            "UPDATE vpn_servers SET streaming_services = '{netflix,hulu}', features = '{p2p}'
             WHERE hostname = 'nyc'",
        )
        .await;
    app.refresh().await;
    nodes
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_pick_what_they_say() {
    let app = TestApp::start().await;
    let nodes = three_places(&app).await;
    let user = app.user().await;
    let table: &[(&str, &[&str])] = &[
        ("", &["ber", "fra", "nyc"]),
        ("?country=DE", &["ber", "fra"]),
        ("?country=germany", &["ber", "fra"]),
        ("?country=United%20States", &["nyc"]),
        ("?city=Berlin", &["ber"]),
        ("?location=us-east", &["nyc"]),
        ("?location=EU-CENTRAL", &["fra"]),
        ("?streaming=true", &["nyc"]),
        ("?protocol=wireguard", &["ber", "fra", "nyc"]),
        ("?protocol=openvpn", &[]),
        ("?feature=p2p", &["nyc"]),
        ("?tier=0", &["ber", "fra"]),
        ("?country=DE&city=Frankfurt", &["fra"]),
        ("?country=XX", &[]),
    ];
    for (query, expected) in table {
        let answer = user
            .get(&format!("/api/v1/servers{query}"))
            .await
            .expect(200)
            .json();
        assert_eq!(&hostnames(&answer), expected, "{query}");
        assert_eq!(answer["total"], expected.len(), "{query}");
    }
    app.finish(&nodes.each_ref()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_cover_everything_once() {
    let app = TestApp::start().await;
    let nodes = three_places(&app).await;
    let user = app.user().await;
    let first = user
        .get("/api/v1/servers?per_page=2")
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&first["total"], &first["page"], &first["per_page"]),
        (&3.into(), &1.into(), &2.into())
    );
    assert_eq!(first["servers"].as_array().map(Vec::len), Some(2));
    assert!(first["links"]["prev"].is_null());
    let next = first["links"]["next"].as_str().expect("a second page");
    let second = user.get(next).await.expect(200).json();
    assert!(second["links"]["next"].is_null());
    let mut all = [hostnames(&first), hostnames(&second)].concat();
    all.sort_unstable();
    assert_eq!(all, ["ber", "fra", "nyc"]);
    app.finish(&nodes.each_ref()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_queries_name_the_parameter() {
    let app = TestApp::start().await;
    let user = app.user().await;
    for (query, field) in [
        ("page=0", "page"),
        ("page=first", "page"),
        ("per_page=0", "per_page"),
        ("per_page=101", "per_page"),
        ("tier=high", "tier"),
    ] {
        let reply = user.get(&format!("/api/v1/servers?{query}")).await;
        let named = reply.expect_error(400, "INVALID_INPUT");
        // What cannot be read at all is the query's fault.
        assert!(
            named == [field] || named == ["query"],
            "{named:?} for {query}"
        );
    }
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server_has_the_seeds_fields() {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let user = app.user().await;
    let path = format!("/api/v1/servers/{}", node.server());
    let server = user.get(&path).await.expect(200).json();
    assert_eq!(server["id"], node.server().to_string());
    assert_eq!(server["hostname"], "fra");
    assert_eq!(server["status"], "operational");
    assert_eq!(server["bandwidth"]["download"], 1000);
    for field in [
        "country",
        "city",
        "ip_address",
        "protocols",
        "load",
        "ping",
        "streaming_services",
        "features",
    ] {
        assert!(server.get(field).is_some(), "{field} in {server}");
    }
    let missing = user
        .get(&format!("/api/v1/servers/{}", Uuid::now_v7()))
        .await;
    missing.expect_error(404, "SERVER_NOT_FOUND");
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recommended_is_what_connect_takes() {
    let app = TestApp::start().await;
    let nodes = three_places(&app).await;
    let user = app.user().await;
    let answer = user
        .get("/api/v1/servers/recommended?location=DE")
        .await
        .expect(200)
        .json();
    let first = answer["server"]["id"]
        .as_str()
        .expect("a server")
        .to_owned();
    let tunnel = user
        .connected(&serde_json::json!({ "location": "DE" }))
        .await;
    assert_eq!(tunnel.server.id.to_string(), first);
    assert_eq!(
        answer["fallbacks"].as_array().map(Vec::len),
        Some(1),
        "{answer}"
    );
    let nowhere = user
        .get("/api/v1/servers/recommended?location=Atlantis")
        .await;
    nowhere.expect_error(503, "NO_SERVER_AVAILABLE");
    app.finish(&nodes.each_ref()).await;
}
