//! Whether the service runs and whether it can work.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, Responder, get, web};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;

use crate::app::{AppState, DependencyError, ping_postgres, ping_redis};

pub fn routes(config: &mut ServiceConfig<'_>) {
    config.service(health).service(live).service(ready);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = HealthStatus)]
enum Status {
    Healthy,
    /// Works, with something slower or missing.
    Degraded,
    Unhealthy,
}

#[derive(Debug, Serialize, ToSchema)]
struct Health {
    status: Status,
    #[schema(example = "0.1.0")]
    version: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
struct Readiness {
    status: Status,
    postgres: Dependency,
    redis: Dependency,
}

#[derive(Debug, Serialize, ToSchema)]
struct Dependency {
    status: Status,
    /// How long it took to answer; absent when it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 0.4)]
    milliseconds: Option<f64>,
}

/// The process answers. Asks no dependency.
#[utoipa::path(tag = "operations", security(()), responses((status = 200, description = "Alive", body = Health)))]
#[get("/health")]
async fn health() -> impl Responder {
    web::Json(alive())
}

/// The same as `/health`.
#[utoipa::path(tag = "operations", security(()), responses((status = 200, description = "Alive", body = Health)))]
#[get("/health/live")]
async fn live() -> impl Responder {
    web::Json(alive())
}

/// Asks Postgres and Redis. Without Redis the service is slower, without Postgres it does not work.
#[utoipa::path(
    tag = "operations",
    security(()),
    responses(
        (status = 200, description = "Works", body = Readiness),
        (status = 503, description = "Postgres does not answer", body = Readiness),
    ),
)]
#[get("/health/ready")]
async fn ready(state: web::Data<AppState>) -> HttpResponse {
    let (postgres, redis) = tokio::join!(ping_postgres(&state), ping_redis(&state));
    let (postgres, redis) = (dependency(postgres), dependency(redis));
    let (status, code) = match (postgres.status, redis.status) {
        (Status::Healthy, Status::Healthy) => (Status::Healthy, StatusCode::OK),
        (Status::Healthy, _) => (Status::Degraded, StatusCode::OK),
        _ => (Status::Unhealthy, StatusCode::SERVICE_UNAVAILABLE),
    };
    HttpResponse::build(code).json(Readiness {
        status,
        postgres,
        redis,
    })
}

const fn alive() -> Health {
    Health {
        status: Status::Healthy,
        version: env!("CARGO_PKG_VERSION"),
    }
}

fn dependency(answer: Result<Duration, DependencyError>) -> Dependency {
    match answer {
        Ok(time) => Dependency {
            status: Status::Healthy,
            milliseconds: Some(time.as_secs_f64() * 1000.0),
        },
        Err(error) => {
            tracing::warn!(%error, "not ready");
            Dependency {
                status: Status::Unhealthy,
                milliseconds: None,
            }
        }
    }
}
