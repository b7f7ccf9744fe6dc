//! Every error that leaves the API: one envelope, one table of codes.
//!
//! A handler returns [`ApiError`]; what the caller reads comes from the table or was written for
//! them, what happened inside goes to the log as `source` and never leaves. The envelope is written
//! by the request-id middleware, because only there is the request's id known.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderValue, RETRY_AFTER};
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;
use utoipa::ToSchema;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $status:ident, $message:literal;)*) => {
        /// The codes of the contract. A code never changes its meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code, for the documentation.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            /// What the caller reads unless the place of the error says it better.
            #[must_use]
            pub const fn message(self) -> &'static str {
                match self { $(Self::$name => $message,)* }
            }
        }
    };
}

codes! {
    /// The body, a query parameter or a header is not what the route takes; see `details`.
    InvalidInput = "INVALID_INPUT", BAD_REQUEST, "The provided input is invalid";
    EmailTaken = "EMAIL_TAKEN", BAD_REQUEST, "An account with this address exists already";
    /// A token of a mail that is unknown, expired or was used.
    LinkInvalid = "LINK_INVALID", BAD_REQUEST, "This link is not valid any more; ask for a new one";
    /// The signature over the body is none of Stripe's, or not of now.
    WebhookSignatureInvalid = "WEBHOOK_SIGNATURE_INVALID", BAD_REQUEST, "The signature of this event is not valid";
    /// By the card's bank, or by Stripe.
    PaymentDeclined = "PAYMENT_DECLINED", BAD_REQUEST, "The payment was declined";
    WrongPassword = "WRONG_PASSWORD", BAD_REQUEST, "The password is wrong";
    InvalidCredentials = "INVALID_CREDENTIALS", UNAUTHORIZED, "Address or password is wrong";
    Unauthorized = "UNAUTHORIZED", UNAUTHORIZED, "A valid access token is needed";
    /// The address and the password are right; send `otp` with them.
    OtpRequired = "OTP_REQUIRED", UNAUTHORIZED, "A code of the second factor is needed";
    OtpInvalid = "OTP_INVALID", UNAUTHORIZED, "The code of the second factor is wrong or was used";
    /// A refresh token that is unknown, expired, or of a session that ended.
    RefreshTokenInvalid = "REFRESH_TOKEN_INVALID", UNAUTHORIZED, "The refresh token is not valid; log in again";
    /// The token was used before: it was copied, and its session is over.
    RefreshTokenReused = "REFRESH_TOKEN_REUSED", UNAUTHORIZED, "The refresh token was used before; log in again";
    TokenExpired = "TOKEN_EXPIRED", UNAUTHORIZED, "The access token has expired";
    EnrolmentTokenInvalid = "ENROLMENT_TOKEN_INVALID", UNAUTHORIZED, "This is no enrolment token of this control plane";
    EnrolmentTokenExpired = "ENROLMENT_TOKEN_EXPIRED", UNAUTHORIZED, "The enrolment token has expired; make a new one";
    EnrolmentTokenUsed = "ENROLMENT_TOKEN_USED", UNAUTHORIZED, "The enrolment token has been used; make a new one";
    Forbidden = "FORBIDDEN", FORBIDDEN, "This is not allowed to you";
    AccountSuspended = "ACCOUNT_SUSPENDED", FORBIDDEN, "This account is suspended";
    EmailNotVerified = "EMAIL_NOT_VERIFIED", FORBIDDEN, "The address of this account is not verified yet";
    /// Every request of the address is refused for a time, see `Retry-After`.
    AddressBanned = "ADDRESS_BANNED", FORBIDDEN, "Requests from this address are refused";
    /// By the country that the address is in.
    CountryRefused = "COUNTRY_REFUSED", FORBIDDEN, "This service is not available where you are";
    HttpsRequired = "HTTPS_REQUIRED", FORBIDDEN, "This service is reached over HTTPS only";
    DeviceLimit = "DEVICE_LIMIT", FORBIDDEN, "Your plan's number of devices is in use";
    PlanRequired = "PLAN_REQUIRED", FORBIDDEN, "Your plan does not include this";
    ConnectionLimit = "CONNECTION_LIMIT", FORBIDDEN, "Your plan's number of connections is in use";
    /// The month's bytes of the plan are used up: until the month turns (UTC) or the plan changes.
    QuotaExhausted = "QUOTA_EXHAUSTED", FORBIDDEN, "Your plan's traffic of this month is used up";
    NotFound = "NOT_FOUND", NOT_FOUND, "There is no such resource";
    MethodNotAllowed = "METHOD_NOT_ALLOWED", METHOD_NOT_ALLOWED, "This route does not take this method";
    UserNotFound = "USER_NOT_FOUND", NOT_FOUND, "There is no such user";
    SessionNotFound = "SESSION_NOT_FOUND", NOT_FOUND, "There is no such session";
    EnrolmentTokenNotFound = "ENROLMENT_TOKEN_NOT_FOUND", NOT_FOUND, "There is no such enrolment token";
    ServerNotFound = "SERVER_NOT_FOUND", NOT_FOUND, "There is no such server";
    ConnectionNotFound = "CONNECTION_NOT_FOUND", NOT_FOUND, "There is no such connection";
    BanNotFound = "BAN_NOT_FOUND", NOT_FOUND, "There is no such ban";
    AlertNotFound = "ALERT_NOT_FOUND", NOT_FOUND, "There is no such alert";
    PlanNotFound = "PLAN_NOT_FOUND", NOT_FOUND, "There is no such plan";
    /// Or it is somebody else's.
    IntentNotFound = "PAYMENT_INTENT_NOT_FOUND", NOT_FOUND, "There is no such payment intent";
    /// Or it is somebody else's.
    PaymentMethodNotFound = "PAYMENT_METHOD_NOT_FOUND", NOT_FOUND, "There is no such payment method";
    PaymentNotFound = "PAYMENT_NOT_FOUND", NOT_FOUND, "There is no such payment";
    RefundNotFound = "REFUND_NOT_FOUND", NOT_FOUND, "There is no such refund";
    BillingEventNotFound = "BILLING_EVENT_NOT_FOUND", NOT_FOUND, "There is no such event";
    JobNotFound = "JOB_NOT_FOUND", NOT_FOUND, "There is no such job";
    DeviceNotFound = "DEVICE_NOT_FOUND", NOT_FOUND, "There is no such device";
    /// The public key is live on this server in somebody else's connection.
    KeyInUse = "KEY_IN_USE", CONFLICT, "This public key is in use";
    /// Another server has the name.
    HostnameTaken = "HOSTNAME_TAKEN", CONFLICT, "A server with this host name exists already";
    PlanExists = "PLAN_EXISTS", CONFLICT, "A plan with this id exists already";
    AlreadySubscribed = "ALREADY_SUBSCRIBED", CONFLICT, "There is a paid subscription already; its plan can be changed";
    NotSubscribed = "NOT_SUBSCRIBED", CONFLICT, "There is no paid subscription";
    /// Clients are connected to the server.
    ServerInUse = "SERVER_IN_USE", CONFLICT, "The server has live connections; drain it first, or force it";
    /// Nothing was paid, or not by what money can go back to.
    PaymentNotRefundable = "PAYMENT_NOT_REFUNDABLE", CONFLICT, "This payment cannot be given back";
    AlreadyRefunded = "ALREADY_REFUNDED", CONFLICT, "This payment was given back already";
    RefundTooLarge = "REFUND_TOO_LARGE", CONFLICT, "This is more than is left of the payment";
    RefundWindowOver = "REFUND_WINDOW_OVER", CONFLICT, "The time in which this payment can be given back is over; ask us";
    Conflict = "CONFLICT", CONFLICT, "The resource's state does not allow this";
    PayloadTooLarge = "PAYLOAD_TOO_LARGE", PAYLOAD_TOO_LARGE, "The body is larger than this route takes";
    UnsupportedMediaType = "UNSUPPORTED_MEDIA_TYPE", UNSUPPORTED_MEDIA_TYPE, "This content type is not supported";
    RateLimited = "RATE_LIMITED", TOO_MANY_REQUESTS, "Too many requests";
    Internal = "INTERNAL_ERROR", INTERNAL_SERVER_ERROR, "Something went wrong on our side";
    /// A dependency is down or the service is starting or stopping.
    Unavailable = "SERVICE_UNAVAILABLE", SERVICE_UNAVAILABLE, "The service is not available right now";
    PaymentsNotConfigured = "PAYMENTS_NOT_CONFIGURED", SERVICE_UNAVAILABLE, "Payments are not available here";
    /// The payment provider does not answer.
    PaymentsUnavailable = "PAYMENTS_UNAVAILABLE", SERVICE_UNAVAILABLE, "Payments are not available right now; try again";
    NoServerAvailable = "NO_SERVER_AVAILABLE", SERVICE_UNAVAILABLE, "No server is available right now";
}

