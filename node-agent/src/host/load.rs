//! Load from two readings: pure arithmetic.

use std::time::Duration;

use shared::protocol::Load;

use super::reading::{CpuTimes, Nic, Reading, Share};

/// What the agent itself knows of its load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Occupancy {
    pub peers: u32,
    /// Addresses in use or in quarantine, out of `capacity`.
    pub pool_used: u32,
    pub capacity: u32,
    pub draining: bool,
    /// Differences between ledger and interface that were repaired.
    pub drift: u64,
    /// Removals in the snapshot that waits for the operator.
    pub held_removals: Option<u32>,
}

/// The load between two readings. Selection sorts by `current_load`, the worst component.
pub(super) fn load(
    before: &Reading,
    after: &Reading,
    elapsed: Duration,
    occupancy: Occupancy,
) -> Load {
    let cpu = busy(before.all, after.all);
    let softirq = busiest_softirq(&before.each, &after.each);
    let memory = after.memory.map_or(0.0, share);
    let conntrack = after.conntrack.map(share);
    let (rx_bps, tx_bps) = rates(before.nic.as_ref(), after.nic.as_ref(), elapsed);
    let nic_bps = after.nic.as_ref().and_then(|nic| nic.speed);
    let nic = nic_bps.map_or(0.0, |speed| fraction(rx_bps.max(tx_bps), speed));
    let pool = fraction(occupancy.pool_used.into(), occupancy.capacity.into());
    let worst = [cpu, softirq, memory, conntrack.unwrap_or(0.0), nic, pool]
        .into_iter()
        .fold(0.0, f64::max);
    Load {
        current_load: 100.0 * worst,
        cpu,
        softirq,
        memory,
        conntrack,
        rx_bps,
        tx_bps,
        nic_bps,
        peers: occupancy.peers,
        pool_used: occupancy.pool_used,
        capacity: occupancy.capacity,
        draining: occupancy.draining,
        drift: occupancy.drift,
        held_removals: occupancy.held_removals,
    }
}

fn busy(before: CpuTimes, after: CpuTimes) -> f64 {
    let total = after.total.saturating_sub(before.total);
    let idle = after.idle.saturating_sub(before.idle);
    fraction(total.saturating_sub(idle), total)
}

/// Of the processor that spends most in softirqs: one full processor stops a network interface's
/// queue, however idle the others are.
fn busiest_softirq(before: &[CpuTimes], after: &[CpuTimes]) -> f64 {
    before
        .iter()
        .zip(after)
        .map(|(before, after)| {
            fraction(
                after.softirq.saturating_sub(before.softirq),
                after.total.saturating_sub(before.total),
            )
        })
        .fold(0.0, f64::max)
}

/// Bits a second, received and sent. Zero when the uplink changed in between.
fn rates(before: Option<&Nic>, after: Option<&Nic>, elapsed: Duration) -> (u64, u64) {
    let (Some(before), Some(after)) = (before, after) else {
        return (0, 0);
    };
    if before.name != after.name {
        return (0, 0);
    }
    (
        bits_per_second(before.rx_bytes, after.rx_bytes, elapsed),
        bits_per_second(before.tx_bytes, after.tx_bytes, elapsed),
    )
}

fn bits_per_second(before: u64, after: u64, elapsed: Duration) -> u64 {
    let bits = u128::from(after.saturating_sub(before)) * 8;
    let rate = (bits * 1_000_000).checked_div(elapsed.as_micros());
    u64::try_from(rate.unwrap_or(0)).unwrap_or(u64::MAX)
}

fn share(share: Share) -> f64 {
    fraction(share.used, share.limit)
}

