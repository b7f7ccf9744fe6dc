//! What Prometheus is told: enough, never about anybody, and documented.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tests::api::Client;
use tests::{SimNode, TestApp, wait_until};
use uuid::Uuid;

use crate::SOON;

/// The labels that there are. Whoever adds one says here that its values are few.
const LABELS: &[&str] = &[
    "code", "kind", "le", "method", "outcome", "path", "pool", "quantile", "reason", "resource",
    "result", "route", "state", "status", "why",
];
/// All series of one plane after a bit of everything. Most are a route's, method's and status's.
const MOST_SERIES: usize = 3_000;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A line of the exposition: the name, and its labels with their values.
fn sample(line: &str) -> (String, Vec<(String, String)>) {
    let Some((name, rest)) = line.split_once('{') else {
        let name = line.split(' ').next().expect("a name");
        return (name.to_owned(), Vec::new());
    };
    let (labels, _) = rest.rsplit_once('}').expect("closed labels");
    let labels = labels.split("\",").map(|label| {
        let (label, value) = label.split_once("=\"").expect("a label");
        (label.to_owned(), value.trim_end_matches('"').to_owned())
    });
    (name.to_owned(), labels.collect())
}

/// Whether the value names a person, a peer, a connection, a key or an address.
fn names_somebody(value: &str) -> bool {
    let parts = || value.split(['/', ',', ' ', '@']);
    let is_key = |text: &str| text.len() == 44 && BASE64_STANDARD.decode(text).is_ok();
    value.contains('@')
        || is_key(value)
        || parts().any(|part| part.parse::<Uuid>().is_ok())
        || parts().any(|part| part.parse::<IpAddr>().is_ok())
        || parts().any(|part| part.parse::<std::net::SocketAddr>().is_ok())
        || parts().any(|part| part.parse::<u64>().is_ok_and(|number| number > 1_000))
}

async fn exposition(app: &TestApp) -> String {
    Client::new(&app.metrics_url())
        .get("/metrics")
        .await
        .expect(200)
        .text()
}

