//! From a Hello to an open session: version, sanity, lease, and where to resume.

use chrono::Utc;
use shared::ids::{Revision, SessionId};
use shared::protocol::{
    Hello, MIN_PROTOCOL_VERSION, PROTOCOL_VERSION, Refused, RefusedReason, close,
};

use super::machine::{Close, Opened, Resumption};
use crate::error::ApiError;
use crate::fleet::Fleet;
use crate::fleet::bus::{Channel, Notice};
use crate::fleet::enrolment;
use crate::fleet::identity::NodeIdentity;
use crate::fleet::store::{self, Lease};

/// A node further behind gets a snapshot: its history may be longer than its state.
const MAX_DELTA: u64 = 5_000;

/// Why there is no session.
#[derive(Debug)]
pub(super) enum Rejection {
    /// Say why, then close.
    Refused(Refused, Close),
    Closed(Close),
    /// The plane cannot at present.
    Failed(ApiError),
}

impl From<ApiError> for Rejection {
    fn from(error: ApiError) -> Self {
        Self::Failed(error)
    }
}

/// The newest version that both sides speak.
pub(super) fn negotiate(newest: u16, oldest: u16) -> Result<u16, Rejection> {
    let version = newest.min(PROTOCOL_VERSION);
    if version >= oldest && version >= MIN_PROTOCOL_VERSION {
        return Ok(version);
    }
    let refused = Refused {
        reason: RefusedReason::UnsupportedProtocol,
        message: format!(
            "this plane speaks protocol {MIN_PROTOCOL_VERSION} to {PROTOCOL_VERSION}, the agent {oldest} to {newest}"
        ),
    };
    let close = Close {
        code: close::UNSUPPORTED_PROTOCOL,
        reason: "unsupported protocol",
    };
    Err(Rejection::Refused(refused, close))
}

/// Takes the lease for a node and finds out where it resumes.
pub(super) async fn open(
    fleet: &Fleet,
    node: NodeIdentity,
    hello: &Hello,
) -> Result<(Lease, Opened), Rejection> {
    let protocol = negotiate(hello.protocol, hello.min_protocol)?;
    if let Some(flaw) = enrolment::check_hello(hello) {
        tracing::warn!(server = %node.server, field = flaw.field, "fleet.session.bad_hello");
        return Err(Rejection::Closed(Close::bad_frame(flaw.message)));
    }
    let address = enrolment::resolve(&hello.endpoint).await;
    let lease = store::take_lease(&fleet.db, node, fleet.replica, hello, address)
        .await?
        .ok_or_else(unauthorized)?;
    let taken = Notice::TakenOver {
        server: node.server,
        fence: lease.fence,
    };
    fleet.bus.publish(Channel::Everyone, taken);
    let revision = fleet.desired.revision(node.server).await?;
    let resumption = resume(fleet, node, hello, revision).await?;
    let kind = match resumption {
        Resumption::Delta(_) => "delta",
        Resumption::Snapshot(_) => "snapshot",
    };
    metrics::counter!("fleet_resumes_total", "kind" => kind).increment(1);
    let opened = Opened {
        session: SessionId::generate(),
        protocol,
        report_interval: fleet.report_interval,
        server_time: Utc::now(),
        applied: hello.applied_revision,
        state_hash: hello.state_hash,
        revision,
        resumption,
    };
    Ok((lease, opened))
}

async fn resume(
    fleet: &Fleet,
    node: NodeIdentity,
    hello: &Hello,
    desired: Revision,
) -> Result<Resumption, ApiError> {
    let (server, applied) = (node.server, hello.applied_revision);
    if is_within_reach(applied, desired) {
        let expected = fleet.desired.state_hash(server, applied).await?;
        if expected == hello.state_hash {
            let lost = fleet.desired.unacknowledged(server, applied).await?;
            return Ok(Resumption::Delta(lost));
        }
        tracing::warn!(%server, %applied, "fleet.session.state_differs");
    }
    Ok(Resumption::Snapshot(fleet.desired.snapshot(server).await?))
}

/// Whether the changes from `applied` on are fewer than the whole state may be.
const fn is_within_reach(applied: Revision, desired: Revision) -> bool {
    applied.0 <= desired.0 && desired.0 - applied.0 <= MAX_DELTA
}

fn unauthorized() -> Rejection {
    let refused = Refused {
        reason: RefusedReason::Unauthorized,
        message: "this node's token was revoked; enrol it again".to_owned(),
    };
    let close = Close {
        code: close::UNAUTHORIZED,
        reason: "token revoked",
    };
    Rejection::Refused(refused, close)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::equal(1, 1, Some(1))]
    #[case::newer_agent_that_speaks_ours(9, 1, Some(PROTOCOL_VERSION))]
    #[case::newer_agent_that_does_not(9, PROTOCOL_VERSION + 1, None)]
    #[case::older_agent(0, 0, None)]
    #[case::nonsense(1, 5, None)]
    fn negotiates(#[case] newest: u16, #[case] oldest: u16, #[case] version: Option<u16>) {
        assert_eq!(negotiate(newest, oldest).ok(), version);
    }

    #[rstest]
    #[case::nothing_new(7, 7, true)]
    #[case::behind(7, 100, true)]
    #[case::ahead_of_a_restored_database(8, 7, false)]
    #[case::as_far_as_it_goes(0, 5_000, true)]
    #[case::too_far(0, 5_001, false)]
    fn resumes_within_reach(#[case] applied: u64, #[case] desired: u64, #[case] within: bool) {
        assert_eq!(
            is_within_reach(Revision(applied), Revision(desired)),
            within
        );
    }
}
