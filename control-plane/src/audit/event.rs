//! What a row of the log says.

use serde_json::Value;
use shared::ids::{DeviceId, ServerId, UserId};
use uuid::Uuid;

use crate::http::RequestId;

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// What was done. A name never changes its meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Action { $($(#[$doc])* $name,)* }

        impl Action {
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

actions! {
    Register = "account.register";
    Import = "account.import";
    Login = "session.login";
    /// A refresh token came a second time.
    RefreshReuse = "session.refresh_reuse";
    Logout = "session.logout";
    LogoutAll = "session.logout_all";
    EndSession = "session.end";
    RequestVerification = "account.request_verification";
    VerifyEmail = "account.verify_email";
    ChangeEmail = "account.change_email";
    ChangePassword = "account.change_password";
    /// Somebody guessed a password, and its owner is told.
    WarnOfGuessing = "account.warn_of_guessing";
    RequestPasswordReset = "account.request_password_reset";
    ResetPassword = "account.reset_password";
    EnableMfa = "mfa.enable";
    DisableMfa = "mfa.disable";
    UseRecoveryCode = "mfa.use_recovery_code";
    AddDevice = "device.add";
    RemoveDevice = "device.remove";
    Export = "account.export";
    DeleteAccount = "account.delete";
    ChangeStatus = "account.change_status";
    ChangeRole = "account.change_role";
    Authorize = "oauth.authorize";
    /// An authorization code came a second time.
    CodeReuse = "oauth.code_reuse";
    MintOperatorToken = "operator_token.mint";
    RevokeOperatorToken = "operator_token.revoke";
    AddOauthClient = "oauth_client.add";
    RotateKeys = "keys.rotate";
    CreateServer = "server.create";
    EditServer = "server.edit";
    ChangeServerStatus = "server.change_status";
    DrainServer = "server.drain";
    UndrainServer = "server.undrain";
    PlanKeyRotation = "server.plan_key_rotation";
    CancelKeyRotation = "server.cancel_key_rotation";
    /// The tokens of a server's node are worth nothing any more.
    RevokeNode = "server.revoke_node";
    DeleteServer = "server.delete";
    MakeEnrolmentToken = "enrolment_token.make";
    DeleteEnrolmentToken = "enrolment_token.delete";
    ImposeBan = "ban.impose";
    LiftBan = "ban.lift";
    AcknowledgeAlert = "alert.acknowledge";
    ResetRateLimits = "rate_limits.reset";
    CreatePlan = "plan.create";
    EditPlan = "plan.edit";
    /// Nobody can buy it any more.
    WithdrawPlan = "plan.withdraw";
    /// Stripe or time changed it.
    ChangeSubscription = "subscription.change";
    /// Somebody set out to pay for a plan.
    OpenPurchase = "purchase.open";
    CancelSubscription = "subscription.cancel";
    ResumeSubscription = "subscription.resume";
    /// It costs money and gives nothing, because another one of the same person runs.
    EndSuperseded = "subscription.end_superseded";
    /// From now on it is what pays.
    SetPaymentMethod = "payment_method.set";
    RemovePaymentMethod = "payment_method.remove";
    ReplayBillingEvent = "billing_event.replay";
    /// A job that failed is to be tried again.
    RetryJob = "job.retry";
    RequestRefund = "refund.request";
    /// The payment provider refused it.
    FailRefund = "refund.fail";
}

/// Who acted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// Nobody that we know, such as whoever fails to log in.
    Anonymous,
    User(UserId),
    /// The bearer of an operator token.
    Operator {
        token: Uuid,
        name: String,
    },
    /// Whoever runs our commands on the host.
    Cli,
    System,
}

impl Actor {
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::User(_) => "user",
            Self::Operator { .. } => "operator",
            Self::Cli => "cli",
            Self::System => "system",
        }
    }

    pub(super) fn name(&self) -> Option<String> {
        match self {
            Self::User(user) => Some(user.to_string()),
            Self::Operator { token, .. } => Some(token.to_string()),
            Self::Anonymous | Self::Cli | Self::System => None,
        }
    }
}

/// What was acted on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    User(UserId),
    Session(Uuid),
    Device(DeviceId),
    OperatorToken(Uuid),
    OauthClient(String),
    Server(ServerId),
    EnrolmentToken(Uuid),
    Ban(Uuid),
    Alert(Uuid),
    Plan(String),
    BillingEvent(Uuid),
    Job(Uuid),
    Payment(Uuid),
}

impl Subject {
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Session(_) => "session",
            Self::Device(_) => "device",
            Self::OperatorToken(_) => "operator_token",
            Self::OauthClient(_) => "oauth_client",
            Self::Server(_) => "server",
            Self::EnrolmentToken(_) => "enrolment_token",
            Self::Ban(_) => "ban",
            Self::Alert(_) => "alert",
            Self::Plan(_) => "plan",
            Self::BillingEvent(_) => "billing_event",
            Self::Job(_) => "job",
            Self::Payment(_) => "payment",
        }
    }

    pub(super) fn id(&self) -> String {
        match self {
            Self::User(id) => id.to_string(),
            Self::Device(id) => id.to_string(),
            Self::Session(id)
            | Self::OperatorToken(id)
            | Self::EnrolmentToken(id)
            | Self::Ban(id)
            | Self::Alert(id)
            | Self::BillingEvent(id)
            | Self::Job(id)
            | Self::Payment(id) => id.to_string(),
            Self::Server(id) => id.to_string(),
            Self::OauthClient(id) | Self::Plan(id) => id.clone(),
        }
    }
}

/// One act.
#[derive(Debug, Clone)]
pub struct Event {
    pub(super) action: Action,
    pub(super) refused: bool,
    pub(super) actor: Actor,
    pub(super) subject: Option<Subject>,
    pub(super) before: Option<Value>,
    pub(super) after: Option<Value>,
    pub(super) request: Option<RequestId>,
}

impl Event {
    #[must_use]
    pub const fn new(action: Action, actor: Actor) -> Self {
        Self {
            action,
            refused: false,
            actor,
            subject: None,
            before: None,
            after: None,
            request: None,
        }
    }

    /// What a person did to their own account.
    #[must_use]
    pub fn own(action: Action, user: UserId) -> Self {
        let mut event = Self::new(action, Actor::User(user));
        event.subject = Some(Subject::User(user));
        event
    }

    /// It was tried and not allowed.
    #[must_use]
    pub const fn refused(mut self) -> Self {
        self.refused = true;
        self
    }

    #[must_use]
    pub fn on(mut self, subject: Subject) -> Self {
        self.subject = Some(subject);
        self
    }

    /// What changed, without secrets and addresses.
    #[must_use]
    pub fn change(mut self, before: Value, after: Value) -> Self {
        self.before = Some(before);
        self.after = Some(after);
        self
    }

    #[must_use]
    pub fn in_request(mut self, request: &RequestId) -> Self {
        self.request = Some(request.clone());
        self
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn an_action_is_one_thing_and_fits_its_column() {
        let names: HashSet<_> = Action::ALL.iter().map(|action| action.as_str()).collect();
        assert_eq!(names.len(), Action::ALL.len());
        assert!(names.iter().all(|name| name.len() <= 50));
    }
}
