//! The outermost layer: gives each request its id and each response its headers, and writes the
//! error envelope, because only here are the id and the outcome both known.

use actix_web::HttpMessage;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderName,
    HeaderValue, REFERRER_POLICY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use actix_web::http::{Method, StatusCode};

use super::Answer;
use super::request_id::{REQUEST_ID, RequestId};
use crate::error::{ApiError, Code};

type Header = (HeaderName, HeaderValue);

/// With a request that came as `HEAD`: an answer without an end shall not begin.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadOnly;

const API_VERSION: Header = (
    HeaderName::from_static("x-api-version"),
    HeaderValue::from_static("1.0"),
);

/// On every response that does not bring its own.
const DEFAULTS: [Header; 6] = [
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

/// Also on pages: other windows cannot reach into them, and they ask for no sensor.
const PAGE_DEFAULTS: [Header; 2] = [
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (
        HeaderName::from_static("permissions-policy"),
        HeaderValue::from_static("camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    ),
];

/// The layer. `HEAD` is answered as `GET` is; the server leaves out the body.
pub async fn frame(
    mut request: ServiceRequest,
    next: impl AsyncFnOnce(ServiceRequest) -> Answer,
) -> Answer {
    let id = RequestId::give(&mut request);
    if *request.method() == Method::HEAD {
        request.head_mut().method = Method::GET;
        request.extensions_mut().insert(HeadOnly);
    }
    let response = next(request).await?;
    let mut response = match envelope(&response, &id) {
        Some((status, body)) => enveloped(response, status, body),
        None => response,
    };
    add_headers(&mut response, &id);
    Ok(response)
}

/// The envelope that shall become the body: of a handler's error, or of a bare error status of
/// actix's own. A handler that answers an error status with a body of its own keeps it.
fn envelope(response: &ServiceResponse, id: &RequestId) -> Option<(StatusCode, Vec<u8>)> {
    let inner = response.response();
    let status = inner.status();
    if !(status.is_client_error() || status.is_server_error()) {
        return None;
    }
    let foreign;
    let error = match inner.error() {
        Some(error) => match error.as_error::<ApiError>() {
            Some(error) => error,
            None => {
                foreign = ApiError::new(code_of(status));
                &foreign
            }
        },
        None if matches!(inner.body().size(), BodySize::None | BodySize::Sized(0)) => {
            foreign = ApiError::new(code_of(status));
            &foreign
        }
        None => return None,
    };
    let body = serde_json::to_vec(&error.envelope(id.as_str())).ok()?;
    Some((error.code().status(), body))
}

fn code_of(status: StatusCode) -> Code {
    match status {
        StatusCode::UNAUTHORIZED => Code::Unauthorized,
        StatusCode::FORBIDDEN => Code::Forbidden,
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => Code::MethodNotAllowed,
        StatusCode::CONFLICT => Code::Conflict,
        StatusCode::PAYLOAD_TOO_LARGE => Code::PayloadTooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Code::UnsupportedMediaType,
        StatusCode::TOO_MANY_REQUESTS => Code::RateLimited,
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        status if status.is_client_error() => Code::InvalidInput,
        _ => Code::Internal,
    }
}

fn enveloped(response: ServiceResponse, status: StatusCode, body: Vec<u8>) -> ServiceResponse {
    response.map_body(|head, _| {
        head.status = status;
        head.headers_mut().remove(CONTENT_LENGTH);
        head.headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        BoxBody::new(body)
    })
}

fn add_headers(response: &mut ServiceResponse, id: &RequestId) {
    let unauthorized = response.status() == StatusCode::UNAUTHORIZED;
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id.header());
    let (name, value) = API_VERSION;
    headers.insert(name, value);
    if unauthorized {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    add_missing(headers, DEFAULTS);
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    if content_type.is_some_and(|it| it.starts_with(b"text/html")) {
        add_missing(headers, PAGE_DEFAULTS);
    }
}

fn add_missing<const N: usize>(headers: &mut HeaderMap, defaults: [Header; N]) {
    for (name, value) in defaults {
        // One look-up where, as nearly always, the handler brought none of its own.
        let mut own = headers.insert(name.clone(), value);
        if let Some(first) = own.next() {
            headers.insert(name.clone(), first);
            own.for_each(|another| headers.append(name.clone(), another));
        }
    }
}
