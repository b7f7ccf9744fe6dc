//! People who go on using the service while something happens to it.

use std::time::{Duration, Instant};

use anyhow::ensure;
use futures_util::future::try_join_all;
use reqwest::Method;
use tokio::time::{MissedTickBehavior, interval_at};

use super::Samples;
use crate::api::Client;

/// Everybody asks this often, so slowly that no limit of one address is near.
const PACE: Duration = Duration::from_millis(400);

/// Each has an account and an address, which a proxy that the plane trusts tells of.
#[derive(Debug)]
pub struct People(Vec<(Client, String)>);

impl People {
    pub async fn sign_up(plane: &Client, number: u8) -> Self {
        let mut people = Vec::new();
        for n in 0..number {
            let client = plane.sign_up(&format!("person-{n}@example.org")).await;
            people.push((client, format!("192.0.2.{n}")));
        }
        Self(people)
    }

    /// What their requests took. All of them are answered, by 200.
    pub async fn go_on(&self, path: &str, length: Duration) -> anyhow::Result<Samples> {
        let until = Instant::now() + length;
        let number = u32::try_from(self.0.len())?;
        let each = self.0.iter().zip(0..).map(|((client, address), n)| {
            let first = Instant::now() + PACE * n / number;
            asks(client, address, path, first, until)
        });
        let mut all = Samples::default();
        for samples in try_join_all(each).await? {
            all.extend(samples);
        }
        Ok(all)
    }
}

async fn asks(
    client: &Client,
    address: &str,
    path: &str,
    first: Instant,
    until: Instant,
) -> anyhow::Result<Samples> {
    let mut samples = Samples::default();
    let mut tick = interval_at(first.into(), PACE);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while Instant::now() < until {
        tick.tick().await;
        let request = client
            .request(Method::GET, path)
            .header("X-Forwarded-For", address);
        let began = Instant::now();
        let reply = client.send(request).await;
        samples.push(began.elapsed());
        ensure!(reply.status == 200, "a person got {}", reply.status);
    }
    Ok(samples)
}