/// A bit of everything that leaves a trace; gives the node, which stays.
async fn live(app: &TestApp) -> SimNode {
    let node = app.node("fra").await;
    let (user, admin) = (
        app.client().sign_up("ada@example.org").await,
        app.user_with_role("admin").await,
    );
    let tunnel = user.connected(&json!({})).await;
    let mut socket = user
        .metrics(user.user(), user.token())
        .await
        .expect("opens");
    let mut stream = user
        .events("/api/v1/connection/events")
        .await
        .expect("opens");
    let mut overview = admin
        .events("/api/v1/admin/overview/stream")
        .await
        .expect("opens");
    node.add_traffic(tunnel.connection_id, 1_000, 2_000);
    node.report().await;
    socket.next_of("metrics").await;
    stream.next_of("metrics").await;
    overview.next_of("overview").await;
    let id = tunnel.connection_id;
    for path in [
        format!("/api/v1/connection/{id}/config"),
        format!("/api/v1/users/{}", user.user()),
        format!("/api/v1/nothing/{id}"),
        format!("/{}", user.user()),
        format!("/api/v1/admin/rate-limits/status/{}", "203.0.113.7"),
    ] {
        let _ = admin.get(&path).await;
        let _ = user.get(&path).await;
    }
    let _ = app
        .client()
        .login("ada@example.org", "a wrong password")
        .await;
    user.disconnected(id).await;
    app.jobs_end().await;
    app.assert_in_step(&node).await;
    node
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_named_and_the_series_are_few() {
    let app = TestApp::start().await;
    let node = live(&app).await;
    let text = exposition(&app).await;
    let samples: Vec<_> = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(sample)
        .collect();
    assert!(
        samples.len() > 50 && samples.len() < MOST_SERIES,
        "{}",
        samples.len()
    );
    for (name, labels) in &samples {
        for (label, value) in labels {
            assert!(LABELS.contains(&label.as_str()), "{name}: {label}");
            let is_measure = ["le", "quantile", "code", "status"].contains(&label.as_str());
            assert!(
                is_measure || !names_somebody(value),
                "{name}: {label}={value}"
            );
        }
    }
    assert!(!text.contains("ada@example.org") && !text.contains("127.0.0.1"));
    // What it looks for is found where it is.
    for somebody in [
        "0190a0c8-5b7e-7cc3-9a3e-2f6d4c1b8a90",
        "/api/v1/users/0190a0c8-5b7e-7cc3-9a3e-2f6d4c1b8a90",
        "203.0.113.7",
        "203.0.113.7:51820",
        "2001:db8::1",
        "ada@example.org",
        "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
        "4294967296",
    ] {
        assert!(names_somebody(somebody), "{somebody}");
    }
    app.finish(&[&node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_operators_need_is_there_from_the_beginning() {
    let app = TestApp::start().await;
    let node = live(&app).await;
    let mut text = String::new();
    wait_until("the counters are written", SOON, async || {
        text = exposition(&app).await;
        text.contains("usage_flush_seconds_count")
    })
    .await;
    for (name, least) in [
        ("usage_metrics_sockets", 0.0),
        ("usage_event_streams", 0.0),
        ("overview_streams", 0.0),
        ("usage_peers", 0.0),
        ("usage_unstored_peers", 0.0),
        ("usage_frames_total", 1.0),
        ("usage_peer_reports_total", 1.0),
        ("usage_flush_seconds_count", 1.0),
        ("usage_flushed_timestamp_seconds", 1_000_000_000.0),
        ("usage_moving_peers", 0.0),
        ("usage_upload_bytes_per_second", 0.0),
        ("usage_download_bytes_per_second", 0.0),
        ("fleet_nodes{state=\"online\"}", 1.0),
        ("fleet_sessions", 1.0),
        ("fleet_waiting_connects", 0.0),
        ("http_requests_in_flight", 0.0),
        ("pool_connections{pool=\"postgres\",state=\"open\"}", 1.0),
    ] {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value: f64 = line
            .unwrap_or_else(|| panic!("{name} in {text}"))
            .parse()
            .expect("a number");
        assert!(value >= least, "{name} {value}");
    }
    app.finish(&[&node]).await;
}

/// The names of our metrics in the code, by the words that make them.
fn in_code() -> BTreeSet<String> {
    const MAKERS: [&str; 4] = ["counter!(", "gauge!(", "histogram!(", "counter: "];
    let mut names = BTreeSet::new();
    let mut folders = vec![root().join("control-plane/src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with("files_tests.rs") {
                let code = std::fs::read_to_string(&path).expect("text");
                for maker in MAKERS {
                    let quoted = code.split(maker).skip(1).filter_map(|rest| {
                        let name = rest.trim_start().strip_prefix('"')?;
                        Some(name.split('"').next()?.to_owned())
                    });
                    names.extend(quoted);
                }
            }
        }
    }
    names.insert("http_request_duration_seconds".to_owned());
    names
}

/// The names in the first column of the page's tables.
fn documented() -> BTreeSet<String> {
    let page = read("docs/metrics.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| row.split('`').next().expect("a name").to_owned())
        .collect()
}

/// The metrics of an expression: words with an underscore that no function and no label is.
fn in_expression(expression: &str) -> BTreeSet<String> {
    const OTHERS: &[&str] = &[
        "histogram_quantile",
        "group_left",
        "label_replace",
        "__rate_interval",
    ];
    let bare: String = {
        // What is between quotes or in a list of labels is no metric.
        let mut depth = 0_u32;
        let mut quoted = false;
        expression
            .chars()
            .map(|letter| {
                match letter {
                    '"' => quoted = !quoted,
                    '{' if !quoted => depth += 1,
                    '}' if !quoted => depth = depth.saturating_sub(1),
                    _ => {}
                }
                if depth > 0 || quoted { ' ' } else { letter }
            })
            .collect()
    };
    bare.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .filter(|word| word.contains('_') && !OTHERS.contains(word))
        .map(|word| {
            let ends = ["_bucket", "_sum", "_count"];
            let end = ends.iter().find_map(|end| word.strip_suffix(end));
            end.unwrap_or(word).to_owned()
        })
        .collect()
}

fn dashboard() -> Value {
    serde_json::from_str(&read("docs/grafana/prime-vpn.json")).expect("JSON")
}

/// Each panel's title and its expressions.
fn panels(dashboard: &Value) -> Vec<(String, Vec<String>)> {
    let all = dashboard["panels"].as_array().expect("panels").iter();
    all.filter(|panel| panel["type"] != "row")
        .map(|panel| {
            let targets = panel["targets"].as_array().expect("targets").iter();
            let expressions =
                targets.map(|it| it["expr"].as_str().expect("an expression").to_owned());
            (panel["title"].to_string(), expressions.collect())
        })
        .collect()
}

/// Each alert's name and expression, by the lines of the file.
fn alerts() -> Vec<(String, String)> {
    let text = read("docs/prometheus/alerts.yml");
    let field = |line: &str, name: &str| -> Option<String> {
        let rest = line.trim_start().trim_start_matches("- ");
        Some(rest.strip_prefix(name)?.strip_prefix(": ")?.to_owned())
    };
    let mut alerts: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        if let Some(name) = field(line, "alert") {
            alerts.push((name, String::new()));
        } else if let (Some(expression), Some(last)) = (field(line, "expr"), alerts.last_mut()) {
            last.1 = expression;
        }
    }
    alerts
}

#[test]
fn the_page_lists_every_metric_and_no_other() {
    let of_the_plane = documented()
        .into_iter()
        .filter(|name| !name.starts_with("prime_node_"))
        .collect::<BTreeSet<_>>();
    assert_eq!(of_the_plane, in_code());
}

#[test]
fn dashboard_and_alerts_are_over_metrics_that_exist() {
    let documented = documented();
    let (dashboard, alerts) = (dashboard(), alerts());
    let panels = panels(&dashboard);
    assert!(panels.len() >= 12 && alerts.len() >= 10);
    let shown = panels
        .iter()
        .flat_map(|(title, all)| all.iter().map(move |it| (title, it)));
    let all = shown.chain(alerts.iter().map(|(name, expression)| (name, expression)));
    for (place, expression) in all {
        let named = in_expression(expression);
        assert!(!named.is_empty(), "{place}: {expression}");
        for name in named {
            assert!(
                documented.contains(&name),
                "{place}: {name} in {expression}"
            );
        }
    }
    assert_eq!(
        in_expression("sum by (le) (rate(a_b_bucket{c_d=\"e_f\"}[$__rate_interval])) > b_c"),
        ["a_b", "b_c"].map(str::to_owned).into()
    );
}