/// One field that was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Detail {
    /// Path of the field, such as `email` or `devices[0].name`.
    #[schema(example = "email")]
    pub field: String,
    #[schema(example = "Must be a valid email address")]
    pub message: String,
}

/// What a handler returns when it cannot do what was asked.
#[derive(Debug)]
pub struct ApiError {
    code: Code,
    message: Cow<'static, str>,
    details: Vec<Detail>,
    /// Seconds after which it may work.
    retry_after: Option<u64>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl ApiError {
    #[must_use]
    pub const fn new(code: Code) -> Self {
        Self {
            code,
            message: Cow::Borrowed(code.message()),
            details: Vec::new(),
            retry_after: None,
            source: None,
        }
    }

    /// The same code with a message for the caller.
    #[must_use]
    pub fn with_message(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        self.message = message.into();
        self
    }

    /// What happened inside; logged, never sent.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    #[must_use]
    pub fn with_detail(mut self, field: impl Into<String>, message: impl Into<String>) -> Self {
        self.details.push(Detail {
            field: field.into(),
            message: message.into(),
        });
        self
    }

    /// Seconds after which it may work, for `Retry-After`.
    #[must_use]
    pub const fn with_retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// `INVALID_INPUT` that names one field.
    #[must_use]
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Code::InvalidInput).with_detail(field, message)
    }

    #[must_use]
    pub fn internal(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(Code::Internal).with_source(source)
    }

    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    #[must_use]
    pub const fn retry_after(&self) -> Option<u64> {
        self.retry_after
    }

    /// What the caller reads.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The envelope of this error for the request with this id.
    #[must_use]
    pub fn envelope(&self, request_id: &str) -> ErrorEnvelope {
        ErrorEnvelope {
            error: ErrorBody {
                code: self.code.as_str().to_owned(),
                message: self.message.clone().into_owned(),
                details: self.details.clone(),
                request_id: request_id.to_owned(),
            },
        }
    }
}

