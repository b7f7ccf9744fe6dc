//! People who use the service while it is measured.

use std::time::{Duration, Instant};

use anyhow::ensure;
use chrono::Utc;
use control_plane::accounts::tokens::TokenIssuer;
use control_plane::accounts::{Role, SessionId};
use control_plane::config::Config;
use futures_util::future::try_join_all;
use reqwest::Method;
use secrecy::ExposeSecret;
use shared::ids::UserId;
use tokio::time::{MissedTickBehavior, interval_at};

use super::Samples;
use crate::TestDb;
use crate::api::Client;
use crate::lab::Plane;

/// Everybody asks this often, so slowly that no limit of one address is near.
const PACE: Duration = Duration::from_millis(400);

/// Each goes on asking, and has an account and an address, which a proxy that the plane trusts tells of.
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

/// Makes people with a plan of five connections in the database and signs their tokens with the plane's own
/// secret: a login costs a password's hash, which is not what is measured. A person's one session has the
/// person's id.
pub async fn subscribers(
    db: &TestDb,
    plane: &Plane,
    number: usize,
) -> anyhow::Result<Vec<(UserId, String)>> {
    db.execute(&format!(
        "WITH made AS (
             INSERT INTO users (id, email, hashed_password)
             SELECT gen_random_uuid(), 'person' || n || '@example.org', 'none'
             FROM generate_series(1, {number}) AS n RETURNING id),
         opened AS (
             INSERT INTO sessions (id, user_id, expires_at)
             SELECT id, id, now() + interval '1 day' FROM made)
         INSERT INTO subscriptions (id, user_id, plan_id, plan_type, end_date, access_until)
         SELECT gen_random_uuid(), id, 'premium_monthly', 'monthly', now() + interval '1 day', now() + interval '1 day'
         FROM made"
    ))
    .await;
    db.execute("ANALYZE").await;
    let config = Config::read(plane.environment())?;
    let issuer = TokenIssuer::new(&config.tokens)?;
    let ids = db.texts("SELECT id FROM users").await;
    let sign = |id: &String| -> anyhow::Result<(UserId, String)> {
        let user: UserId = id.parse()?;
        let signed = issuer.issue(user, Role::User, SessionId(user.0), Utc::now())?;
        Ok((user, signed.token.expose_secret().to_owned()))
    };
    ids.iter().map(sign).collect()
}
