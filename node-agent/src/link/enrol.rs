//! Trades an enrolment token for this node's identity.

use std::time::Duration;

use rustls::ClientConfig;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use shared::protocol::ENROL_PATH;
use shared::protocol::enrolment::{EnrolRequest, EnrolResponse};

use super::{Backoff, PlaneUrl, Retry};

/// The code of a plane that cannot answer right now, and has done nothing.
const BUSY: &str = "SERVICE_UNAVAILABLE";
/// How often a busy plane is asked.
const ATTEMPTS: usize = 6;
const TIMEOUT: Duration = Duration::from_secs(20);
/// Enough for every answer that the plane gives.
const MAX_BODY: usize = 64 * 1024;

/// Why the node was not enrolled, in words for an operator.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    #[error("the plane at {plane} cannot be reached: {detail}")]
    Unreachable { plane: PlaneUrl, detail: String },
    #[error("the plane refused: {message} ({code}){details}")]
    Refused {
        code: String,
        message: String,
        details: String,
    },
    #[error("{plane} answered {status} and not as a control plane does; is PLANE_URL right?")]
    Unexpected { plane: PlaneUrl, status: u16 },
}

#[derive(Debug, Deserialize)]
struct Envelope {
    error: Refusal,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    code: String,
    message: String,
    #[serde(default)]
    details: Vec<Detail>,
}

#[derive(Debug, Deserialize)]
struct Detail {
    field: String,
    message: String,
}

/// Asks, and again a few times where the plane says that it is busy, which leaves the token unused.
/// After any other failure it does not: whether a lost answer consumed the token, only the plane
/// knows.
pub async fn enrol(
    plane: &PlaneUrl,
    tls: ClientConfig,
    token: &SecretString,
    request: &EnrolRequest,
) -> Result<EnrolResponse, EnrolError> {
    let mut backoff = Backoff::default();
    for _ in 1..ATTEMPTS {
        match ask(plane, tls.clone(), token, request).await {
            Err(EnrolError::Refused { code, .. }) if code == BUSY => {
                let wait = backoff.next(Retry::Lost, &mut rand::rng());
                tokio::time::sleep(wait).await;
            }
            answer => return answer,
        }
    }
    ask(plane, tls, token, request).await
}

async fn ask(
    plane: &PlaneUrl,
    tls: ClientConfig,
    token: &SecretString,
    request: &EnrolRequest,
) -> Result<EnrolResponse, EnrolError> {
    let unreachable = |error: reqwest::Error| EnrolError::Unreachable {
        plane: plane.clone(),
        detail: causes(&error),
    };
    let mut response = client(tls)
        .map_err(unreachable)?
        .post(plane.http(ENROL_PATH))
        .bearer_auth(token.expose_secret())
        .json(request)
        .send()
        .await
        .map_err(unreachable)?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_BODY {
            break;
        }
    }
    let unexpected = || EnrolError::Unexpected {
        plane: plane.clone(),
        status: status.as_u16(),
    };
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(|_| unexpected());
    }
    let Envelope { error } = serde_json::from_slice(&body).map_err(|_| unexpected())?;
    Err(EnrolError::Refused {
        code: error.code,
        message: error.message,
        details: error
            .details
            .iter()
            .map(|detail| format!("; {}: {}", detail.field, detail.message))
            .collect(),
    })
}

/// For REST calls to the plane. Follows no redirect: the token goes to the plane alone.
pub fn client(tls: ClientConfig) -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .build()
}

/// The whole chain: the outermost text of an HTTP error says little, and some repeat their source.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}
