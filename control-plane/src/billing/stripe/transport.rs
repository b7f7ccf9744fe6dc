//! One call: its attempts, their time, and what becomes of them.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::{
    AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, InvalidHeaderValue,
};
use reqwest::{Method, Response, Url};
use rustls::RootCertStore;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use tokio::time::sleep;
use uuid::Uuid;

use super::breaker::Breaker;
use super::form::Form;
use super::retry::{ATTEMPTS, Verdict, judge, pause};
use super::{Refusal, StripeError};
use crate::config::StripeConfig;

const VERSION: HeaderName = HeaderName::from_static("stripe-version");
const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const ADVICE: HeaderName = HeaderName::from_static("stripe-should-retry");
const REPEATED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// A page of a hundred expanded things is a tenth of this.
const MAX_ANSWER: usize = 8 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum StripeSetupError {
    #[error("STRIPE_SECRET_KEY or STRIPE_API_VERSION cannot be sent")]
    Header(#[from] InvalidHeaderValue),
    #[error("STRIPE_API_BASE cannot be called")]
    Base,
    #[error("no client for Stripe can be made")]
    Client(#[from] reqwest::Error),
}

/// What makes a call have its effect once.
#[derive(Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// Of a committed row, and what is done for it. Stripe knows a key for a day at least.
    #[must_use]
    pub fn of(row: Uuid, act: &'static str) -> Self {
        Self(format!("{act}-{row}"))
    }

    /// Of one request alone, for what sets a state: the same however often it is done, and never a charge by itself.
    #[must_use]
    pub fn once(act: &'static str) -> Self {
        Self::of(Uuid::now_v7(), act)
    }

    /// Another one where this is another: Stripe refuses one key with two different calls.
    #[must_use]
    pub fn with(self, detail: &str) -> Self {
        let digest = hex::encode(Sha256::digest(detail.as_bytes()));
        Self(format!("{}-{digest}", self.0))
    }
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The account at Stripe.
pub struct Stripe {
    http: reqwest::Client,
    base: Url,
    breaker: Mutex<Breaker>,
}

/// What is asked, the same at every attempt.
struct Call<'a> {
    method: Method,
    path: &'a [&'a str],
    form: &'a Form,
    key: Option<&'a IdempotencyKey>,
}

/// What came, before anybody knows what it means.
struct Answer {
    status: u16,
    advice: Option<bool>,
    is_repeated: bool,
    body: Vec<u8>,
}

