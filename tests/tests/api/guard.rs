//! Protection against abuse.

mod bans;
mod limits;
mod outages;

use control_plane::config::Variables;
use reqwest::Method;
use serde_json::json;
use tests::TestApp;
use tests::api::{Client, Reply};
use tests::redis::TestRedis;

/// What tests call from: a proxy of ours says who the client is.
fn behind_a_proxy(vars: &mut Variables, redis: &TestRedis) {
    for (name, value) in [
        ("REDIS_URL", redis.url()),
        ("TRUSTED_PROXIES", "127.0.0.1".to_owned()),
        // What this machine can do at its busiest is of no interest here.
        ("RATE_LIMIT_REDIS_TIMEOUT_MS", "10000".to_owned()),
        ("RATE_LIMIT_ADAPTIVE", "false".to_owned()),
        ("IP_RATE_LIMIT", "100000".to_owned()),
        ("GLOBAL_RATE_LIMIT", "100000".to_owned()),
        ("DDOS_THRESHOLD", "100000".to_owned()),
    ] {
        vars.insert(name.to_owned(), value);
    }
}

pub(crate) async fn app(redis: &TestRedis, replicas: usize, more: &[(&str, &str)]) -> TestApp {
    TestApp::replicas_with(replicas, |vars| {
        behind_a_proxy(vars, redis);
        for (name, value) in more {
            vars.insert((*name).to_owned(), (*value).to_owned());
        }
    })
    .await
}

/// Asks as a client at `address`.
pub(crate) async fn ask(client: &Client, address: &str, method: Method, path: &str) -> Reply {
    let mut request = client
        .request(method.clone(), path)
        .header("X-Forwarded-For", address);
    if method != Method::GET {
        request = request.json(&json!({}));
    }
    client.send(request).await
}

async fn servers(client: &Client, address: &str) -> Reply {
    ask(client, address, Method::GET, "/api/v1/servers").await
}

pub(crate) fn number(reply: &Reply, name: &str) -> u64 {
    let value = reply.header(name).unwrap_or_else(|| panic!("no {name}"));
    value.parse().expect("a number")
}
