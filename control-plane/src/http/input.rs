//! Extractors that hand a handler only what is valid, and say what is not field by field.

use std::future::Future;
use std::io;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::error::{PathError, PayloadError};
use actix_web::http::header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use actix_web::web::{self, Bytes, PathConfig, PayloadConfig};
use actix_web::{FromRequest, HttpMessage, HttpRequest, ResponseError};
use garde::Validate;
use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;

use crate::error::{ApiError, Code};

/// The largest body of a route that does not say otherwise, in bytes.
pub const BODY_LIMIT: usize = 64 * 1024;

type Extracting<T> = Pin<Box<dyn Future<Output = Result<T, ApiError>>>>;

/// A JSON body that passed its rules. `Content-Type: application/json` is needed.
#[derive(Debug)]
pub struct ValidJson<T>(pub T);

/// The same where the whole body may be left out or null, which means the default.
#[derive(Debug)]
pub struct OptionalJson<T>(pub T);

/// A form's fields that passed their rules. `Content-Type: application/x-www-form-urlencoded` is
/// needed.
#[derive(Debug)]
pub struct ValidForm<T>(pub T);

/// A query string that passed its rules.
#[derive(Debug)]
pub struct ValidQuery<T>(pub T);

/// A JSON body as it came, for a type whose rules are elsewhere.
#[derive(Debug)]
pub struct JsonBytes(pub Bytes);

impl FromRequest for JsonBytes {
    type Error = ApiError;
    type Future = Extracting<Self>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let is_json = is_json(request);
        let body = body(request, payload);
        Box::pin(async move {
            if !is_json {
                return Err(needs_json());
            }
            body.await.map(Self)
        })
    }
}

impl<T> FromRequest for ValidJson<T>
where
    T: DeserializeOwned + Validate<Context = ()> + 'static,
{
    type Error = ApiError;
    type Future = Extracting<Self>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let body = JsonBytes::from_request(request, payload);
        Box::pin(async move { parse(&body.await?.0).map(Self) })
    }
}

impl<T> FromRequest for OptionalJson<T>
where
    T: DeserializeOwned + Validate<Context = ()> + Default + 'static,
{
    type Error = ApiError;
    type Future = Extracting<Self>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let has_body = request.headers().contains_key(TRANSFER_ENCODING)
            || request.headers().contains_key(CONTENT_LENGTH)
            || request.headers().contains_key(CONTENT_TYPE);
        let is_json = is_json(request);
        let body = body(request, payload);
        Box::pin(async move {
            if !has_body {
                return Ok(Self(T::default()));
            }
            let body = body.await?;
            if body.is_empty() {
                return Ok(Self(T::default()));
            }
            if !is_json {
                return Err(needs_json());
            }
            let value: Option<T> = parse(&body)?;
            Ok(Self(value.unwrap_or_default()))
        })
    }
}

impl<T> FromRequest for ValidForm<T>
where
    T: DeserializeOwned + Validate<Context = ()> + 'static,
{
    type Error = ApiError;
    type Future = Extracting<Self>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let is_form = request
            .content_type()
            .eq_ignore_ascii_case("application/x-www-form-urlencoded");
        let body = body(request, payload);
        Box::pin(async move {
            if !is_form {
                return Err(Code::UnsupportedMediaType.into());
            }
            parse_form(&body.await?).map(Self)
        })
    }
}

impl<T> FromRequest for ValidQuery<T>
where
    T: DeserializeOwned + Validate<Context = ()> + 'static,
{
    type Error = ApiError;
    type Future = std::future::Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        std::future::ready(parse_query(request.query_string()).map(Self))
    }
}

/// The body within the limits, decompressed. The listener gives it its time.
pub fn body(
    request: &HttpRequest,
    payload: &mut Payload,
) -> impl Future<Output = Result<Bytes, ApiError>> + use<> {
    let bytes = Bytes::from_request(request, payload);
    async move { bytes.await.map_err(|error| bad_body(&error)) }
}

