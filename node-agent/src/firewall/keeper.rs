//! Keeps the table what it shall be while the agent runs.
//!
//! Compared is the table's image with that of the moment after it was made. The kernel tells
//! of every change, so that a table that somebody flushed with all others is back within milliseconds;
//! the periodic comparison is for what was not told.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{error, warn};

use super::events::Changes;
use super::image::Image;
use super::{Firewall, FirewallError, FirewallSetup, Memory, ruleset};

/// Between two comparisons at least: whoever changes the table without end does not keep us busy.
const PAUSE: Duration = Duration::from_millis(250);

/// What was found in the place of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drift {
    Missing,
    Changed,
}

/// The table's keeper.
pub struct Keeper {
    firewall: Firewall,
    setup: FirewallSetup,
    wanted: Image,
    memory: Memory,
    changes: Option<Changes>,
    repairs: Arc<AtomicU64>,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper")
            .field("firewall", &self.firewall)
            .field("setup", &self.setup)
            .finish_non_exhaustive()
    }
}

impl Keeper {
    /// Makes the table, unless it is there just as an earlier start made it.
    pub async fn start(
        firewall: Firewall,
        setup: FirewallSetup,
        memory: Memory,
    ) -> Result<Self, FirewallError> {
        // First, so that no change after the table is there goes unheard.
        let changes = Changes::open(ruleset::table_name(&firewall.interface));
        let changes = changes.inspect_err(not_heard).ok();
        let made = memory.recall(&firewall.interface, &setup);
        let wanted = match made {
            Some(made) if firewall.image()? == Some(made) => made,
            _ => establish(&firewall, &setup, &memory).await?,
        };
        Ok(Self {
            firewall,
            setup,
            wanted,
            memory,
            changes,
            repairs: Arc::default(),
        })
    }

    /// How often the table was repaired.
    #[must_use]
    pub fn repairs(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.repairs)
    }

    /// Compares and repairs every `period`, when `asked`, and when the kernel tells of a change; until
    /// the task is dropped.
    pub async fn run(mut self, period: Duration, asked: Arc<Notify>) {
        let mut periodic = interval(period);
        periodic.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = periodic.tick() => {}
                () = asked.notified() => {}
                () = heard(&mut self.changes) => {}
            }
            while let Err(error) = self.check().await {
                error!(event = "firewall_not_repaired", %error);
                sleep(period.min(PAUSE * 4)).await;
            }
            sleep(PAUSE).await;
        }
    }

    /// Compares once, and repairs what differs.
    pub async fn check(&mut self) -> Result<Option<Drift>, FirewallError> {
        let drift = match self.firewall.image()? {
            Some(image) if image == self.wanted => return Ok(None),
            Some(_) => Drift::Changed,
            None => Drift::Missing,
        };
        self.wanted = establish(&self.firewall, &self.setup, &self.memory).await?;
        self.repairs.fetch_add(1, Ordering::Relaxed);
        warn!(event = "firewall_repaired", found = ?drift);
        Ok(Some(drift))
    }
}

async fn establish(
    firewall: &Firewall,
    setup: &FirewallSetup,
    memory: &Memory,
) -> Result<Image, FirewallError> {
    let image = firewall.establish(setup).await?;
    if let Err(error) = memory.keep(&firewall.interface, setup, image) {
        warn!(event = "firewall_not_remembered", %error);
    }
    Ok(image)
}

/// Until there is word of a change; for ever where none can come.
async fn heard(changes: &mut Option<Changes>) {
    if let Some(listening) = changes {
        match listening.next().await {
            Ok(()) => return,
            Err(error) => not_heard(&error),
        }
        *changes = None;
    }
    std::future::pending().await
}

