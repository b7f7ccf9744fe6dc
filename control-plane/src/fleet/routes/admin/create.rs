use actix_web::{HttpResponse, post, web};
use garde::Validate;
use serde::Deserialize;
use utoipa::ToSchema;

use super::views::ManagedView;
use super::wire::{self, StatusWord, trimmed};
use super::{by, shown};
use crate::app::AppState;
use crate::error::{ApiError, ErrorEnvelope};
use crate::fleet::store::{NewServer, Place};
use crate::fleet::view::ServerStatus;
use crate::http::number::whole_as;
use crate::http::permission::WriteServers;
use crate::http::{Allowed, RequestId, ValidJson};

/// Mbit/s of a server that nobody said otherwise of.
const USUAL_MBPS: i32 = 1_000;

#[derive(Debug, Deserialize, Validate, ToSchema)]
#[schema(as = NewServer)]
pub(super) struct CreateBody {
    #[garde(custom(wire::hostname))]
    #[schema(
        example = "fra2.example.net",
        max_length = 253,
        pattern = r"^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$"
    )]
    hostname: String,
    #[garde(custom(wire::name))]
    #[schema(
        example = "Germany",
        max_length = 100,
        pattern = r"^[^\s\u0000-\u001f\u007f-\u009f]([^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f])?$"
    )]
    country: String,
    /// ISO 3166-1 alpha-2.
    #[garde(custom(wire::country_code))]
    #[schema(example = "DE", pattern = "^[A-Za-z]{2}$")]
    country_code: String,
    #[garde(custom(wire::name))]
    #[schema(
        example = "Frankfurt",
        max_length = 100,
        pattern = r"^[^\s\u0000-\u001f\u007f-\u009f]([^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f])?$"
    )]
    city: String,
    /// The region that clients choose by.
    #[garde(custom(wire::name))]
    #[schema(
        example = "eu-central",
        max_length = 100,
        pattern = r"^[^\s\u0000-\u001f\u007f-\u009f]([^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f])?$"
    )]
    location: String,
    #[garde(skip)]
    #[schema(inline)]
    status: Option<StatusWord>,
    /// The lowest plan tier that may use the server.
    #[garde(inner(range(min = 0)))]
    #[schema(minimum = 0, maximum = 32_767)]
    #[serde(default, deserialize_with = "whole_as")]
    tier: Option<i16>,
    #[garde(inner(range(min = 1, max = 10_000_000)))]
    #[schema(minimum = 1, maximum = 10_000_000, example = 1000)]
    #[serde(default, deserialize_with = "whole_as")]
    download_mbps: Option<i32>,
    #[garde(inner(range(min = 1, max = 10_000_000)))]
    #[schema(minimum = 1, maximum = 10_000_000, example = 1000)]
    #[serde(default, deserialize_with = "whole_as")]
    upload_mbps: Option<i32>,
    #[garde(inner(custom(wire::labels)))]
    #[schema(schema_with = wire::label_list)]
    streaming_services: Option<Vec<String>>,
    #[garde(inner(custom(wire::labels)))]
    #[schema(schema_with = wire::label_list)]
    features: Option<Vec<String>>,
}

impl From<CreateBody> for NewServer {
    fn from(body: CreateBody) -> Self {
        let place = Place {
            hostname: body.hostname.to_lowercase(),
            country: trimmed(&body.country),
            country_code: body.country_code.to_uppercase(),
            city: trimmed(&body.city),
            location: trimmed(&body.location),
            tier: body.tier.unwrap_or(0),
        };
        Self {
            place: place.into(),
            status: ServerStatus::from(body.status.unwrap_or(StatusWord::Active)).as_str(),
            download_mbps: body.download_mbps.unwrap_or(USUAL_MBPS),
            upload_mbps: body.upload_mbps.unwrap_or(USUAL_MBPS),
            protocols: vec!["wireguard".to_owned()],
            streaming_services: body.streaming_services.unwrap_or_default(),
            features: body.features.unwrap_or_default(),
        }
    }
}

/// Puts a server into the catalogue, before its host.
///
/// It takes clients once a host has enrolled under its name.
#[utoipa::path(
    tag = "administration",
    security(("bearer" = []), ("operator" = [])),
    request_body = CreateBody,
    responses(
        (status = 201, description = "The new server", body = ManagedView),
        (status = 409, description = "HOSTNAME_TAKEN", body = ErrorEnvelope),
    ),
)]
#[post("/admin/servers")]
pub(super) async fn create_server(
    state: web::Data<AppState>,
    allowed: Allowed<WriteServers>,
    request: RequestId,
    ValidJson(body): ValidJson<CreateBody>,
) -> Result<HttpResponse, ApiError> {
    let by = by(&allowed.actor, &request);
    let server = state.fleet().create(&body.into(), by).await?;
    let view = shown(&state, server).await?;
    Ok(HttpResponse::Created().json(view.0))
}
