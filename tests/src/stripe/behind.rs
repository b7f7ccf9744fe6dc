//! localstripe, which keeps customers, cards, charges, refunds and products.

use reqwest::Method;
use serde_json::Value;

use super::failure::Failure;
use super::form;

#[derive(Debug, Clone)]
pub(super) struct Behind {
    base: String,
    pub(super) http: reqwest::Client,
}

/// Longer than any test: it gives a page of ten unless told otherwise.
const ALL: &str = "limit=1000000";

impl Behind {
    #[must_use]
    pub(super) fn new(base: &str) -> Self {
        Self {
            base: base.trim_end_matches('/').to_owned(),
            http: reqwest::Client::new(),
        }
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.call(Method::GET, path, &Value::Null).await
    }

    pub(super) async fn post(&self, path: &str, parameters: &Value) -> Result<Value, Failure> {
        self.call(Method::POST, path, parameters).await
    }

    pub(super) async fn delete(&self, path: &str) -> Result<Value, Failure> {
        self.call(Method::DELETE, path, &Value::Null).await
    }

    /// All of a kind, the newest first: it keeps them the other way round.
    pub(super) async fn all(&self, kind: &str, filter: &str) -> Result<Vec<Value>, Failure> {
        let mut list = self.get(&format!("/v1/{kind}?{ALL}{filter}")).await?;
        let mut items = match list["data"].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        };
        // Refunds alone come sorted by the second of their making.
        if kind == "refunds" {
            items.sort_by_key(|it| it["created"].as_i64());
        }
        items.reverse();
        Ok(items)
    }

    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        parameters: &Value,
    ) -> Result<Value, Failure> {
        let lost = |error: reqwest::Error| Failure::internal(500, &format!("localstripe: {error}"));
        let request = self
            .http
            .request(method, format!("{}{path}", self.base))
            .bearer_auth("sk_test_behind")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form::encode(parameters));
        let response = request.send().await.map_err(lost)?;
        let status = response.status().as_u16();
        let body = response.bytes().await.map_err(lost)?;
        let mut body: Value = serde_json::from_slice(&body).unwrap_or_else(
            |_| serde_json::json!({"error": {"message": String::from_utf8_lossy(&body)}}),
        );
        if status < 400 {
            return Ok(body);
        }
        let mut parts = path.split(['/', '?']).skip(2);
        let kind = parts.next().unwrap_or_default().trim_end_matches('s');
        let id = parts.next().unwrap_or_default();
        Err(Failure::behind(status, body["error"].take(), kind, id))
    }
}
