//! Refusals in Stripe's shape.

use serde_json::{Value, json};

#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) status: u16,
    /// What stands under `error`.
    pub(super) error: Value,
}

impl Failure {
    fn new(status: u16, error: Value) -> Self {
        Self { status, error }
    }

    #[must_use]
    pub(super) fn invalid(parameter: &str, message: &str) -> Self {
        Self::coded(parameter, "parameter_invalid", message)
    }

    #[must_use]
    pub(super) fn required(parameter: &str) -> Self {
        let message = format!("Missing required param: {parameter}.");
        Self::coded(parameter, "parameter_missing", &message)
    }

    #[must_use]
    pub(super) fn coded(parameter: &str, code: &str, message: &str) -> Self {
        let error = json!({"type": "invalid_request_error", "code": code, "message": message,
            "param": parameter});
        Self::new(400, error)
    }

    #[must_use]
    pub(super) fn missing(kind: &str, id: &str) -> Self {
        let message = format!("No such {}: '{id}'", kind.replace('_', ""));
        let error = json!({"type": "invalid_request_error", "code": "resource_missing",
            "message": message, "param": "id"});
        Self::new(404, error)
    }

    #[must_use]
    pub(super) fn unknown_route(method: &str, path: &str) -> Self {
        let message = format!("Unrecognized request URL ({method}: {path}).");
        let error = json!({"type": "invalid_request_error", "message": message});
        Self::new(404, error)
    }

    #[must_use]
    pub(super) fn unauthorized() -> Self {
        let error = json!({"type": "invalid_request_error",
            "message": "You did not provide an API key."});
        Self::new(401, error)
    }

    #[must_use]
    pub(super) fn key_reused() -> Self {
        let error = json!({"type": "idempotency_error",
            "message": "Keys for idempotent requests can only be used with the same parameters \
                        they were first used with."});
        Self::new(400, error)
    }

    #[must_use]
    pub(super) fn card(code: &str, decline_code: &str, message: &str) -> Self {
        let error = json!({"type": "card_error", "code": code, "decline_code": decline_code,
            "message": message});
        Self::new(402, error)
    }

    #[must_use]
    pub(super) fn authentication_required() -> Self {
        let message = "Your card was declined. This transaction requires authentication.";
        Self::card(
            "authentication_required",
            "authentication_required",
            message,
        )
    }

    /// The server itself is broken, or was told to be.
    #[must_use]
    pub(super) fn internal(status: u16, message: &str) -> Self {
        Self::new(status, json!({"type": "api_error", "message": message}))
    }

    /// What the server behind refused. It calls every refusal an invalid request.
    #[must_use]
    pub(super) fn behind(status: u16, mut error: Value, kind: &str, id: &str) -> Self {
        match status {
            404 => Self::missing(kind, id),
            402 => {
                error["type"] = "card_error".into();
                error["decline_code"] = "generic_decline".into();
                Self::new(402, error)
            }
            _ => Self::new(status, error),
        }
    }

    #[must_use]
    pub(super) fn body(&self) -> Value {
        json!({"error": self.error})
    }

    #[must_use]
    pub(super) fn message(&self) -> &str {
        self.error["message"].as_str().unwrap_or_default()
    }
}