/// The body as it was sent, of at most so many bytes: for whom every byte is signed, and no other limit holds.
pub async fn raw(payload: web::Payload, limit: usize) -> Result<Bytes, ApiError> {
    match payload.to_bytes_limited(limit).await {
        Ok(bytes) => bytes.map_err(|error| bad_body(&error)),
        Err(_) => Err(Code::PayloadTooLarge.into()),
    }
}

/// Parses and validates a JSON text.
pub fn parse<T>(body: &[u8]) -> Result<T, ApiError>
where
    T: DeserializeOwned + Validate<Context = ()>,
{
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json)
        .map_err(|error| misread("body", &error))
        .and_then(|value| {
            json.end()
                .map(|()| value)
                .map_err(|error| ApiError::invalid("body", sentence(&error.to_string())))
        })?;
    validated(value)
}

/// Parses and validates a query string.
pub fn parse_query<T>(query: &str) -> Result<T, ApiError>
where
    T: DeserializeOwned + Validate<Context = ()>,
{
    parse_pairs("query", query.as_bytes())
}

/// Parses and validates a form's body.
pub fn parse_form<T>(body: &[u8]) -> Result<T, ApiError>
where
    T: DeserializeOwned + Validate<Context = ()>,
{
    parse_pairs("body", body)
}

fn parse_pairs<T>(whole: &str, encoded: &[u8]) -> Result<T, ApiError>
where
    T: DeserializeOwned + Validate<Context = ()>,
{
    let pairs = serde_urlencoded::Deserializer::new(form_urlencoded::parse(encoded));
    let value = serde_path_to_error::deserialize(pairs).map_err(|error| misread(whole, &error))?;
    validated(value)
}

/// The value, or every rule that it breaks.
pub fn validated<T: Validate<Context = ()>>(value: T) -> Result<T, ApiError> {
    match value.validate() {
        Ok(()) => Ok(value),
        Err(report) => Err(report.iter().fold(
            ApiError::new(Code::InvalidInput),
            |error, (path, broken)| error.with_detail(path.to_string(), sentence(broken.message())),
        )),
    }
}

/// Limits of bodies, and errors of actix's own extractors in our envelope.
pub fn configure(config: &mut web::ServiceConfig) {
    config
        .app_data(PayloadConfig::new(BODY_LIMIT))
        .app_data(PathConfig::default().error_handler(|error, _| bad_path(&error).into()));
}

fn is_json(request: &HttpRequest) -> bool {
    request.mime_type().ok().flatten().is_some_and(|mime| {
        mime.type_() == "application"
            && (mime.subtype() == "json" || mime.suffix().is_some_and(|suffix| suffix == "json"))
    })
}

fn needs_json() -> ApiError {
    ApiError::new(Code::UnsupportedMediaType).with_message("Send Content-Type: application/json")
}

/// `PayloadError` arrives as actix's own error, whose status tells a long body from a broken one.
fn bad_body(error: &actix_web::Error) -> ApiError {
    match error.as_error::<PayloadError>() {
        Some(error) if error.status_code() == Code::PayloadTooLarge.status() => {
            Code::PayloadTooLarge.into()
        }
        Some(PayloadError::Io(error)) if error.kind() == io::ErrorKind::TimedOut => {
            ApiError::invalid("body", "Did not arrive in time")
        }
        _ => ApiError::invalid("body", "Could not be read"),
    }
}

/// An error at the field where it happened; at `whole` where no field is to blame.
fn misread<E: std::fmt::Display>(whole: &str, error: &serde_path_to_error::Error<E>) -> ApiError {
    let text = error.inner().to_string();
    let path = error.path();
    let is_field = path.iter().len() > 0 && !path.iter().any(|it| matches!(it, Segment::Unknown));
    match missing_field(&text) {
        Some(field) if is_field => ApiError::invalid(format!("{path}.{field}"), "Is required"),
        Some(field) => ApiError::invalid(field, "Is required"),
        None if is_field => ApiError::invalid(path.to_string(), sentence(&text)),
        None => ApiError::invalid(whole, sentence(&text)),
    }
}

fn bad_path(error: &PathError) -> ApiError {
    match error {
        PathError::Deserialize(error) => ApiError::invalid("path", sentence(&error.to_string())),
        _ => ApiError::invalid("path", "Could not be read"),
    }
}

