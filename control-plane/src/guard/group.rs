//! Which limit a request counts against.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::config::{GroupLimits, Limit};

macro_rules! groups {
    ($($(#[$doc:meta])* $name:ident = $word:tt, $letter:literal, $field:ident;)*) => {
        /// Endpoints with one limit.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
        #[schema(as = EndpointGroup)]
        pub(crate) enum Group { $($(#[$doc])* #[serde(rename = $word)] $name,)* }

        impl Group {
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)*];

            pub(crate) const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// In the names of windows.
            pub(crate) const fn letter(self) -> u8 {
                match self { $(Self::$name => $letter,)* }
            }

            pub(crate) const fn limit(self, limits: &GroupLimits) -> Limit {
                match self { $(Self::$name => limits.$field,)* }
            }
        }
    };
}

groups! {
    /// Whatever takes a password or what stands for one.
    Login = "auth_login", b'l', login;
    Register = "auth_register", b'r', register;
    /// Whatever sends a mail to an address that the caller names.
    PasswordReset = "password_reset", b'p', password_reset;
    Connect = "vpn_connect", b'c', connect;
    Disconnect = "vpn_disconnect", b'd', disconnect;
    Payments = "payments", b'm', payments;
    /// Whatever stays open and tells what happens.
    WebSocket = "websocket", b'w', websocket;
    Other = "default", b'o', other;
    /// VPN hosts.
    Node = "node", b'n', node;
    /// Stripe.
    Webhook = "webhook", b's', webhook;
    Health = "health", b'h', health;
}

impl Group {
    /// By the path as the router reads it, with or without the version before it.
    pub(crate) fn of(path: &str) -> Self {
        let path = path.strip_prefix("/api/v1").unwrap_or(path);
        let mut parts = path.split('/').skip(1);
        match (parts.next().unwrap_or_default(), parts.next()) {
            ("health", _) => Self::Health,
            ("node", _) => Self::Node,
            ("ws", _) | ("connection", Some("events")) => Self::WebSocket,
            ("auth", Some("login")) | ("oauth", Some("authorize")) => Self::Login,
            ("auth", Some("register")) => Self::Register,
            ("auth", Some("password-reset" | "resend-verification")) => Self::PasswordReset,
            ("vpn" | "connection", Some("connect")) => Self::Connect,
            ("vpn" | "connection", Some("disconnect")) => Self::Disconnect,
            ("payments", Some("webhook")) => Self::Webhook,
            ("payments", _) | ("subscriptions", Some("subscribe")) => Self::Payments,
            _ => Self::Other,
        }
    }

    /// Machines that come often and for a reason: they have a budget of their own, and no other.
    pub(crate) const fn stands_alone(self) -> bool {
        matches!(self, Self::Node | Self::Webhook | Self::Health)
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("/api/v1/auth/login", Group::Login)]
    #[case("/auth/login", Group::Login)]
    #[case("/oauth/authorize", Group::Login)]
    #[case("/api/v1/auth/register", Group::Register)]
    #[case("/api/v1/auth/password-reset/request", Group::PasswordReset)]
    #[case("/api/v1/auth/password-reset/confirm", Group::PasswordReset)]
    #[case("/api/v1/auth/resend-verification", Group::PasswordReset)]
    #[case("/api/v1/vpn/connect", Group::Connect)]
    #[case("/connection/connect", Group::Connect)]
    #[case("/vpn/disconnect/018f", Group::Disconnect)]
    #[case("/api/v1/payments/create", Group::Payments)]
    #[case("/payments/webhook", Group::Webhook)]
    #[case("/api/v1/payments/webhook", Group::Webhook)]
    #[case("/ws/connection/018f", Group::WebSocket)]
    #[case("/api/v1/connection/events", Group::WebSocket)]
    #[case("/connection/events/018f", Group::WebSocket)]
    #[case("/connection/ticket", Group::Other)]
    #[case("/node/v1/session", Group::Node)]
    #[case("/api/v1/health/ready", Group::Health)]
    #[case("/connection/status", Group::Other)]
    #[case("/api/v1/users/me", Group::Other)]
    #[case("/", Group::Other)]
    #[case("", Group::Other)]
    #[case("/healthy", Group::Other)]
    fn a_path_has_one_group(#[case] path: &str, #[case] group: Group) {
        assert_eq!(Group::of(path), group);
    }

    #[test]
    fn a_group_has_one_word_and_one_letter() {
        for group in Group::ALL {
            assert_eq!(serde_json::to_value(group).unwrap(), group.to_string());
        }
        let letters: HashSet<_> = Group::ALL.iter().map(|group| group.letter()).collect();
        assert_eq!(letters.len(), Group::ALL.len());
    }
}
