//! Nobody learns from the time of a login whether an address has an account. Runs with nothing
//! beside it (`.config/nextest.toml`).

use std::time::{Duration, Instant};

use tests::TestApp;
use tests::api::Client;

const TRIES: u32 = 200;
/// In hundredths.
const TOLERANCE: f64 = 5.0;
/// A machine that does something else meanwhile may spoil a measurement, but not each of them.
const MEASUREMENTS: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_address_takes_as_long_as_a_wrong_password() {
    let app = TestApp::start().await;
    let client = app.client();
    client.register("anna@example.org").await.expect(201);
    timed(&client, "anna@example.org").await;
    timed(&client, "nobody@example.org").await;
    let mut apart = Vec::new();
    for _ in 0..MEASUREMENTS {
        apart.push(difference(&client).await);
        if apart.last().is_some_and(|last| *last <= TOLERANCE) {
            app.finish(&[]).await;
            return;
        }
    }
    panic!("the mean times differ by {apart:?} %");
}

/// How far apart the mean times are, in hundredths of the smaller one. The tries take turns, first
/// one then the other ahead, so that a machine that slows down slows both.
async fn difference(client: &Client) -> f64 {
    let (mut known, mut unknown) = (Duration::ZERO, Duration::ZERO);
    for number in 0..TRIES {
        if number.is_multiple_of(2) {
            known += timed(client, "anna@example.org").await;
            unknown += timed(client, "nobody@example.org").await;
        } else {
            unknown += timed(client, "nobody@example.org").await;
            known += timed(client, "anna@example.org").await;
        }
    }
    let (known, unknown) = (known / TRIES, unknown / TRIES);
    println!("known {known:?}, unknown {unknown:?}");
    (known.abs_diff(unknown).as_secs_f64() / known.min(unknown).as_secs_f64()) * 100.0
}

async fn timed(client: &Client, email: &str) -> Duration {
    let began = Instant::now();
    let reply = client.login(email, "not the password").await;
    let took = began.elapsed();
    reply.expect_error(401, "INVALID_CREDENTIALS");
    took
}