fn not_heard(error: &io::Error) {
    warn!(event = "firewall_changes_not_heard", %error, "looking at it periodically");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::netns::{in_private_netns, run};
    use rstest::rstest;
    use tokio::task::JoinHandle;
    use tokio::time::Instant;

    const TABLE: &str = "inet prime_vpn_wg-test";
    const FOREIGN: &str = "table ip others {
\tset friends {
\t\ttype ipv4_addr
\t\telements = { 192.0.2.1, 192.0.2.7 }
\t}

\tchain forward {
\t\ttype filter hook forward priority filter + 10; policy accept;
\t\tip saddr @friends counter packets 0 bytes 0 accept
\t\ttcp dport 25 reject
\t}
}
";

    fn setup() -> FirewallSetup {
        FirewallSetup {
            addresses: vec![
                "10.8.0.1/24".parse().unwrap(),
                "fd00:8::1/64".parse().unwrap(),
            ],
            deny: vec!["tcp/6667".parse().unwrap()],
            redirect_dns: true,
            ..FirewallSetup::default()
        }
    }

    async fn keeper() -> Keeper {
        start(setup(), Memory::default()).await
    }

    async fn start(setup: FirewallSetup, memory: Memory) -> Keeper {
        let firewall = Firewall::new("wg-test".parse().unwrap());
        Keeper::start(firewall, setup, memory).await.unwrap()
    }

    fn handles() -> String {
        run(&format!("nft -a list table {TABLE}"))
    }

    #[test]
    fn a_table_that_is_as_it_was_made_is_left_alone_and_any_other_is_made_anew() {
        in_private_netns(async || {
            let directory = tempfile::tempdir().unwrap();
            let memory = Memory::within(directory.path());
            start(setup(), memory.clone()).await;
            let (wanted, made) = (listing(), handles());
            start(setup(), memory.clone()).await;
            assert_eq!(handles(), made, "made again");

            nft("add chain inet prime_vpn_wg-test more");
            start(setup(), memory.clone()).await;
            assert_eq!(listing(), wanted);
            let made = handles();
            start(setup(), memory.clone()).await;
            assert_eq!(handles(), made, "made again");

            let other = FirewallSetup {
                deny: Vec::new(),
                ..setup()
            };
            start(other, memory.clone()).await;
            assert_ne!(listing(), wanted);
            start(setup(), memory.clone()).await;
            assert_eq!(listing(), wanted);

            run("nft flush ruleset");
            start(setup(), memory.clone()).await;
            assert_eq!(listing(), wanted);
            let made = handles();
            std::fs::write(directory.path().join("firewall.image"), [7; 40]).unwrap();
            start(setup(), memory).await;
            assert_eq!(listing(), wanted);
            assert_ne!(handles(), made);
        });
    }

    fn listing() -> String {
        run(&format!("nft list table {TABLE}"))
    }

    fn nft(script: &str) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), script).unwrap();
        run(&format!("nft -f {}", file.path().display()));
    }

    #[rstest]
    #[case::flushed_with_all("flush ruleset", Drift::Missing)]
    #[case::deleted("delete table inet prime_vpn_wg-test", Drift::Missing)]
    #[case::emptied("flush table inet prime_vpn_wg-test", Drift::Changed)]
    #[case::opened(
        "insert rule inet prime_vpn_wg-test from_clients accept",
        Drift::Changed
    )]
    #[case::asleep("add table inet prime_vpn_wg-test { flags dormant; }", Drift::Changed)]
    #[case::closed(
        "add chain inet prime_vpn_wg-test forward { policy drop; }",
        Drift::Changed
    )]
    #[case::grown("add chain inet prime_vpn_wg-test more", Drift::Changed)]
    fn drift_is_repaired_and_counted(#[case] script: &'static str, #[case] drift: Drift) {
        in_private_netns(async move || {
            let mut keeper = keeper().await;
            let wanted = listing();
            assert_eq!(keeper.check().await.unwrap(), None);
            nft(script);
            assert_eq!(keeper.check().await.unwrap(), Some(drift));
            assert_eq!(listing(), wanted);
            assert_eq!(keeper.check().await.unwrap(), None);
            assert_eq!(keeper.repairs().load(Ordering::Relaxed), 1);
        });
    }

    #[test]
    fn a_foreign_table_stays_as_it_is() {
        in_private_netns(async || {
            nft(FOREIGN);
            let mut keeper = keeper().await;
            let foreign = || run("nft -a list table ip others");
            let before = foreign();
            assert_eq!(run("nft list table ip others"), FOREIGN);
            nft("add rule ip others forward drop");
            assert_eq!(keeper.check().await.unwrap(), None, "it is not ours");
            let changed = foreign();
            assert_ne!(changed, before);
            nft(&format!("delete table {TABLE}"));
            keeper.check().await.unwrap();
            assert_eq!(foreign(), changed);
            keeper.firewall.remove().await.unwrap();
            assert_eq!(run("nft -a list ruleset"), changed);
        });
    }

    async fn repaired(repairs: &AtomicU64, times: u64) {
        let begin = Instant::now();
        while repairs.load(Ordering::Relaxed) < times {
            assert!(begin.elapsed() < Duration::from_secs(10), "not repaired");
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// A keeper that would not look by itself within the test.
    async fn running() -> (Arc<AtomicU64>, Arc<Notify>, JoinHandle<()>) {
        let keeper = keeper().await;
        let (repairs, asked) = (keeper.repairs(), Arc::new(Notify::new()));
        let task = tokio::spawn(keeper.run(Duration::from_secs(3600), Arc::clone(&asked)));
        (repairs, asked, task)
    }

    #[test]
    fn the_kernels_word_is_enough() {
        in_private_netns(async || {
            let (repairs, _, task) = running().await;
            let wanted = listing();
            for times in 1..=3 {
                run("nft flush ruleset");
                repaired(&repairs, times).await;
                assert_eq!(listing(), wanted);
            }
            task.abort();
        });
    }

    #[test]
    fn a_signal_and_the_period_are_enough_too() {
        in_private_netns(async || {
            let mut deaf = keeper().await;
            deaf.changes = None;
            let (repairs, asked) = (deaf.repairs(), Arc::new(Notify::new()));
            let task = tokio::spawn(deaf.run(Duration::from_millis(20), Arc::clone(&asked)));
            run("nft flush ruleset");
            repaired(&repairs, 1).await;
            task.abort();

            let mut deaf = keeper().await;
            deaf.changes = None;
            let repairs = deaf.repairs();
            let task = tokio::spawn(deaf.run(Duration::from_secs(3600), Arc::clone(&asked)));
            run("nft flush ruleset");
            asked.notify_one();
            repaired(&repairs, 1).await;
            task.abort();
        });
    }
}
