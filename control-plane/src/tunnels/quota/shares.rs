//! How a person's monthly quota is shared among their connections. Pure.
//!
//! Each node cuts a peer off at its *allowance* by itself, so the limit holds for as long as what the
//! nodes may still let through together is not more than what is left:
//!
//! > used + Σ (held − consumed) ≤ quota
//!
//! `held` is the largest allowance that the node may have: it rises when a higher one is written, and
//! comes down only when the node acknowledged a lower one. Consuming moves bytes from one side of the
//! sum to the other, so that late, lost and repeated reports change nothing. The one thing that adds to
//! it is the *starter* with which a further connection begins while the others hold everything; all
//! starters together are at most [`MAX_EXCESS`] percent above.

/// Percents of the quota: what a further connection may use before the others have been lowered, and
/// what all of those may come to above the quota.
const STARTER: u64 = 1;
const MAX_EXCESS: u64 = 4;
/// What is too little for another packet.
const PACKET: u64 = 1_500;
/// Several connections stop handing the rest to and fro at one part of the quota in so many.
const DREGS: u64 = 1_000;

/// A quota that nobody reaches: a plan without one, for a peer that is counted already. Its node goes
/// on counting, so that a quota that comes back goes on from the right number.
pub(in crate::tunnels) const UNLIMITED: u64 = i64::MAX.unsigned_abs();

/// A person's quota in this month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tunnels) struct Quota {
    /// In bytes a month.
    pub(in crate::tunnels) bytes: u64,
    pub(in crate::tunnels) used: u64,
}

/// What one connection has of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tunnels) struct Lease {
    /// What its node last said.
    pub(in crate::tunnels) consumed: u64,
    pub(in crate::tunnels) allowance: u64,
    pub(in crate::tunnels) held: u64,
    /// What `consumed` may come to before all is shared anew.
    pub(in crate::tunnels) share_at: u64,
}

/// What becomes of a person's connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::tunnels) enum Verdict {
    /// Nothing is left: they end.
    UsedUp,
    /// The leases, in the order in which they came.
    Shared(Vec<Lease>),
}

impl Quota {
    pub(in crate::tunnels) const fn left(self) -> u64 {
        self.bytes.saturating_sub(self.used)
    }

    /// Whether there is not enough left to begin with.
    pub(in crate::tunnels) const fn is_used_up(self) -> bool {
        let dregs = self.bytes / DREGS;
        self.left() <= if dregs > PACKET { dregs } else { PACKET }
    }

    const fn percent(self, percent: u64) -> u64 {
        self.bytes / 100 * percent
    }
}

impl Lease {
    /// What the node may still let through.
    pub(in crate::tunnels) const fn outstanding(self) -> u64 {
        if self.held == UNLIMITED {
            // Given without a quota, and so not out of it.
            return 0;
        }
        self.held.saturating_sub(self.consumed)
    }

    const fn rest(self) -> u64 {
        self.allowance.saturating_sub(self.consumed)
    }

    const fn is_starving(self) -> bool {
        self.rest() < PACKET
    }
}

/// The lease that a new connection begins with, beside `others`, which may still let through
/// `outstanding`. None where nothing is left.
pub(in crate::tunnels) fn open(quota: Quota, others: usize, outstanding: u64) -> Option<Lease> {
    if quota.is_used_up() {
        return None;
    }
    let left = quota.left();
    let free = left.saturating_sub(outstanding);
    if others == 0 && outstanding == 0 {
        return Some(lease(0, left, left, share_at(0, left, true)));
    }
    let excess = outstanding.saturating_sub(left);
    let starter = quota
        .percent(STARTER)
        .min(quota.percent(MAX_EXCESS).saturating_sub(excess));
    let fair = left / (count(others) + 1);
    let allowance = starter.max(free.min(fair));
    // Shared anew as soon as it is there.
    Some(lease(0, allowance, allowance, 0))
}

/// Shares what is left among the connections of `leases`; those of others that are about to end may
/// still let through `pinned`.
///
/// Who has more than a fair share gives it back, if somebody needs it or too much is given out; who
/// has less gets what is free now. What is given back becomes free with the node's acknowledgement,
/// which is when this is called again.
pub(in crate::tunnels) fn share(quota: Quota, pinned: u64, leases: &[Lease]) -> Verdict {
    let left = quota.left();
    let alone = leases.len() == 1;
    let starving = leases.iter().any(|lease| lease.is_starving());
    if left < PACKET || (!alone && starving && quota.is_used_up()) {
        return Verdict::UsedUp;
    }
    let fair = left.saturating_sub(pinned) / count(leases.len()).max(1);
    let given: u64 = sum(leases.iter().map(|lease| lease.outstanding())).saturating_add(pinned);
    let slack = if alone { 0 } else { fair / 8 };
    let needy = |lease: &Lease| lease.rest().saturating_add(slack) < fair;
    let take_back = given > left || leases.iter().any(needy);

    let mut shared = leases.to_vec();
    for lease in &mut shared {
        let target = lease.consumed.saturating_add(fair);
        if lease.held == UNLIMITED {
            // Nothing counted against the quota until now.
            (lease.allowance, lease.held) = (lease.consumed, lease.consumed);
        } else if take_back && lease.allowance > target {
            lease.allowance = target;
        }
    }
    let given = sum(shared.iter().map(|lease| lease.outstanding())).saturating_add(pinned);
    let mut free = left.saturating_sub(given);
    let mut order: Vec<_> = shared.iter_mut().collect();
    order.sort_by_key(|lease| lease.rest());
    for lease in order {
        if needy(lease) {
            raise(lease, fair, &mut free);
        }
        lease.share_at = share_at(lease.consumed, lease.allowance, alone);
    }
    Verdict::Shared(shared)
}

/// Up to a fair share, as far as it is free.
fn raise(lease: &mut Lease, fair: u64, free: &mut u64) {
    // What the node had already used of what it holds is no part of what it can get.
    let base = lease.held.max(lease.consumed);
    let target = lease.consumed.saturating_add(fair);
    let extra = target.saturating_sub(base).min(*free);
    *free -= extra;
    lease.allowance = lease.allowance.max(target.min(base.saturating_add(extra)));
    lease.held = lease.held.max(lease.allowance);
}

/// Several share anew when one has used half; one alone has everything, until it is used up.
const fn share_at(consumed: u64, allowance: u64, alone: bool) -> u64 {
    let rest = allowance.saturating_sub(consumed);
    if alone {
        allowance.saturating_sub(PACKET)
    } else {
        consumed.saturating_add(rest / 2)
    }
}

const fn lease(consumed: u64, allowance: u64, held: u64, share_at: u64) -> Lease {
    Lease {
        consumed,
        allowance,
        held,
        share_at,
    }
}

fn sum(amounts: impl Iterator<Item = u64>) -> u64 {
    amounts.fold(0, u64::saturating_add)
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "shares_tests.rs"]
mod tests;
