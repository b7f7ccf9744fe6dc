//! What callers send, as it arrives and as the rules take it.

use std::str::FromStr;

use actix_web::HttpRequest;
use garde::Validate;
use serde::Deserialize;
use shared::ids::ConnectionId;
use utoipa::{IntoParams, ToSchema};

use crate::error::ApiError;
use crate::http::idempotency_key::idempotency_key;
use crate::http::number::whole;
use crate::tunnels::decision::Request;

/// The largest number that every JSON library reads exactly; eight petabytes.
const MAX_CLAIM: u64 = (1 << 53) - 1;

#[derive(Debug, Default, Deserialize, Validate, ToSchema)]
pub(super) struct ConnectBody {
    /// This server; otherwise the best one is chosen.
    #[garde(skip)]
    #[schema(format = Uuid)]
    server_id: Option<String>,
    /// A WireGuard public key. Its private key never leaves the client; without one, a pair is made
    /// and the private key is in `wg_config`, this once.
    #[garde(skip)]
    #[schema(
        example = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=",
        pattern = "^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$"
    )]
    client_public_key: Option<String>,
    /// A registered device, whose key is used.
    #[garde(skip)]
    #[schema(format = Uuid)]
    device_id: Option<String>,
    /// A location, country, ISO code or city.
    #[garde(inner(length(chars, max = 100)))]
    #[schema(example = "us-east", max_length = 100)]
    location: Option<String>,
}

#[derive(Debug, Default, Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ConnectQuery {
    /// The same as in the body, which comes first.
    #[garde(inner(length(chars, max = 100)))]
    #[param(example = "us-east", max_length = 100, nullable = false)]
    location: Option<String>,
}

impl ConnectBody {
    pub(super) fn into_request(
        self,
        query: ConnectQuery,
        http: &HttpRequest,
    ) -> Result<Request, ApiError> {
        Ok(Request {
            server: parsed("server_id", self.server_id, "Must be a UUID")?,
            public_key: self
                .client_public_key
                .map(|key| key.parse())
                .transpose()
                .map_err(|error: shared::wireguard::KeyError| {
                    ApiError::invalid("client_public_key", format!("Not usable: {error}"))
                })?,
            device: parsed("device_id", self.device_id, "Must be a UUID")?,
            location: self.location.or(query.location).filter(|it| !it.is_empty()),
            idempotency_key: idempotency_key(http)?,
        })
    }
}

#[derive(Debug, Default, Deserialize, Validate, ToSchema)]
pub(super) struct DisconnectBody {
    /// Needed where several connections are live.
    #[garde(skip)]
    #[schema(format = Uuid)]
    connection_id: Option<String>,
    /// What the client counted. The node's counters are what counts.
    #[garde(inner(range(max = MAX_CLAIM)))]
    #[serde(default, deserialize_with = "whole")]
    #[schema(maximum = 9_007_199_254_740_991_i64)]
    bytes_sent: Option<u64>,
    #[garde(inner(range(max = MAX_CLAIM)))]
    #[serde(default, deserialize_with = "whole")]
    #[schema(maximum = 9_007_199_254_740_991_i64)]
    bytes_received: Option<u64>,
}

impl DisconnectBody {
    pub(super) fn connection(&self) -> Result<Option<ConnectionId>, ApiError> {
        parsed(
            "connection_id",
            self.connection_id.clone(),
            "Must be a UUID",
        )
    }

    /// The client's own counts, if it sent any.
    pub(super) fn claimed(&self) -> Option<(u64, u64)> {
        if self.bytes_sent.is_none() && self.bytes_received.is_none() {
            return None;
        }
        let count = |bytes: Option<u64>| bytes.unwrap_or_default();
        Some((count(self.bytes_sent), count(self.bytes_received)))
    }
}

/// The id in a path. What is no id is no connection either.
pub(super) fn connection_in_path(text: &str) -> Result<ConnectionId, ApiError> {
    text.parse()
        .map_err(|_| crate::error::Code::ConnectionNotFound.into())
}

fn parsed<T: FromStr>(
    field: &'static str,
    text: Option<String>,
    message: &'static str,
) -> Result<Option<T>, ApiError> {
    text.map(|text| text.parse())
        .transpose()
        .map_err(|_| ApiError::invalid(field, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use actix_web::test::TestRequest;
    use rstest::rstest;

    fn body(json: &str) -> ConnectBody {
        serde_json::from_str(json).expect("JSON")
    }

    fn field(result: Result<Request, ApiError>) -> String {
        let error = result.expect_err("refused");
        assert_eq!(error.code(), Code::InvalidInput);
        error.envelope("req").error.details[0].field.clone()
    }

    #[rstest]
    #[case(r#"{"server_id":"1"}"#, "server_id")]
    #[case(r#"{"device_id":""}"#, "device_id")]
    #[case(r#"{"client_public_key":"abc"}"#, "client_public_key")]
    #[case(
        r#"{"client_public_key":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}"#,
        "client_public_key"
    )]
    fn a_bad_field_is_named(#[case] json: &str, #[case] name: &str) {
        let http = TestRequest::default().to_http_request();
        let result = body(json).into_request(ConnectQuery::default(), &http);
        assert_eq!(field(result), name);
    }

    #[rstest]
    #[case("", true)]
    #[case("a", false)]
    #[case(&"a".repeat(200), false)]
    #[case(&"a".repeat(201), true)]
    fn an_idempotency_key_is_bounded(#[case] key: &str, #[case] refused: bool) {
        let http = TestRequest::default()
            .insert_header(("Idempotency-Key", key))
            .to_http_request();
        let result = body("{}").into_request(ConnectQuery::default(), &http);
        assert_eq!(result.is_err(), refused);
    }

    #[test]
    fn the_body_s_location_comes_first() {
        let http = TestRequest::default().to_http_request();
        let query = || ConnectQuery {
            location: Some("paris".to_owned()),
        };
        let request = body(r#"{"location":"rome"}"#).into_request(query(), &http);
        assert_eq!(request.expect("valid").location.as_deref(), Some("rome"));
        let request = body("{}").into_request(query(), &http);
        assert_eq!(request.expect("valid").location.as_deref(), Some("paris"));
    }
}
