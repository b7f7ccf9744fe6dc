//! The pages of the documentation in a real browser, which may ask nobody but the plane.

use std::fs;
use std::process::Stdio;

use serde_json::Value;
use tests::TestApp;
use tokio::process::Command;

/// Debian's package; `scripts/setup test` installs it.
const BROWSER: &str = "chromium-headless-shell";

/// What the browser made of a page, and the addresses that it asked for on the way.
struct Visit {
    dom: String,
    asked: Vec<String>,
}

async fn visit(url: &str) -> Visit {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("net.json");
    let output = Command::new(BROWSER)
        .args(["--no-sandbox", "--disable-gpu", "--dump-dom"])
        .arg("--virtual-time-budget=30000")
        // No name is found: whatever lies outside fails, and its attempt is in the log.
        .arg("--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1")
        .arg(format!("--user-data-dir={}", folder.path().display()))
        .arg(format!("--log-net-log={}", log.display()))
        .arg(url)
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = output.await.unwrap_or_else(|error| {
        panic!("{BROWSER} does not start ({error}): scripts/setup test installs it")
    });
    let log = fs::read(&log).expect("the browser logs its network");
    let log: Value = serde_json::from_slice(&log).expect("its log is JSON");
    let events = log["events"].as_array().expect("events");
    let asked = events.iter().filter_map(|it| it["params"]["url"].as_str());
    Visit {
        dom: String::from_utf8_lossy(&output.stdout).into_owned(),
        asked: asked.map(str::to_owned).collect(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documentation_works_in_a_browser_without_any_other_host() {
    let app = TestApp::start().await;
    for path in ["/docs/", "/redoc"] {
        let visit = visit(&format!("{}{path}", app.url())).await;
        let summary = "The caller's own account";
        assert!(visit.dom.contains(summary), "{path}: {}", visit.dom);
        let document = format!("{}/api/v1/openapi.json", app.url());
        assert!(visit.asked.contains(&document), "{:?}", visit.asked);
        let elsewhere: Vec<_> = visit
            .asked
            .iter()
            .filter(|url| url.starts_with("http") || url.starts_with("ws"))
            .filter(|url| !url.starts_with(app.url()))
            .collect();
        assert!(elsewhere.is_empty(), "{path}: {elsewhere:?}");
    }
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_assets_are_kept_and_their_scripts_are_files() {
    let app = TestApp::start().await;
    let client = app.client();
    let bundle = client.get("/redoc/redoc-2.5.4.js").await.expect(200);
    assert_eq!(bundle.header("content-encoding"), Some("gzip"));
    assert!(bundle.body.len() < 400_000, "{}", bundle.body.len());
    let kept = bundle.header("cache-control").expect("it is kept");
    assert!(kept.contains("immutable"), "{kept}");
    for path in ["/docs/", "/redoc", "/redoc/"] {
        let page = client.get(path).await.expect(200);
        let policy = page.header("content-security-policy").expect("a policy");
        assert!(policy.contains("script-src 'self';"), "{policy}");
        assert!(!page.text().contains("https://"), "{path}");
    }
    app.finish(&[]).await;
}
