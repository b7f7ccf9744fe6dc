//! What the kernel says of the host, parsed.
//!
//! Every parser answers none for a text that it does not understand: a host that does not tell
//! something is reported without it, and never stops the agent.

/// The kernel's counters at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Reading {
    /// All processors together.
    pub(super) all: CpuTimes,
    /// Each processor.
    pub(super) each: Vec<CpuTimes>,
    pub(super) memory: Option<Share>,
    pub(super) conntrack: Option<Share>,
    pub(super) nic: Option<Nic>,
}

/// Ticks since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct CpuTimes {
    pub(super) total: u64,
    pub(super) idle: u64,
    pub(super) softirq: u64,
}

/// A part of a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) used: u64,
    pub(super) limit: u64,
}

/// The uplink's counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Nic {
    pub(super) name: String,
    pub(super) rx_bytes: u64,
    pub(super) tx_bytes: u64,
    /// Bits a second; virtual interfaces have no speed.
    pub(super) speed: Option<u64>,
}

/// `/proc/stat`: all processors, and each.
pub(super) fn cpu_times(stat: &str) -> Option<(CpuTimes, Vec<CpuTimes>)> {
    let mut lines = stat.lines().filter(|line| line.starts_with("cpu"));
    let all = cpu_line(lines.next()?)?;
    let each = lines.map(cpu_line).collect::<Option<_>>()?;
    Some((all, each))
}

/// `cpu0 user nice system idle iowait irq softirq steal guest guest_nice`. Guest time is within
/// user time already.
fn cpu_line(line: &str) -> Option<CpuTimes> {
    let ticks = line.split_ascii_whitespace().skip(1).take(8);
    let ticks: Vec<u64> = ticks.map(str::parse).collect::<Result<_, _>>().ok()?;
    let [_user, _nice, _system, idle, iowait, _irq, softirq, _steal] = ticks.as_slice() else {
        return None;
    };
    Some(CpuTimes {
        total: ticks.iter().sum(),
        idle: idle + iowait,
        softirq: *softirq,
    })
}

/// `/proc/meminfo`: what is not available to new work, of all.
pub(super) fn memory(meminfo: &str) -> Option<Share> {
    let kilobytes = |key: &str| -> Option<u64> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    };
    let limit = kilobytes("MemTotal:")?;
    let available = kilobytes("MemAvailable:")?;
    Some(Share {
        used: limit.saturating_sub(available),
        limit,
    })
}

/// A file that holds one number.
pub(super) fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// `/sys/class/net/<nic>/speed`, in megabits; -1 where it is not known.
pub(super) fn speed(text: &str) -> Option<u64> {
    number(text)
        .filter(|megabits| *megabits > 0)
        .map(|megabits| megabits.saturating_mul(1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const STAT: &str = "\
cpu  120 30 50 700 40 3 57 0 20 0
cpu0 60 15 25 350 20 1 29 0 10 0
cpu1 60 15 25 350 20 2 28 0 10 0
intr 114930548 113199788 3 0 5 263 0 4
ctxt 1990473
btime 1062191376
softirq 183433 0 21755 12 39 1137 231 21459 2263
";

    const MEMINFO: &str = "\
MemTotal:        4030732 kB
MemFree:          153476 kB
MemAvailable:    3023049 kB
Buffers:          201700 kB
";

    #[test]
    fn reads_processor_times() {
        let (all, each) = cpu_times(STAT).unwrap();
        let expected = CpuTimes {
            total: 1000,
            idle: 740,
            softirq: 57,
        };
        assert_eq!(all, expected);
        assert_eq!(each.len(), 2);
        assert_eq!(each[1].softirq, 28);
        assert_eq!(each.iter().map(|cpu| cpu.total).sum::<u64>(), all.total);
    }

    #[rstest]
    #[case::empty("")]
    #[case::no_processors("intr 1 2 3\n")]
    #[case::short("cpu 1 2 3\n")]
    #[case::words("cpu a b c d e f g h\n")]
    #[case::one_bad("cpu 1 2 3 4 5 6 7 8\ncpu0 1 2\n")]
    fn refuses_other_processor_times(#[case] text: &str) {
        assert_eq!(cpu_times(text), None);
    }

    #[test]
    fn memory_is_what_new_work_cannot_have() {
        let expected = Share {
            used: 1_007_683,
            limit: 4_030_732,
        };
        assert_eq!(memory(MEMINFO), Some(expected));
        assert_eq!(memory("MemTotal: 4030732 kB\n"), None);
    }

    #[rstest]
    #[case("10000\n", Some(10_000_000_000))]
    #[case("-1\n", None)]
    #[case("0\n", None)]
    #[case("", None)]
    fn reads_speeds(#[case] text: &str, #[case] bits: Option<u64>) {
        assert_eq!(speed(text), bits);
    }
}