impl Stripe {
    pub fn new(config: &StripeConfig, key: &SecretString) -> Result<Self, StripeSetupError> {
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret()))?;
        bearer.set_sensitive(true);
        let headers = HeaderMap::from_iter([
            (AUTHORIZATION, bearer),
            (VERSION, HeaderValue::from_str(&config.api_version)?),
        ]);
        let base = Url::parse(&config.api_base).map_err(|_| StripeSetupError::Base)?;
        let mut client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls())
            .default_headers(headers)
            .user_agent(concat!("prime-vpn/", env!("CARGO_PKG_VERSION")))
            .timeout(config.timeout)
            .connect_timeout(config.timeout.min(Duration::from_secs(5)))
            // The key is for the named host alone.
            .redirect(reqwest::redirect::Policy::none());
        if base.scheme() == "http" {
            client = client.no_proxy();
        }
        Ok(Self {
            http: client.build()?,
            base,
            breaker: Mutex::default(),
        })
    }

    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        form: &Form,
    ) -> Result<T, StripeError> {
        self.call(&Call {
            method: Method::GET,
            path,
            form,
            key: None,
        })
        .await
    }

    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &[&str],
        form: &Form,
        key: &IdempotencyKey,
    ) -> Result<T, StripeError> {
        self.call(&Call {
            method: Method::POST,
            path,
            form,
            key: Some(key),
        })
        .await
    }

    /// Needs no key: what was deleted already is missing, which says the same.
    pub(super) async fn delete<T: DeserializeOwned>(
        &self,
        path: &[&str],
        form: &Form,
    ) -> Result<T, StripeError> {
        self.call(&Call {
            method: Method::DELETE,
            path,
            form,
            key: None,
        })
        .await
    }

    async fn call<T: DeserializeOwned>(&self, call: &Call<'_>) -> Result<T, StripeError> {
        let resource = call.resource();
        let began = Instant::now();
        let result = self.attempts(call).await;
        let outcome = match &result {
            Ok(_) => "done",
            Err(StripeError::Refused { .. }) => "refused",
            Err(_) => "failed",
        };
        metrics::counter!("stripe_calls_total", "resource" => resource, "outcome" => outcome)
            .increment(1);
        metrics::histogram!("stripe_call_seconds").record(began.elapsed().as_secs_f64());
        let body = result?;
        serde_json::from_slice(&body).map_err(|error| unreadable(&error))
    }

    /// The body of the first answer that is neither a failure nor a refusal.
    async fn attempts(&self, call: &Call<'_>) -> Result<Vec<u8>, StripeError> {
        let mut made = 0;
        loop {
            if !self.breaker(|breaker| breaker.admits(Instant::now())) {
                return Err(StripeError::Suspended);
            }
            made += 1;
            let (error, is_worth_another) = match self.attempt(call).await {
                Err(error) => {
                    let may_pass = error.is_recoverable();
                    (error, may_pass)
                }
                Ok(answer) => match answer.verdict() {
                    Verdict::Done => return Ok(answer.body),
                    verdict => (answer.error(verdict), verdict == Verdict::Again),
                },
            };
            if !is_worth_another || made >= ATTEMPTS {
                return Err(error);
            }
            tracing::debug!(resource = call.resource(), made, %error, "stripe.again");
            sleep(pause(made, rand::random())).await;
        }
    }

    async fn attempt(&self, call: &Call<'_>) -> Result<Answer, StripeError> {
        let result = self.exchange(call).await;
        self.breaker(|breaker| match &result {
            Ok(answer) if answer.status < 500 => breaker.answered(),
            _ => breaker.failed(Instant::now()),
        });
        result
    }

    async fn exchange(&self, call: &Call<'_>) -> Result<Answer, StripeError> {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.clear().push("v1").extend(call.path);
        }
        let encoded = call.form.encode();
        let mut request = if call.method == Method::POST {
            let form = HeaderValue::from_static("application/x-www-form-urlencoded");
            let request = self.http.post(url).header(CONTENT_TYPE, form);
            request.body(encoded)
        } else {
            url.set_query(Some(&encoded).filter(|it| !it.is_empty()).map(|it| &**it));
            self.http.request(call.method.clone(), url)
        };
        if let Some(key) = call.key {
            request = request.header(KEY, &key.0);
        }
        let response = request.send().await.map_err(unreachable)?;
        Answer::read(response).await
    }

    fn breaker<T>(&self, act: impl FnOnce(&mut Breaker) -> T) -> T {
        // Nobody panics while holding it, and it is whole in any case.
        act(&mut self.breaker.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Call<'_> {
    /// What it is about, without ids.
    fn resource(&self) -> String {
        self.path.first().copied().unwrap_or_default().to_owned()
    }
}

impl Answer {
    async fn read(mut response: Response) -> Result<Self, StripeError> {
        let word = |name| response.headers().get(name)?.to_str().ok()?.parse().ok();
        let (advice, repeated) = (word(ADVICE), word(REPEATED));
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(StripeError::Unreadable("it is too long".to_owned()));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Self {
            status: response.status().as_u16(),
            advice,
            is_repeated: repeated == Some(true),
            body,
        })
    }

    fn verdict(&self) -> Verdict {
        judge(self.status, self.advice, self.is_repeated)
    }

    fn error(&self, verdict: Verdict) -> StripeError {
        #[derive(Default, Deserialize)]
        struct Envelope {
            #[serde(default)]
            error: Refusal,
        }

        let status = self.status;
        if verdict != Verdict::Refused {
            return StripeError::Busy { status };
        }
        let envelope: Envelope = serde_json::from_slice(&self.body).unwrap_or_default();
        StripeError::Refused {
            status,
            refusal: Box::new(envelope.error),
        }
    }
}

impl fmt::Debug for Stripe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stripe")
            .field("base", &self.base.as_str())
            .finish_non_exhaustive()
    }
}

/// Without what stood there, which may be an id.
fn unreadable(error: &serde_json::Error) -> StripeError {
    let (kind, column) = (error.classify(), error.column());
    StripeError::Unreadable(format!("{kind:?} error at column {column}"))
}

/// Without the address, which has ids in its path.
fn unreachable(error: reqwest::Error) -> StripeError {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    StripeError::Unreachable(text)
}

fn tls() -> rustls::ClientConfig {
    let roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    rustls::ClientConfig::builder()
        .with_root_certificates(Arc::new(roots))
        .with_no_client_auth()
}