impl From<Code> for ApiError {
    fn from(code: Code) -> Self {
        Self::new(code)
    }
}

impl From<diesel::result::Error> for ApiError {
    /// A query that failed for no reason that a rule knows: our fault, or Postgres went away.
    fn from(error: diesel::result::Error) -> Self {
        if is_connection_lost(&error) {
            Self::new(Code::Unavailable).with_source(error)
        } else {
            Self::internal(error)
        }
    }
}

/// Whether Postgres went away in the middle, which may be tried again. The driver tells it from a
/// value that could not be written or read by its words alone.
fn is_connection_lost(error: &diesel::result::Error) -> bool {
    use diesel::result::{DatabaseErrorKind as Kind, Error};
    const LOST: [&str; 3] = [
        "connection closed",
        "error communicating with the server",
        "terminating connection",
    ];
    match error {
        Error::DatabaseError(Kind::ClosedConnection, _) | Error::BrokenTransactionManager => true,
        Error::DatabaseError(Kind::UnableToSendCommand | Kind::Unknown, information) => {
            let message = information.message();
            LOST.iter().any(|words| message.starts_with(words))
        }
        _ => false,
    }
}

impl From<crate::db::PoolError> for ApiError {
    fn from(error: crate::db::PoolError) -> Self {
        Self::new(Code::Unavailable).with_source(error.to_string())
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.message)
    }
}

impl StdError for ApiError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let source: &(dyn StdError + 'static) = self.source.as_deref()?;
        Some(source)
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.code.status()
    }

    /// Without a body: the request-id middleware writes the envelope.
    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::new(self.status_code());
        if let Some(seconds) = self.retry_after {
            let seconds = HeaderValue::from(seconds);
            response.headers_mut().insert(RETRY_AFTER, seconds);
        }
        response
    }
}

/// `{"error": {…}}`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ErrorEnvelope {
    pub error: ErrorBody,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ErrorBody {
    #[schema(example = "INVALID_INPUT")]
    pub code: String,
    #[schema(example = "The provided input is invalid")]
    pub message: String,
    pub details: Vec<Detail>,
    #[schema(example = "req_0190a0c8")]
    pub request_id: String,
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_database_that_went_away_is_unavailable_and_a_bad_value_is_our_fault() {
        use diesel::result::{DatabaseErrorKind, Error};
        let from = |kind, words: &str| {
            ApiError::from(Error::DatabaseError(kind, Box::new(words.to_owned()))).code
        };
        let unsent = || DatabaseErrorKind::UnableToSendCommand;
        let broken = "error communicating with the server: Connection reset by peer";
        assert_eq!(from(unsent(), broken), Code::Unavailable);
        assert_eq!(from(unsent(), "connection closed"), Code::Unavailable);
        let bad = from(unsent(), "error serializing parameter 0");
        assert_ne!(bad, Code::Unavailable);
    }

    #[test]
    fn a_code_is_one_thing() {
        let names: HashSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            let status = code.status();
            assert!(
                status.is_client_error() || status.is_server_error(),
                "{code:?}"
            );
            let is_code = |c: char| c.is_ascii_uppercase() || c == '_';
            assert!(code.as_str().chars().all(is_code), "{code:?}");
        }
    }

    #[test]
    fn the_inside_stays_inside() {
        let error = ApiError::internal("the password of the database is hunter2");
        let sent = serde_json::to_string(&error.envelope("req_1")).unwrap();
        assert!(!sent.contains("hunter2"), "{sent}");
        assert!(!error.to_string().contains("hunter2"));
        assert!(
            StdError::source(&error)
                .unwrap()
                .to_string()
                .contains("hunter2")
        );
    }

    #[test]
    fn the_envelope_has_the_shape_of_the_contract() {
        let error = ApiError::invalid("email", "Must be a valid email address");
        assert_eq!(
            serde_json::to_value(error.envelope("req_1")).unwrap(),
            serde_json::json!({"error": {
                "code": "INVALID_INPUT",
                "message": "The provided input is invalid",
                "details": [{"field": "email", "message": "Must be a valid email address"}],
                "request_id": "req_1",
            }}),
        );
    }
}
