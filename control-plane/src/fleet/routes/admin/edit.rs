use actix_web::{patch, web};
use garde::Validate;
use serde::Deserialize;
use utoipa::ToSchema;

use super::views::ManagedView;
use super::wire::{self, trimmed};
use super::{by, changed};
use crate::app::AppState;
use crate::error::{ApiError, ErrorEnvelope};
use crate::fleet::admin::Change;
use crate::fleet::store::Edit;
use crate::http::number::whole_as;
use crate::http::permission::WriteServers;
use crate::http::{Allowed, RequestId, ValidJson};

/// What is left out stays as it is.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[schema(as = ServerEdit)]
pub(super) struct EditBody {
    /// Another name. Unused enrolment tokens for the old one are void.
    #[garde(inner(custom(wire::hostname)))]
    #[schema(
        example = "fra2.example.net",
        max_length = 253,
        pattern = r"^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$"
    )]
    hostname: Option<String>,
    #[garde(inner(custom(wire::name)))]
    #[schema(
        example = "Germany",
        max_length = 100,
        pattern = r"^[^\s\u0000-\u001f\u007f-\u009f]([^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f])?$"
    )]
    country: Option<String>,
    /// ISO 3166-1 alpha-2.
    #[garde(inner(custom(wire::country_code)))]
    #[schema(example = "DE", pattern = "^[A-Za-z]{2}$")]
    country_code: Option<String>,
    #[garde(inner(custom(wire::name)))]
    #[schema(
        example = "Frankfurt",
        max_length = 100,
        pattern = r"^[^\s\u0000-\u001f\u007f-\u009f]([^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f])?$"
    )]
    city: Option<String>,
    /// The region that clients choose by.
    #[garde(inner(custom(wire::name)))]
    #[schema(
        example = "eu-central",
        max_length = 100,
        pattern = r"^[^\s\u0000-\u001f\u007f-\u009f]([^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f])?$"
    )]
    location: Option<String>,
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

impl From<EditBody> for Edit {
    fn from(body: EditBody) -> Self {
        Self {
            hostname: body.hostname.map(|name| name.to_lowercase()),
            country: body.country.as_deref().map(trimmed),
            country_code: body.country_code.map(|code| code.to_uppercase()),
            city: body.city.as_deref().map(trimmed),
            location: body.location.as_deref().map(trimmed),
            tier: body.tier,
            download_mbps: body.download_mbps,
            upload_mbps: body.upload_mbps,
            protocols: None,
            streaming_services: body.streaming_services,
            features: body.features,
        }
    }
}

/// Changes what the catalogue says of a server, its name included.
#[utoipa::path(
    tag = "administration",
    security(("bearer" = []), ("operator" = [])),
    params(("id" = String, Path, format = Uuid, description = "The server's id")),
    request_body = EditBody,
    responses(
        (status = 200, description = "The server as it is now", body = ManagedView),
        (status = 404, description = "SERVER_NOT_FOUND", body = ErrorEnvelope),
        (status = 409, description = "HOSTNAME_TAKEN", body = ErrorEnvelope),
    ),
)]
#[patch("/admin/servers/{id}")]
pub(super) async fn edit_server(
    state: web::Data<AppState>,
    allowed: Allowed<WriteServers>,
    request: RequestId,
    path: web::Path<String>,
    ValidJson(body): ValidJson<EditBody>,
) -> Result<web::Json<ManagedView>, ApiError> {
    let by = by(&allowed.actor, &request);
    changed(&state, &path, Change::Edit(Box::new(body.into())), by).await
}
