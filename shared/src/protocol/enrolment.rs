//! The one REST call of an agent: it trades a single-use enrolment token for its identity.

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::NodeToken;
use crate::ids::ServerId;
use crate::wireguard::PublicKey;

/// `POST /node/v1/enrol`, with the enrolment token as bearer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolRequest {
    pub hostname: String,
    pub agent_version: String,
    pub public_key: PublicKey,
    /// Where clients reach WireGuard, `host:port`.
    pub endpoint: String,
    pub subnet: Ipv4Net,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet_v6: Option<Ipv6Net>,
    pub capacity: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolResponse {
    pub server_id: ServerId,
    #[serde(flatten)]
    pub token: NodeToken,
}
