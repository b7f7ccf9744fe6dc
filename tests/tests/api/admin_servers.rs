//! Servers as their administrators see and change them.

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use shared::ids::ServerId;
use shared::protocol::{Load, close};
use tests::api::{Client, Reply};
use tests::sim::SimConfig;
use tests::{SimNode, TestApp, wait_until};

use crate::SOON;

pub(crate) fn path(server: ServerId, rest: &str) -> String {
    format!("/api/v1/admin/servers/{server}{rest}")
}

pub(crate) async fn call(client: &Client, method: Method, path: &str, body: Value) -> Reply {
    client.send(client.request(method, path).json(&body)).await
}

pub(crate) async fn view(client: &Client, server: ServerId) -> Value {
    client.get(&path(server, "")).await.expect(200).json()
}

/// Action, before and after of what was done to it, in order.
pub(crate) async fn acts(app: &TestApp, subject: impl std::fmt::Display) -> Vec<Value> {
    let rows = app
        .db()
        .texts(&format!(
            "SELECT json_build_array(action, before, after)::text FROM audit_log
             WHERE subject = '{subject}' AND outcome = 'done' ORDER BY id"
        ))
        .await;
    let parse = |row: &String| serde_json::from_str(row).expect("JSON");
    rows.iter().map(parse).collect()
}

