//! What a request costs at least: actix without anything around it.
//!
//! Each answer is given twice: at once, and after the round trips that ours makes, through pools of
//! the same making. Runs as a process of its own, as the plane does.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use actix_web::web::{self, Bytes, Data};
use actix_web::{App, HttpResponse, HttpServer, error};
use anyhow::Context;
use chrono::{TimeDelta, Utc};
use control_plane::db::{Pool, connect, statement};
use control_plane::secrets::{SecretToken, TokenHash};
use diesel::QueryableByName;
use diesel::sql_types::{Bool, Bytea, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use serde::{Deserialize, Serialize};
use shared::ids::UserId;

/// The variable with [`BareSettings`] as JSON, which makes this program the bare server.
pub const VARIABLE: &str = "BENCH_BARE";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BareSettings {
    pub port: u16,
    pub database_url: String,
    pub pool_size: u32,
    pub user: UserId,
    /// Files with the bodies that ours answers.
    pub me: PathBuf,
    pub servers: PathBuf,
    pub refresh: PathBuf,
    /// Refresh tokens in force, one a session.
    pub tokens: Vec<String>,
}

struct Bare {
    pool: Pool,
    user: UserId,
    me: Bytes,
    servers: Bytes,
    refresh: Bytes,
    tokens: Mutex<Vec<TokenHash>>,
}

/// Serves until the process is ended.
pub async fn serve(settings: BareSettings) -> anyhow::Result<()> {
    let read = |path: &PathBuf| std::fs::read(path).map(Bytes::from).context("a body");
    let bare = Data::new(Bare {
        pool: connect(&settings.database_url, settings.pool_size),
        user: settings.user,
        me: read(&settings.me)?,
        servers: read(&settings.servers)?,
        refresh: read(&settings.refresh)?,
        tokens: Mutex::new(
            settings
                .tokens
                .iter()
                .map(|token| TokenHash::of(token))
                .collect(),
        ),
    });
    let address = (Ipv4Addr::LOCALHOST, settings.port);
    HttpServer::new(move || {
        App::new()
            .app_data(bare.clone())
            .route("/ready", web::get().to(HttpResponse::Ok))
            .route(
                "/static/me",
                web::get().to(async |it: Data<Bare>| json(&it.me)),
            )
            .route(
                "/static/servers",
                web::get().to(async |it: Data<Bare>| json(&it.servers)),
            )
            .route(
                "/static/refresh",
                web::post().to(async |it: Data<Bare>| json(&it.refresh)),
            )
            .route("/trips/me", web::get().to(me))
            .route("/trips/refresh", web::post().to(refresh))
    })
    .workers(1)
    .bind(address)?
    .run()
    .await?;
    Ok(())
}

fn json(body: &Bytes) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("application/json")
        .body(body.clone())
}

async fn me(bare: Data<Bare>) -> Result<HttpResponse, actix_web::Error> {
    const SQL: &str = "
        SELECT u.id, u.email, u.full_name, u.role, u.is_active, u.is_verified, u.created_at,
               s.plan_id, s.plan_type, s.status, s.start_date, s.end_date, s.auto_renew,
               d.id, d.name, d.public_key, d.last_connected_at, d.created_at
          FROM users u
          LEFT JOIN subscriptions s ON s.user_id = u.id AND s.status <> 'canceled'
          LEFT JOIN devices d ON d.user_id = u.id
         WHERE u.id = $1 ORDER BY d.id";

    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = Text)]
        email: String,
    }

    let mut connection = bare
        .pool
        .get()
        .await
        .map_err(error::ErrorInternalServerError)?;
    let rows: Vec<Row> = statement(SQL)
        .bind::<SqlUuid, _>(bare.user.0)
        .load(&mut connection)
        .await
        .map_err(error::ErrorInternalServerError)?;
    match rows.as_slice().first() {
        Some(row) if !row.email.is_empty() => Ok(json(&bare.me)),
        _ => Err(error::ErrorNotFound("nobody")),
    }
}

/// One token for the next, by the statement of ours.
async fn refresh(bare: Data<Bare>) -> Result<HttpResponse, actix_web::Error> {
    const SQL: &str = "
        WITH session AS (
            SELECT id, user_id, revoked_at IS NULL AND expires_at > $4 AS is_live
              FROM sessions
             WHERE id = (SELECT session_id FROM refresh_tokens WHERE token_hash = $1)
               AND client_id IS NOT DISTINCT FROM $2
               FOR UPDATE
        ), presented AS (
            SELECT session.*, t.used_at IS NOT NULL AS is_used
              FROM session JOIN refresh_tokens t ON t.session_id = session.id AND t.token_hash = $1
               FOR UPDATE OF t
        ), judged AS (
            SELECT p.*, u.role, NOT u.is_active AND u.deleted_at IS NULL AS is_suspended,
                   p.is_live AND NOT p.is_used AND u.is_active AS is_good
              FROM presented p JOIN users u ON u.id = p.user_id
        ), used AS (
            UPDATE refresh_tokens t SET used_at = now() FROM judged
             WHERE t.token_hash = $1 AND judged.is_good
            RETURNING t.session_id
        ), next AS (
            INSERT INTO refresh_tokens (token_hash, session_id) SELECT $3, session_id FROM used
        ), kept AS (
            UPDATE sessions s SET last_used_at = now(), expires_at = $5 FROM used
             WHERE s.id = used.session_id
        ), forgotten AS (
            DELETE FROM refresh_tokens t USING used
             WHERE t.session_id = used.session_id AND t.used_at < $6
        )
        SELECT id, user_id, role, is_good, is_used, is_suspended FROM judged";

    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = Bool)]
        is_good: bool,
    }

    let tokens = || bare.tokens.lock().unwrap_or_else(PoisonError::into_inner);
    let old = tokens().pop();
    let old = old.ok_or_else(|| error::ErrorInternalServerError("too few tokens"))?;
    let (next, now) = (SecretToken::generate().hash(), Utc::now());
    let life = TimeDelta::days(30);
    let mut connection = bare
        .pool
        .get()
        .await
        .map_err(error::ErrorInternalServerError)?;
    let row: Row = statement(SQL)
        .bind::<Bytea, _>(old.as_bytes().as_slice())
        .bind::<Nullable<Text>, _>(None::<&str>)
        .bind::<Bytea, _>(next.as_bytes().as_slice())
        .bind::<Timestamptz, _>(now)
        .bind::<Timestamptz, _>(now + life)
        .bind::<Timestamptz, _>(now - life)
        .get_result(&mut connection)
        .await
        .map_err(error::ErrorInternalServerError)?;
    if !row.is_good {
        return Err(error::ErrorInternalServerError("the token is not in force"));
    }
    tokens().push(next);
    Ok(json(&bare.refresh))
}
