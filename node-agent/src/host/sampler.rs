//! Reads the kernel's files and keeps the last reading.

use std::path::PathBuf;
use std::time::Instant;

use shared::protocol::Load;

use super::load::{Occupancy, load};
use super::reading::{Nic, Reading, Share, cpu_times, memory, number, speed};
use super::uplink::default_uplink;

/// Measures the host's load between two calls.
#[derive(Debug)]
pub struct LoadSampler {
    uplink: Option<String>,
    capacity: Option<u64>,
    last: Reading,
    taken: Instant,
}

impl LoadSampler {
    /// Begins to measure at `now`. Without an `uplink` it is the default route's interface,
    /// looked up at each sample; without a `capacity` in bits a second it is the interface's speed.
    #[must_use]
    pub fn new(uplink: Option<String>, capacity: Option<u64>, now: Instant) -> Self {
        let mut sampler = Self {
            uplink,
            capacity,
            last: Reading::default(),
            taken: now,
        };
        sampler.last = sampler.read();
        sampler
    }

    /// The load since the last call. What the host does not tell counts as idle.
    pub fn sample(&mut self, now: Instant, occupancy: Occupancy) -> Load {
        let reading = self.read();
        let elapsed = now.saturating_duration_since(self.taken);
        let load = load(&self.last, &reading, elapsed, occupancy);
        self.last = reading;
        self.taken = now;
        load
    }

    fn read(&self) -> Reading {
        let (all, each) = read("/proc/stat")
            .and_then(|text| cpu_times(&text))
            .unwrap_or_default();
        Reading {
            all,
            each,
            memory: read("/proc/meminfo").and_then(|text| memory(&text)),
            conntrack: conntrack(),
            nic: self.nic(),
        }
    }

    fn nic(&self) -> Option<Nic> {
        let name = self.uplink.clone().or_else(default_uplink)?;
        let file = |file: &str| read(PathBuf::from("/sys/class/net").join(&name).join(file));
        Some(Nic {
            rx_bytes: number(&file("statistics/rx_bytes")?)?,
            tx_bytes: number(&file("statistics/tx_bytes")?)?,
            speed: self.capacity.or_else(|| speed_of(&name)),
            name,
        })
    }
}

/// An interface's speed in bits a second, where it tells it.
#[must_use]
pub fn speed_of(interface: &str) -> Option<u64> {
    let path = PathBuf::from("/sys/class/net").join(interface);
    read(path.join("speed")).and_then(|text| speed(&text))
}

fn conntrack() -> Option<Share> {
    let file = |name: &str| {
        let path = format!("/proc/sys/net/netfilter/nf_conntrack_{name}");
        read(path).and_then(|text| number(&text))
    };
    Some(Share {
        used: file("count")?,
        limit: file("max")?,
    })
}

fn read(path: impl AsRef<std::path::Path>) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn measures_this_host() {
        let begin = Instant::now();
        let mut sampler = LoadSampler::new(Some("lo".to_owned()), None, begin);
        let occupancy = Occupancy {
            peers: 7,
            pool_used: 9,
            capacity: 90,
            draining: true,
            ..Occupancy::default()
        };
        let load = sampler.sample(begin + Duration::from_secs(1), occupancy);
        assert!(load.memory > 0.0 && load.memory < 1.0, "{load:?}");
        assert!(load.current_load >= 10.0, "{load:?}");
        assert!(load.draining);
    }
}
