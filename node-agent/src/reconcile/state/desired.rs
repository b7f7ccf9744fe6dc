//! The state as what shall be in the interface.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use shared::protocol::Addresses;
use shared::wireguard::PublicKey;

use super::State;
use crate::ledger::PeerRecord;
use crate::reconcile::plan::{Desired, Verdict};
use crate::wireguard::{Hosts, PeerSpec, PeerStatus};

impl Desired for State {
    fn count(&self) -> usize {
        self.peers.len()
    }

    fn keys(&self) -> impl Iterator<Item = &PublicKey> {
        self.by_key.keys()
    }

    fn spec(&self, key: &PublicKey) -> Option<PeerSpec> {
        self.record(key).map(spec)
    }

    /// A key of ours with addresses that its holder never had is an earlier holder's.
    fn judge(&self, status: &PeerStatus) -> Verdict {
        let Some(record) = self.record(&status.public_key) else {
            return Verdict::Surplus;
        };
        let hosts = Hosts::of(&status.allowed_ips);
        if !hosts.are(record.addresses) && !self.book.is_holders(&status.public_key, &hosts) {
            Verdict::Stale
        } else if record.preshared_key == status.preshared_key && hosts.are(record.addresses) {
            Verdict::Right
        } else {
            Verdict::Differs
        }
    }
}

pub(super) fn spec(record: &PeerRecord) -> PeerSpec {
    PeerSpec {
        public_key: record.public_key,
        preshared_key: record.preshared_key.clone(),
        allowed_ips: nets(record.addresses).collect(),
    }
}

/// Sorted, as the interface reports them.
fn nets(addresses: Addresses) -> impl Iterator<Item = IpNet> {
    let v4 = IpNet::V4(Ipv4Net::from(addresses.v4));
    let v6 = addresses.v6.map(Ipv6Net::from).map(IpNet::V6);
    std::iter::once(v4).chain(v6)
}
