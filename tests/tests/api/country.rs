//! The country filter: whom it refuses, whom it does not concern, and what replaces its file.

use std::fs;
use std::path::{Path, PathBuf};

use control_plane::app::Application;
use control_plane::config::Config;
use reqwest::Method;
use serde_json::json;
use tests::api::{Client, Reply, metric};
use tests::command::control_plane_with;
use tests::mmdb::{geolite, mmdb};
use tests::redis::TestRedis;
use tests::{TestApp, TestDb, init, variables, wait_until};

use crate::SOON;
use crate::guard::ask;

const PYONGYANG: &str = "203.0.113.9";
const BERLIN: &str = "198.51.100.9";
const NOWHERE: &str = "192.0.2.9";

/// Who is where: Pyongyang and Berlin, or the other way round.
fn world(turned: bool) -> Vec<u8> {
    let (one, other) = if turned { ("DE", "KP") } else { ("KP", "DE") };
    geolite(&[
        ("203.0.113.0/24", one),
        ("198.51.100.0/24", other),
        ("2001:db8:1::/48", one),
        ("2001:db8:2::/48", other),
    ])
}

/// The file of a test, in a folder of its own.
struct File(tempfile::TempDir);

impl File {
    fn new() -> Self {
        let file = Self(tempfile::tempdir().expect("a folder"));
        fs::write(file.path(), world(false)).expect("it is written");
        file
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("countries.mmdb")
    }

    /// As whoever fetches a new one does.
    fn replace(&self, content: &[u8]) {
        let new = self.0.path().join("new");
        fs::write(&new, content).expect("it is written");
        fs::rename(new, self.path()).expect("it is renamed");
    }
}

async fn app(redis: &TestRedis, file: &File, more: &[(&str, &str)]) -> TestApp {
    let (redis, file) = (redis.url(), file.path().display().to_string());
    TestApp::with(|vars| {
        let settings = [
            ("REDIS_URL", redis.as_str()),
            ("TRUSTED_PROXIES", "127.0.0.1"),
            ("RATE_LIMIT_ADAPTIVE", "false"),
            ("RATE_LIMIT_REDIS_TIMEOUT_MS", "10000"),
            ("COUNTRY_DB_FILE", file.as_str()),
        ];
        for (name, value) in settings.iter().chain(more) {
            vars.insert((*name).to_owned(), (*value).to_owned());
        }
    })
    .await
}

