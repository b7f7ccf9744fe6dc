//! Tunnels: connecting, disconnecting, and what each node's peers shall be.
//!
//! - The rows of `connections` are the desired state of the nodes, ordered by revision. Nothing is
//!   pushed that is not committed, and what is committed is pushed sooner or later.
//! - A client is answered only after its node acknowledged the peer. A connect that fails leaves
//!   nothing behind: not a place of the plan, not a key, and in the end not a peer.
//! - The plan's number of connections holds whatever runs at once: each occupies a numbered place
//!   under a unique index.
//! - What is offered in place of a connection takes no place until it replaces it.
//! - A connection's status only moves forward. A late acknowledgement brings nothing back.
//! - A client's private key is never stored, and leaves only inside the answer that made it.
//! - What a plan limits is part of the desired peer. No connection of a plan with limits goes to a node
//!   that does not know them.
//! - Whoever has less of a plan than before keeps the connections that still fit, without a reconnect. The
//!   others end.

mod bounds;
mod cleanup;
mod client_config;
mod connect;
mod decision;
mod desired;
mod disconnect;
mod end;
mod history;
mod model;
mod offers;
mod psk;
mod qr;
mod quota;
mod routes;
mod store;

pub use cleanup::run as clean_up;
pub use desired::NodeLog;
pub use end::{end_all_of, end_of_key};
pub use history::{PastConnection, QuotaMonth, history, quota_months};
pub use model::EndReason;
pub use offers::{offered, run as make_offers};
pub use quota::{
    LimitsChanged, limits_changed, limits_of_plan_changed, months_used, run as share_quotas,
    signal as signal_limits,
};
pub use routes::{ConnectView, aliases, configuration, routes};
pub use store::{LiveCount, MonthUsed, SEALED_PRESHARED_KEYS, count_live};