/// serde's message for an absent field names it in backquotes.
fn missing_field(text: &str) -> Option<&str> {
    text.strip_prefix("missing field `")?.split('`').next()
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

#[cfg(test)]
mod tests {
    use actix_web::http::header;
    use actix_web::test::TestRequest;
    use rstest::rstest;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize, Validate)]
    struct Place {
        #[garde(inner(length(min = 2)))]
        city: Option<String>,
        #[garde(range(max = 3))]
        #[serde(default)]
        tier: u8,
    }

    fn refused(error: &ApiError) -> (&'static str, Vec<String>) {
        let fields = error.envelope("").error.details.into_iter();
        (
            error.code().as_str(),
            fields.map(|detail| detail.field).collect(),
        )
    }

    async fn optional(request: TestRequest) -> Result<Place, ApiError> {
        let (request, mut payload) = request.to_http_parts();
        OptionalJson::<Place>::from_request(&request, &mut payload)
            .await
            .map(|OptionalJson(place)| place)
    }

    #[actix_web::test]
    async fn a_body_may_be_left_out() {
        assert_eq!(
            optional(TestRequest::post()).await.unwrap(),
            Place::default()
        );
        let empty = TestRequest::post().insert_header((header::CONTENT_LENGTH, 0));
        assert_eq!(optional(empty).await.unwrap(), Place::default());
        let typed = || TestRequest::post().insert_header(header::ContentType::json());
        assert_eq!(optional(typed()).await.unwrap(), Place::default());
        let null = typed().set_payload("null");
        assert_eq!(optional(null).await.unwrap(), Place::default());
    }

    #[actix_web::test]
    async fn a_body_that_is_there_is_held_to_the_rules() {
        let json = |body: &'static str| {
            TestRequest::post()
                .insert_header(header::ContentType::json())
                .set_payload(body)
        };
        let place = optional(json(r#"{"city":"Oslo"}"#)).await.unwrap();
        assert_eq!(place.city.as_deref(), Some("Oslo"));
        let error = optional(json(r#"{"city":"O","tier":4}"#))
            .await
            .unwrap_err();
        assert_eq!(
            refused(&error),
            ("INVALID_INPUT", vec!["city".into(), "tier".into()])
        );
        let text = TestRequest::post()
            .insert_header(header::ContentType::plaintext())
            .insert_header((header::CONTENT_LENGTH, 2))
            .set_payload("{}");
        assert_eq!(
            refused(&optional(text).await.unwrap_err()).0,
            "UNSUPPORTED_MEDIA_TYPE"
        );
    }

    #[rstest]
    #[case("", Ok(0))]
    #[case("?tier=2&city=Oslo", Ok(2))]
    #[case("?tier=4", Err("tier"))]
    #[case("?tier=x", Err("tier"))]
    #[case("?city=O", Err("city"))]
    #[actix_web::test]
    async fn a_query_is_held_to_the_rules(#[case] query: &str, #[case] tier: Result<u8, &str>) {
        let request = TestRequest::get()
            .uri(&format!("/{query}"))
            .to_http_request();
        let result = ValidQuery::<Place>::extract(&request).await;
        match (result, tier) {
            (Ok(ValidQuery(place)), Ok(tier)) => assert_eq!(place.tier, tier),
            (Err(error), Err(field)) => assert_eq!(refused(&error).1, [field]),
            (result, _) => panic!("{result:?}"),
        }
    }

    #[actix_web::test]
    async fn a_path_that_cannot_be_read_is_explained() {
        let app = actix_web::App::new().configure(configure).route(
            "/{id}",
            web::get().to(async |id: web::Path<uuid::Uuid>| id.to_string()),
        );
        let service = actix_web::test::init_service(app).await;
        let request = TestRequest::get().uri("/none").to_request();
        let response = actix_web::test::call_service(&service, request).await;
        let error = response.response().error().unwrap();
        assert_eq!(
            refused(error.as_error().unwrap()),
            ("INVALID_INPUT", vec!["path".into()])
        );
    }
}
