//! Forms, as OAuth sends them.

use std::future::Future;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::web::Bytes;
use actix_web::{FromRequest, HttpMessage, HttpRequest};
use garde::Validate;
use serde::de::DeserializeOwned;

use crate::error::{ApiError, Code};
use crate::http::input;

/// The body of a form, which is not read yet: its errors are told in other forms than ours.
#[derive(Debug)]
pub(super) struct Form(Bytes);

impl Form {
    pub(super) fn read<T>(&self) -> Result<T, ApiError>
    where
        T: DeserializeOwned + Validate<Context = ()>,
    {
        let text =
            std::str::from_utf8(&self.0).map_err(|_| ApiError::invalid("body", "Must be UTF-8"))?;
        input::parse_query(text)
    }
}

impl FromRequest for Form {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let content_type = request.content_type().to_ascii_lowercase();
        let body = input::body(request, payload);
        Box::pin(async move {
            if content_type == "application/x-www-form-urlencoded" {
                body.await.map(Self)
            } else {
                let error = ApiError::new(Code::UnsupportedMediaType);
                Err(error.with_message("Send Content-Type: application/x-www-form-urlencoded"))
            }
        })
    }
}