/// `part` of `whole`, 0–1 in steps of a millionth; zero of nothing.
fn fraction(part: u64, whole: u64) -> f64 {
    const STEPS: u32 = 1_000_000;
    let steps = (u128::from(part) * u128::from(STEPS)).checked_div(whole.into());
    let steps = u32::try_from(steps.unwrap_or(0)).unwrap_or(STEPS);
    f64::from(steps.min(STEPS)) / f64::from(STEPS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    const SECOND: Duration = Duration::from_secs(1);

    fn cpu(total: u64, idle: u64, softirq: u64) -> CpuTimes {
        CpuTimes {
            total,
            idle,
            softirq,
        }
    }

    fn nic(name: &str, rx_bytes: u64, tx_bytes: u64) -> Option<Nic> {
        Some(Nic {
            name: name.to_owned(),
            rx_bytes,
            tx_bytes,
            speed: Some(1_000_000_000),
        })
    }

    /// A host at rest, of which each case loads one component.
    fn rest() -> Reading {
        Reading {
            all: cpu(1000, 1000, 0),
            each: vec![cpu(500, 500, 0); 2],
            memory: Some(Share {
                used: 0,
                limit: 100,
            }),
            conntrack: Some(Share {
                used: 0,
                limit: 100,
            }),
            nic: nic("eth0", 0, 0),
        }
    }

    #[rstest]
    #[case::rest(rest(), 0, 0.0)]
    #[case::cpu(Reading { all: cpu(1200, 1150, 0), ..rest() }, 0, 25.0)]
    #[case::one_processor_in_softirq(
        Reading { each: vec![cpu(600, 600, 0), cpu(600, 510, 90)], ..rest() }, 0, 90.0)]
    #[case::memory(Reading { memory: Some(Share { used: 40, limit: 100 }), ..rest() }, 0, 40.0)]
    #[case::conntrack(Reading { conntrack: Some(Share { used: 99, limit: 100 }), ..rest() }, 0, 99.0)]
    #[case::received(Reading { nic: nic("eth0", 62_500_000, 0), ..rest() }, 0, 50.0)]
    #[case::sent(Reading { nic: nic("eth0", 1, 93_750_000), ..rest() }, 0, 75.0)]
    #[case::over_capacity(Reading { nic: nic("eth0", 250_000_000, 0), ..rest() }, 0, 100.0)]
    #[case::pool(rest(), 200, 80.0)]
    #[case::worst_wins(
        Reading { memory: Some(Share { used: 90, limit: 100 }), ..rest() }, 200, 90.0)]
    fn current_load_is_the_worst_component(
        #[case] after: Reading,
        #[case] pool_used: u32,
        #[case] expected: f64,
    ) {
        let occupancy = Occupancy {
            peers: 3,
            pool_used,
            capacity: 250,
            ..Occupancy::default()
        };
        let load = load(&rest(), &after, SECOND, occupancy);
        assert!((load.current_load - expected).abs() < 0.001, "{load:?}");
        assert_eq!((load.peers, load.capacity), (3, 250));
    }

    #[rstest]
    #[case::same(nic("eth0", 0, 0), nic("eth0", 1000, 500), (8000, 4000))]
    #[case::other_uplink(nic("eth0", 0, 0), nic("eth1", 1000, 500), (0, 0))]
    #[case::made_anew(nic("eth0", 1000, 1000), nic("eth0", 10, 10), (0, 0))]
    #[case::gone(nic("eth0", 0, 0), None, (0, 0))]
    fn rates_belong_to_one_uplink(
        #[case] before: Option<Nic>,
        #[case] after: Option<Nic>,
        #[case] expected: (u64, u64),
    ) {
        assert_eq!(rates(before.as_ref(), after.as_ref(), SECOND), expected);
    }

    #[test]
    fn an_unknown_speed_does_not_count() {
        let unknown = |bytes| nic("eth0", bytes, 0).map(|nic| Nic { speed: None, ..nic });
        let before = Reading {
            nic: unknown(0),
            ..rest()
        };
        let after = Reading {
            nic: unknown(1 << 40),
            ..rest()
        };
        let load = load(&before, &after, SECOND, Occupancy::default());
        assert_eq!(load.nic_bps, None);
        assert!(load.rx_bps > 0 && load.current_load < 0.001);
    }

    proptest! {
        #[test]
        fn stays_in_bounds(
            before in any::<[u64; 6]>(),
            after in any::<[u64; 6]>(),
            millis in 0_u64..5000,
            pool in any::<(u32, u32)>(),
        ) {
            let reading = |n: [u64; 6]| Reading {
                all: cpu(n[0], n[1], n[2]),
                each: vec![cpu(n[1], n[2], n[3])],
                memory: Some(Share { used: n[4], limit: n[5] }),
                conntrack: Some(Share { used: n[5], limit: n[4] }),
                nic: nic("eth0", n[0], n[5]),
            };
            let occupancy = Occupancy { pool_used: pool.0, capacity: pool.1, ..Occupancy::default() };
            let elapsed = Duration::from_millis(millis);
            let load = load(&reading(before), &reading(after), elapsed, occupancy);
            for value in [load.cpu, load.softirq, load.memory, load.conntrack.unwrap()] {
                prop_assert!((0.0..=1.0).contains(&value));
            }
            prop_assert!((0.0..=100.0).contains(&load.current_load));
        }
    }
}
