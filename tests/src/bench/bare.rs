//! What a request costs at least: actix without anything around it.
//!
//! Each answer is given twice: at once, and after the round trips that ours makes, through pools of
//! the same making. Runs as a process of its own, as the plane does.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use actix_web::web::{self, Bytes, Data};
use actix_web::{App, HttpResponse, HttpServer, error};
use anyhow::Context;
use control_plane::db::{Pool, connect, statement};
use diesel::QueryableByName;
use diesel::sql_types::{Text, Uuid as SqlUuid};
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
}

struct Bare {
    pool: Pool,
    user: UserId,
    me: Bytes,
    servers: Bytes,
}

/// Serves until the process is ended.
pub async fn serve(settings: BareSettings) -> anyhow::Result<()> {
    let read = |path: &PathBuf| std::fs::read(path).map(Bytes::from).context("a body");
    let bare = Data::new(Bare {
        pool: connect(&settings.database_url, settings.pool_size),
        user: settings.user,
        me: read(&settings.me)?,
        servers: read(&settings.servers)?,
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
            .route("/trips/me", web::get().to(me))
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
