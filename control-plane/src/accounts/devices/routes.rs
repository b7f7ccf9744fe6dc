//! `/users/me/devices`

use actix_web::{HttpRequest, HttpResponse, delete, get, post, web};
use chrono::Utc;
use garde::Validate;
use serde::Deserialize;
use shared::wireguard::{KeyError, PublicKey};
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;

use super::{add, remove, store};
use crate::accounts::routes::views::DeviceView;
use crate::app::AppState;
use crate::error::{ApiError, Code, ErrorEnvelope};
use crate::http::text::plain;
use crate::http::{CurrentUser, Page, PageQuery, RequestId, ValidJson, ValidQuery};

pub fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(list_devices)
        .service(add_device)
        .service(remove_device);
}

#[derive(Debug, Deserialize, Validate, ToSchema)]
struct NewDevice {
    #[garde(length(chars, min = 1, max = 100), custom(plain))]
    #[schema(
        example = "Phone",
        min_length = 1,
        max_length = 100,
        pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$"
    )]
    name: String,
    /// WireGuard's, in base64. Its private key never leaves the device.
    #[garde(skip)]
    #[schema(
        example = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
        min_length = 44,
        max_length = 44,
        pattern = "^(?!A{43}=)[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$"
    )]
    public_key: String,
}

/// The caller's devices, the oldest first.
#[utoipa::path(
    tag = "accounts",
    security(("bearer" = [])),
    params(PageQuery),
    responses((status = 200, description = "One page of devices", body = Page<DeviceView>)),
)]
#[get("/users/me/devices")]
async fn list_devices(
    request: HttpRequest,
    state: web::Data<AppState>,
    user: CurrentUser,
    ValidQuery(asked): ValidQuery<PageQuery>,
) -> Result<web::Json<Page<DeviceView>>, ApiError> {
    let (devices, total) = {
        let mut connection = state.db().get().await?;
        store::list(&mut connection, user.id, (asked.offset(), asked.limit())).await?
    };
    let data = devices.into_iter().map(Into::into).collect();
    let (path, query) = (request.path(), request.query_string());
    Ok(web::Json(Page::new(data, total, asked, path, query)))
}

/// Registers a device, as many as the plan allows.
#[utoipa::path(
    tag = "accounts",
    security(("bearer" = [])),
    request_body = NewDevice,
    responses(
        (status = 201, description = "The new device", body = DeviceView),
        (status = 403, description = "DEVICE_LIMIT, ACCOUNT_SUSPENDED", body = ErrorEnvelope),
        (status = 409, description = "KEY_IN_USE", body = ErrorEnvelope),
    ),
)]
#[post("/users/me/devices")]
async fn add_device(
    state: web::Data<AppState>,
    user: CurrentUser,
    request: RequestId,
    ValidJson(new): ValidJson<NewDevice>,
) -> Result<HttpResponse, ApiError> {
    let key: PublicKey = new.public_key.parse().map_err(|error: KeyError| {
        ApiError::invalid("public_key", format!("Not usable: {error}"))
    })?;
    let device = add(&state, user.id, new.name, key, &request, Utc::now()).await?;
    Ok(HttpResponse::Created().json(DeviceView::from(device)))
}

/// Removes a device and ends its connection.
#[utoipa::path(
    tag = "accounts",
    security(("bearer" = [])),
    params(("id" = String, Path, format = Uuid, description = "The device's id")),
    responses(
        (status = 204, description = "The device is gone"),
        (status = 404, description = "DEVICE_NOT_FOUND", body = ErrorEnvelope),
    ),
)]
#[delete("/users/me/devices/{id}")]
async fn remove_device(
    state: web::Data<AppState>,
    user: CurrentUser,
    request: RequestId,
    path: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let device = path.parse().map_err(|_| Code::DeviceNotFound)?;
    remove(&state, user.id, device, &request).await?;
    Ok(HttpResponse::NoContent().finish())
}