async fn is_refused(client: &Client, address: &str) -> bool {
    ask(client, address, Method::GET, "/api/v1/servers")
        .await
        .status
        == 403
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_country_gets_nothing_and_machines_are_answered() {
    const PUBLIC: [(&str, &str); 8] = [
        ("POST", "/api/v1/auth/login"),
        ("POST", "/auth/register"),
        ("POST", "/api/v1/auth/password-reset/request"),
        ("POST", "/vpn/connect"),
        ("POST", "/vpn/disconnect"),
        ("POST", "/api/v1/payments/create"),
        ("GET", "/ws/connection/0190a0c8-0000-7000-8000-000000000001"),
        ("GET", "/api/v1/users/me"),
    ];
    const MACHINES: [(&str, &str); 4] = [
        ("GET", "/health"),
        ("GET", "/api/v1/health/live"),
        ("POST", "/node/v1/enrol"),
        ("POST", "/api/v1/payments/webhook"),
    ];
    let (redis, file) = (TestRedis::start().await, File::new());
    let app = app(&redis, &file, &[("COUNTRY_DENY", "kp,IR")]).await;
    let user = app.user().await;
    let there = ["203.0.113.9", "::ffff:203.0.113.9", "2001:db8:1:2::3"];
    for (method, path) in PUBLIC {
        let method: Method = method.parse().expect("a method");
        for address in there {
            let reply = ask(&user, address, method.clone(), path).await;
            reply.expect_error(403, "COUNTRY_REFUSED");
            assert_eq!(reply.header("x-ratelimit-limit"), None, "{path}");
            assert_eq!(reply.header("retry-after"), None, "{path}");
        }
        for address in [BERLIN, "2001:db8:2::1", NOWHERE, "127.0.0.1"] {
            let reply = ask(&user, address, method.clone(), path).await;
            assert!(!is_of_country(&reply), "{path} from {address}");
        }
    }
    for (method, path) in MACHINES {
        let method: Method = method.parse().expect("a method");
        let reply = ask(&user, PYONGYANG, method, path).await;
        assert!(!is_of_country(&reply), "{path}: {}", reply.text());
    }
    ask(&user, PYONGYANG, Method::GET, "/health")
        .await
        .expect(200);
    let refused = metric(&app.metrics_url(), "guard_refused_total{why=\"country\"}").await;
    assert_eq!(refused, 24);
    app.finish(&[]).await;
}

fn is_of_country(reply: &Reply) -> bool {
    reply.text().contains("COUNTRY_REFUSED")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allow_list_and_the_unknown_pass_as_they_are_set() {
    let redis = TestRedis::start().await;
    for (list, unknown, refused) in [
        (("COUNTRY_DENY", "KP"), "deny", [true, false, true]),
        (("COUNTRY_ALLOW", "DE"), "allow", [true, false, false]),
        (("COUNTRY_ALLOW", "DE,FR"), "deny", [true, false, true]),
    ] {
        let file = File::new();
        let app = app(&redis, &file, &[list, ("COUNTRY_UNKNOWN", unknown)]).await;
        let user = app.user().await;
        let mut found = Vec::new();
        for address in [PYONGYANG, BERLIN, NOWHERE] {
            found.push(is_refused(&user, address).await);
        }
        assert_eq!(found, refused, "{list:?}, unknown: {unknown}");
        app.finish(&[]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_header_hides_a_country_and_the_whitelist_stands_above_it() {
    let (redis, file) = (TestRedis::start().await, File::new());
    let deny = ("COUNTRY_DENY", "KP");
    let app_behind = app(
        &redis,
        &file,
        &[deny, ("DDOS_WHITELIST_IPS", "203.0.113.77")],
    )
    .await;
    let user = app_behind.user().await;
    // What the client wrote itself comes before what our proxy appended.
    for forged in [
        format!("{BERLIN}, {PYONGYANG}"),
        format!("127.0.0.1, {PYONGYANG}"),
        format!("nonsense, {PYONGYANG}:99"),
    ] {
        assert!(is_refused(&user, &forged).await, "{forged}");
    }
    assert!(!is_refused(&user, "203.0.113.77").await);
    app_behind.finish(&[]).await;

    // Without a proxy of ours it is the peer who asks, whatever they say: somebody whose country is unknown.
    for (unknown, refused) in [("allow", false), ("deny", true)] {
        let settings = [
            deny,
            ("COUNTRY_UNKNOWN", unknown),
            ("TRUSTED_PROXIES", ""),
            ("DDOS_WHITELIST_IPS", "192.0.2.1"),
        ];
        let alone = app(&redis, &file, &settings).await;
        let user = alone.user().await;
        for said in [PYONGYANG, BERLIN] {
            assert_eq!(is_refused(&user, said).await, refused, "{unknown}: {said}");
        }
        alone.finish(&[]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_costs_no_redis_is_in_no_list_and_is_banned_for_a_flood() {
    let (mut redis, file) = (TestRedis::start().await, File::new());
    let settings = [("COUNTRY_DENY", "KP"), ("DDOS_THRESHOLD", "20")];
    let app = app(&redis, &file, &settings).await;
    let support = app.user_with_role("support").await;
    let user = app.user().await;
    for _ in 0..5 {
        assert!(is_refused(&user, "203.0.113.10").await);
    }
    wait_until("it is counted", SOON, async || {
        let reply = support.get("/api/v1/admin/rate-limits/stats").await;
        reply.expect(200).json()["refused"] == json!(5)
    })
    .await;
    let events = support.get("/api/v1/admin/security/events").await;
    let events = events.expect(200);
    assert!(!events.text().contains("203.0.113"), "{}", events.text());

    redis.kill();
    for _ in 0..20 {
        let reply = ask(&user, PYONGYANG, Method::GET, "/api/v1/servers").await;
        reply.expect_error(403, "COUNTRY_REFUSED");
    }
    let reply = ask(&user, PYONGYANG, Method::GET, "/api/v1/servers").await;
    reply.expect_error(403, "ADDRESS_BANNED");
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_file_is_in_force_and_a_damaged_one_changes_nothing() {
    let (redis, file) = (TestRedis::start().await, File::new());
    let app = app(&redis, &file, &[("COUNTRY_DENY", "KP")]).await;
    let user = app.user().await;
    let verdict = async || {
        (
            is_refused(&user, PYONGYANG).await,
            is_refused(&user, BERLIN).await,
        )
    };
    assert_eq!(verdict().await, (true, false));
    file.replace(&world(true));
    wait_until("the new file is in force", SOON, async || {
        verdict().await == (false, true)
    })
    .await;
    assert_eq!(files(&app, "taken").await, 1);

    let new = world(false);
    let (half, _) = new.split_at(new.len() / 2);
    let asn = json!({ "autonomous_system_number": 64500 });
    let asn = mmdb("GeoLite2-ASN", &[("203.0.113.0/24", asn)]);
    let broken: [(&str, &dyn Fn()); 5] = [
        ("half a file", &|| file.replace(half)),
        ("an empty file", &|| file.replace(b"")),
        ("no MMDB file", &|| file.replace(b"<html>Not found</html>")),
        ("a file without countries", &|| file.replace(&asn)),
        ("no file", &|| {
            fs::remove_file(file.path()).expect("removed");
        }),
    ];
    for (number, (what, make)) in (1..).zip(broken) {
        make();
        wait_until(&format!("{what} was refused"), SOON, async || {
            files(&app, "refused").await == number
        })
        .await;
        assert_eq!(verdict().await, (false, true), "{what}");
    }
    file.replace(&new);
    wait_until("the whole file is in force", SOON, async || {
        verdict().await == (true, false)
    })
    .await;
    assert_eq!(files(&app, "refused").await, 5, "each was told of once");
    app.finish(&[]).await;
}

async fn files(app: &TestApp, result: &str) -> u64 {
    let series = format!("guard_country_files_total{{result=\"{result}\"}}");
    metric(&app.metrics_url(), &series).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_used_stops_the_start_and_is_found_by_the_check() {
    init();
    let folder = tempfile::tempdir().expect("a folder");
    let broken = folder.path().join("broken.mmdb");
    fs::write(&broken, b"nothing").expect("it is written");
    let db = TestDb::new().await;
    for (path, words) in [
        (folder.path().join("missing.mmdb"), "cannot be read"),
        (broken, "no MMDB file"),
    ] {
        let error = start(db.url(), &path).await;
        assert!(
            error.contains("COUNTRY_DB_FILE") && error.contains(words),
            "{error}"
        );
        let said = check(db.url(), &path).await;
        assert!(
            said.contains("FAIL  countries: COUNTRY_DB_FILE") && said.contains(words),
            "{said}"
        );
    }
    let file = File::new();
    let said = check(db.url(), &file.path()).await;
    assert!(said.contains("ok    countries"), "{said}");
}

fn settings(file: &Path) -> [(&'static str, String); 2] {
    [
        ("COUNTRY_DENY", "KP".to_owned()),
        ("COUNTRY_DB_FILE", file.display().to_string()),
    ]
}

/// Why it does not start.
async fn start(database: &str, file: &Path) -> String {
    let mut variables = variables(database);
    for (name, value) in settings(file) {
        variables.insert(name.to_owned(), value);
    }
    let config = Config::read(&variables).expect("the configuration is valid");
    let started = Application::start(config).await;
    started.expect_err("there is no file").to_string()
}

/// What `control-plane check` says.
async fn check(database: &str, file: &Path) -> String {
    control_plane_with(database, &settings(file), &["check"])
        .await
        .out
}