fn names(acts: &[Value]) -> Vec<&str> {
    acts.iter().filter_map(|act| act[0].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_shows_where_its_node_stands_and_what_it_bears() {
    let app = TestApp::replicas(2).await;
    let node = app.node("fra").await;
    let support = app.user_with_role("support").await;
    app.user().await.connected(&json!({})).await;
    node.set_load(Load {
        current_load: 41.5,
        cpu: 0.25,
        softirq: 0.125,
        memory: 0.5,
        conntrack: Some(0.75),
        rx_bps: 1_000,
        tx_bps: 2_000,
        nic_bps: Some(10_000),
        drift: 3,
        held_removals: Some(12),
        ..Load::default()
    })
    .await;
    // The other replica sees what the heartbeat wrote.
    for replica in [0, 1] {
        let support = support.at(app.url_of(replica));
        wait_until("the report is seen", SOON, async || {
            let seen = view(&support, node.server()).await;
            seen["node"]["peers"] == 1 && seen["node"]["load"]["cpu"] == 0.25
        })
        .await;
        let seen = view(&support, node.server()).await;
        assert_eq!(seen["is_online"], true, "{seen}");
        assert_eq!(
            (&seen["hostname"], &seen["status"], &seen["current_load"]),
            (&json!("fra"), &json!("active"), &json!(41.5))
        );
        let node_view = &seen["node"];
        assert_eq!(node_view["is_converged"], true, "{seen}");
        assert_eq!(node_view["applied_revision"], node_view["desired_revision"]);
        assert_eq!(node_view["state_hash"], node_view["expected_state_hash"]);
        assert_eq!(
            node_view["load"],
            json!({ "cpu": 0.25, "softirq": 0.125, "memory": 0.5, "conntrack": 0.75,
                    "rx_bps": 1_000, "tx_bps": 2_000, "nic_bps": 10_000 })
        );
        assert_eq!(
            (&node_view["drift"], &node_view["held_removals"]),
            (&json!(3), &json!(12))
        );
        assert_eq!(node_view["backend"], "simulated");
        assert_eq!(
            seen["interface"]["pool"],
            json!({ "used": 1, "capacity": 60_000 })
        );
        assert_eq!(
            (&seen["key_rotation"], &seen["draining"]),
            (
                &Value::Null,
                &json!({ "requested_at": null, "reported": false })
            )
        );
    }
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lags_is_not_converged() {
    let app = TestApp::start().await;
    let mut node = app.node("fra").await;
    let (support, user) = (app.user_with_role("support").await, app.user().await);
    let tunnel = user.connected(&json!({})).await;
    node.stop().await;
    user.disconnected(tunnel.connection_id).await;
    let seen = view(&support, node.server()).await;
    assert_eq!(seen["node"]["is_converged"], false, "{seen}");
    node.start();
    wait_until("the node has caught up", SOON, async || {
        view(&support, node.server()).await["node"]["is_converged"] == true
    })
    .await;
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_may_come_before_its_host() {
    let app = TestApp::start().await;
    let admin = app.user_with_role("admin").await;
    let body = json!({
        "hostname": "FRA2.example.net", "country": "Germany", "country_code": "de",
        "city": "Frankfurt", "location": "eu-central", "tier": 1, "features": ["p2p"],
    });
    let made = admin
        .post("/api/v1/admin/servers", &body)
        .await
        .expect(201)
        .json();
    let server: ServerId = made["id"].as_str().expect("an id").parse().expect("a UUID");
    assert_eq!(
        (
            &made["hostname"],
            &made["country_code"],
            &made["city"],
            &made["interface"]
        ),
        (
            &json!("fra2.example.net"),
            &json!("DE"),
            &json!("Frankfurt"),
            &Value::Null
        )
    );
    let again = admin.post("/api/v1/admin/servers", &body).await;
    again.expect_error(409, "HOSTNAME_TAKEN");
    let listed = admin.get("/api/v1/servers").await.expect(200).json();
    assert_eq!(listed["total"], 0, "nobody can use it yet");

    let token = admin
        .post(
            "/api/v1/admin/nodes/enrolment-tokens",
            &json!({ "server_id": server }),
        )
        .await
        .expect(201)
        .json();
    let token = token["token"].as_str().expect("a token");
    let config = SimConfig {
        hostname: "fra2.example.net".to_owned(),
        ..app.config("fra2")
    };
    let node = SimNode::enrol(app.url(), token, config)
        .await
        .expect("it enrols");
    assert_eq!(node.server(), server);
    app.wait_selectable(&node).await;
    let seen = view(&admin, server).await;
    assert_eq!(
        (&seen["features"], &seen["tier"]),
        (&json!(["p2p"]), &json!(1))
    );
    assert_eq!(names(&acts(&app, server).await), ["server.create"]);
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_changes_what_it_names_and_is_on_record() {
    let app = TestApp::start().await;
    let (node, _other) = (app.node("fra").await, app.node("nyc").await);
    let admin = app.user_with_role("admin").await;
    let edit = path(node.server(), "");
    let body =
        json!({ "hostname": "fra9", "city": "Offenbach", "streaming_services": ["netflix"] });
    let unused = app.enrolment_token("fra").await;
    let seen = call(&admin, Method::PATCH, &edit, body.clone())
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&seen["hostname"], &seen["city"], &seen["country"]),
        (&json!("fra9"), &json!("Offenbach"), &json!("Germany"))
    );
    // The same again is no change.
    let _ = call(&admin, Method::PATCH, &edit, body).await.expect(200);
    let _ = call(&admin, Method::PATCH, &edit, json!({}))
        .await
        .expect(200);
    assert_eq!(
        acts(&app, node.server()).await,
        [json!([
            "server.edit",
            { "hostname": "fra", "city": "Frankfurt", "streaming_services": [] },
            { "hostname": "fra9", "city": "Offenbach", "streaming_services": ["netflix"] },
        ])]
    );
    let listed = app
        .user()
        .await
        .get("/api/v1/servers?city=Offenbach")
        .await
        .expect(200)
        .json();
    assert_eq!(listed["servers"][0]["hostname"], "fra9");
    // What was to enrol under the old name is void, and the session goes on under the new one.
    let refused = SimNode::enrol_only(app.url(), &unused, SimConfig::named("fra")).await;
    assert_eq!(refused.expect_err("void").status, 401);
    assert_eq!(node.session().welcomed, 1);
    let taken = call(&admin, Method::PATCH, &edit, json!({ "hostname": "NYC" })).await;
    taken.expect_error(409, "HOSTNAME_TAKEN");
    app.finish(&[&node]).await;
}

#[rstest]
#[case(Method::PATCH, "", json!({ "hostname": "no_host" }), "hostname")]
#[case(Method::PATCH, "", json!({ "country_code": "DEU" }), "country_code")]
#[case(Method::PATCH, "", json!({ "city": " " }), "city")]
#[case(Method::PATCH, "", json!({ "tier": -1 }), "tier")]
#[case(Method::PATCH, "", json!({ "download_mbps": 0 }), "download_mbps")]
#[case(Method::PATCH, "", json!({ "features": [""] }), "features")]
#[case(Method::PUT, "/status", json!({ "status": "asleep" }), "status")]
#[case(Method::PUT, "/status", json!({}), "status")]
#[case(Method::PUT, "/key-rotation", json!({ "at": "yesterday" }), "at")]
#[case(Method::PUT, "/key-rotation", json!({ "at": "2001-01-01T00:00:00Z" }), "at")]
#[case(Method::PUT, "/key-rotation", json!({ "at": "2999-01-01T00:00:00Z" }), "at")]
#[case(Method::DELETE, "?force=perhaps", json!({}), "force")]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named(
    #[case] method: Method,
    #[case] rest: &str,
    #[case] body: Value,
    #[case] field: &str,
) {
    let app = TestApp::start().await;
    let node = app.node("fra").await;
    let admin = app.user_with_role("admin").await;
    let reply = call(&admin, method.clone(), &path(node.server(), rest), body).await;
    assert_eq!(reply.expect_error(400, "INVALID_INPUT"), [field]);
    assert_eq!(acts(&app, node.server()).await, Vec::<Value>::new());
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_not_found() {
    let app = TestApp::start().await;
    let admin = app.user_with_role("admin").await;
    let nowhere = ServerId::generate();
    for (method, rest, body) in [
        (Method::GET, "", json!({})),
        (Method::PATCH, "", json!({})),
        (Method::DELETE, "", json!({})),
        (Method::DELETE, "?force=true", json!({})),
        (Method::PUT, "/status", json!({ "status": "active" })),
        (Method::PUT, "/drain", json!({})),
        (Method::DELETE, "/drain", json!({})),
        (Method::PUT, "/key-rotation", json!({})),
        (Method::DELETE, "/key-rotation", json!({})),
        (Method::POST, "/revoke", json!({})),
    ] {
        let reply = call(&admin, method, &path(nowhere, rest), body).await;
        reply.expect_error(404, "SERVER_NOT_FOUND");
    }
    let nonsense = admin.get("/api/v1/admin/servers/nonsense").await;
    nonsense.expect_error(404, "SERVER_NOT_FOUND");
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_in_maintenance_gets_nobody_on_any_replica() {
    let app = TestApp::replicas(2).await;
    let node = app.node("fra").await;
    app.wait_selectable_at(1, &node).await;
    let admin = app.user_with_role("admin").await;
    let status = path(node.server(), "/status");
    let body = json!({ "status": "maintenance" });
    let seen = call(&admin, Method::PUT, &status, body)
        .await
        .expect(200)
        .json();
    assert_eq!(seen["status"], "maintenance");
    assert!(!app.is_selectable(&node), "here before the answer");
    wait_until("there a moment later", SOON, async || {
        !app.is_selectable_at(1, &node)
    })
    .await;
    let _ = call(&admin, Method::PUT, &status, json!({ "status": "active" }))
        .await
        .expect(200);
    app.wait_selectable_at(1, &node).await;
    let word = |status: &str| json!({ "status": status });
    assert_eq!(
        acts(&app, node.server()).await,
        [
            json!(["server.change_status", word("active"), word("maintenance")]),
            json!(["server.change_status", word("maintenance"), word("active")]),
        ]
    );
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_node_is_out_within_a_second_on_another_replica() {
    let app = TestApp::replicas(2).await;
    let mut node = app.node("fra").await;
    let admin = app.user_with_role("admin").await.at(app.url_of(1));
    let tunnel = app.user().await.connected(&json!({})).await;
    let second = std::time::Duration::from_secs(1);
    let _ = call(
        &admin,
        Method::POST,
        &path(node.server(), "/revoke"),
        json!({}),
    )
    .await
    .expect(200);
    wait_until("the session ends", second, async || {
        let session = node.session();
        !session.online && session.close_code == Some(close::UNAUTHORIZED)
    })
    .await;
    wait_until("its token is worth nothing", SOON, async || {
        node.session().dial_status == Some(401)
    })
    .await;
    assert_eq!(node.connections(), [tunnel.connection_id], "tunnels stay");
    assert_eq!(view(&admin, node.server()).await["is_online"], false);
    node.stop().await;

    let token = app.enrolment_token("fra").await;
    let again = SimNode::enrol(app.url(), &token, node.config().clone()).await;
    let again = again.expect("it enrols again");
    assert_eq!(again.server(), node.server());
    again.wait_online().await;
    assert_eq!(
        names(&acts(&app, node.server()).await),
        ["server.revoke_node"]
    );
    app.finish(&[&again]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_clients_is_removed_only_by_force() {
    let app = TestApp::replicas(2).await;
    let node = app.node("fra").await;
    let admin = app.user_with_role("admin").await.at(app.url_of(1));
    let user = app.user().await;
    let tunnel = user.connected(&json!({})).await;
    node.add_traffic(tunnel.connection_id, 7, 8);
    let server = path(node.server(), "");
    admin
        .delete(&server)
        .await
        .expect_error(409, "SERVER_IN_USE");
    assert_eq!(node.connections(), [tunnel.connection_id]);

    let _ = admin
        .delete(&format!("{server}?force=true"))
        .await
        .expect(204);
    assert_eq!(node.peer_count(), 0, "the node was told first");
    let row = format!(
        "SELECT concat_ws(' ', status, end_reason, bytes_sent, bytes_received)
         FROM connections WHERE id = '{}'",
        tunnel.connection_id
    );
    assert_eq!(app.db().texts(&row).await, ["disconnected server_gone 7 8"]);
    wait_until("the node is out", SOON, async || {
        node.session().dial_status == Some(401)
    })
    .await;
    assert_eq!(node.session().close_code, Some(close::UNAUTHORIZED));
    assert_eq!(app.db().number("SELECT count(*) FROM vpn_servers").await, 0);
    admin
        .get(&server)
        .await
        .expect_error(404, "SERVER_NOT_FOUND");
    let acts = acts(&app, node.server()).await;
    assert_eq!(names(&acts), ["server.change_status", "server.delete"]);
    assert_eq!(
        (&acts[1][1]["hostname"], &acts[1][2]),
        (&json!("fra"), &Value::Null)
    );
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_server_is_removed_and_a_silent_ones_clients_are_not_left_half_way() {
    let app = TestApp::start().await;
    let (node, mut silent) = (app.node("fra").await, app.node("nyc").await);
    let admin = app.user_with_role("admin").await;
    let user = app.user().await;
    let tunnel = user
        .connected(&json!({ "server_id": silent.server() }))
        .await;
    silent.stop().await;
    let ended = user
        .disconnect(tunnel.connection_id)
        .await
        .expect(200)
        .json();
    assert_eq!(ended["status"], "ended");
    for server in [node.server(), silent.server()] {
        let _ = admin.delete(&path(server, "")).await.expect(204);
    }
    let reason = "SELECT status || ' ' || end_reason FROM connections";
    assert_eq!(app.db().texts(reason).await, ["disconnected disconnected"]);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_are_listed_and_filtered() {
    let app = TestApp::start().await;
    let nodes = [
        app.node("ams").await,
        app.node("fra").await,
        app.node("nyc").await,
    ];
    let admin = app.user_with_role("admin").await;
    let status = path(nodes[1].server(), "/status");
    let _ = call(&admin, Method::PUT, &status, json!({ "status": "offline" }))
        .await
        .expect(200);
    let listed = async |query: &str| -> Vec<String> {
        let list = admin
            .get(&format!("/api/v1/admin/servers?{query}"))
            .await
            .expect(200)
            .json();
        let servers = list["data"].as_array().expect("a list").iter();
        servers
            .map(|it| it["hostname"].as_str().expect("a name").to_owned())
            .collect()
    };
    assert_eq!(listed("").await, ["ams", "fra", "nyc"]);
    assert_eq!(listed("page=2&per_page=2").await, ["nyc"]);
    assert_eq!(listed("status=offline").await, ["fra"]);
    assert_eq!(listed("hostname=NYC").await, ["nyc"]);
    let wrong = admin.get("/api/v1/admin/servers?status=asleep").await;
    assert_eq!(wrong.expect_error(400, "INVALID_INPUT"), ["status"]);
    let [a, b, c] = &nodes;
    app.finish(&[a, b, c]).await;
}
