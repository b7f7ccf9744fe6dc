//! The table against the real kernel, each test in a network namespace of its own.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use shared::protocol::{Addresses, Limits};

use super::*;
use crate::host::netns::{in_private_netns, run};
use crate::limits::{Book, Limiter, Object};

#[path = "world.rs"]
mod world;
use world::{INTERFACE, Way, World, until};

const ONE: PeerId = PeerId(1);
const MEGABYTE: u64 = 1_000_000;

fn table() -> NftTable {
    NftTable::new(INTERFACE.parse().unwrap())
}

fn limiter() -> (Limiter, Book) {
    (Limiter::new(Arc::new(table())), Book::default())
}

fn client() -> Addresses {
    Addresses {
        v4: Ipv4Addr::new(10, 8, 0, 2),
        v6: Some("fd00:8::2".parse().unwrap()),
    }
}

fn rates(megabits: u64) -> Limits {
    Limits {
        download_bps: Some(megabits * 1_000_000),
        upload_bps: Some(megabits * 1_000_000),
        allowance: None,
    }
}

fn allowance(bytes: u64) -> Limits {
    Limits {
        allowance: Some(bytes),
        ..Limits::default()
    }
}

/// Peers that have every limit, from 10.8.1.0 on.
fn many(book: &mut Book, count: u32) {
    for n in 0..count {
        let addresses = Addresses {
            v4: Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 8, 1, 0)) + n),
            v6: Some(format!("fd00:8::1:{n:x}").parse().unwrap()),
        };
        let limits = Limits {
            allowance: Some(1_000 * MEGABYTE),
            ..rates(10)
        };
        book.set(PeerId(u64::from(n) + 1000), addresses, limits);
    }
}

async fn used(table: &NftTable) -> u64 {
    let quotas = table.quotas().await.unwrap();
    quotas.first().map_or(0, |(_, consumed)| *consumed)
}

#[test]
fn the_kernel_holds_exactly_this() {
    in_private_netns(async || {
        let (mut limiter, mut book) = limiter();
        assert_eq!(table().read().await.unwrap(), None);
        let limits = Limits {
            download_bps: Some(10_000_000),
            upload_bps: Some(256_000),
            allowance: Some(50 * MEGABYTE),
        };
        book.set(ONE, client(), limits);
        limiter.limit(&mut book).await.unwrap();
        let once = run("nft list table inet prime_vpn_wg-test_limits");
        assert_eq!(once, include_str!("limits.nft"));

        let found = table().read().await.unwrap().unwrap();
        assert!(found.intact);
        let object = |kind| found.content.object(kind, ONE);
        let rate = Object::Rate {
            bytes_per_second: 1_200_000,
            burst: 0,
        };
        assert_eq!(object(Kind::Download), Some(rate));
        let quota = Object::Quota {
            bytes: 50 * MEGABYTE,
            consumed: 0,
        };
        assert_eq!(object(Kind::Quota), Some(quota));
        for kind in Kind::ALL {
            for address in [IpAddr::V4(client().v4), client().v6.unwrap().into()] {
                assert_eq!(found.content.owner(kind, address), Some(Some(ONE)));
            }
        }
        // Making it again changes nothing, and neither does another agent's first look.
        table().make().await.unwrap();
        let mut again = Limiter::new(Arc::new(table()));
        assert_eq!(again.repair(&mut book).await.unwrap(), 0);
        assert_eq!(run("nft list table inet prime_vpn_wg-test_limits"), once);
        assert_eq!(
            table().quotas_of(&[ONE, PeerId(2)]).await.unwrap(),
            [(ONE, 0)]
        );
    });
}

#[test]
fn what_is_removed_leaves_nothing_and_others_stay() {
    in_private_netns(async || {
        run("nft add table inet somebody_elses");
        let before = run("nft list ruleset");
        let (mut limiter, mut book) = limiter();
        many(&mut book, 3);
        limiter.limit(&mut book).await.unwrap();
        for peer in 1000..1003 {
            book.remove(PeerId(peer));
        }
        limiter.clear(&mut book).await.unwrap();
        assert!(table().read().await.unwrap().unwrap().content.is_empty());
        table().remove().await.unwrap();
        table().remove().await.unwrap();
        assert_eq!(run("nft list ruleset"), before);
    });
}

#[test]
fn a_refused_transaction_changes_nothing_and_says_why() {
    in_private_netns(async || {
        let table = table();
        table.make().await.unwrap();
        let object = Object::Quota {
            bytes: 5,
            consumed: 0,
        };
        let refused = vec![
            Change::AddObject(Kind::Quota, ONE, object),
            Change::AddElement(Kind::Quota, [10, 8, 0, 2].into(), PeerId(7)),
        ];
        let error = table.change(&[refused]).await.unwrap_err();
        assert!(matches!(error, TableError::Netlink(_)), "{error}");
        assert!(table.read().await.unwrap().unwrap().content.is_empty());
        // The last of a batch is refused, and the first.
        let again = vec![Change::AddObject(Kind::Quota, ONE, object)];
        table.change(std::slice::from_ref(&again)).await.unwrap();
        assert!(table.change(&[again]).await.is_err());
        let gone = vec![Change::RemoveObject(Kind::Upload, ONE)];
        assert!(table.change(&[gone]).await.is_err());
        assert_eq!(table.quotas().await.unwrap(), [(ONE, 0)]);
    });
}

#[test]
fn damage_of_any_part_is_repaired() {
    in_private_netns(async || {
        let (mut limiter, mut book) = limiter();
        many(&mut book, 3);
        limiter.repair(&mut book).await.unwrap();
        let whole = run("nft -s list table inet prime_vpn_wg-test_limits");
        let sorted = |text: String| {
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let whole = sorted(whole);
        for damage in [
            "flush chain inet prime_vpn_wg-test_limits forward",
            "flush map inet prime_vpn_wg-test_limits quota4",
            "delete element inet prime_vpn_wg-test_limits upload4 { 10.8.1.1 }",
            "flush chain inet prime_vpn_wg-test_limits from_client
             flush chain inet prime_vpn_wg-test_limits to_client
             delete map inet prime_vpn_wg-test_limits quota6",
            "delete element inet prime_vpn_wg-test_limits upload4 { 10.8.1.1 }
             add limit inet prime_vpn_wg-test_limits fast { rate over 1000 mbytes/second; }
             add element inet prime_vpn_wg-test_limits upload4 { 10.8.1.1 : \"fast\" }",
            "delete table inet prime_vpn_wg-test_limits",
        ] {
            table().make().await.unwrap();
            run_nft(&["-f", "-"], damage.as_bytes()).await.unwrap();
            limiter.repair(&mut book).await.unwrap();
            let mut now = sorted(run("nft -s list table inet prime_vpn_wg-test_limits"));
            // What leads nowhere is nobody's harm.
            if damage.contains("fast") {
                run("nft delete limit inet prime_vpn_wg-test_limits fast");
                now = sorted(run("nft -s list table inet prime_vpn_wg-test_limits"));
            }
            assert_eq!(now, whole, "{damage}");
        }
    });
}

#[test]
fn ten_megabits_are_ten_megabits_each_way_and_the_neighbour_is_not_slowed() {
    in_private_netns(async || {
        let world = World::new("lmr");
        let (mut limiter, mut book) = limiter();
        book.set(ONE, client(), rates(10));
        limiter.limit(&mut book).await.unwrap();
        for (way, limited) in [(Way::Up, "10.8.0.2"), (Way::Down, "10.8.0.2")] {
            let slow = world.transfer(limited, 5201, way, 12);
            let beside = world.transfer("10.8.0.3", 5202, way, 2).megabits();
            let measured = slow.megabits();
            println!("{way:?}: {measured} Mbit/s limited, {beside} Mbit/s beside it");
            assert!((9.0..=10.5).contains(&measured), "{way:?}: {measured}");
            assert!(beside > 10.0 * measured, "{way:?}: {beside} beside it");
        }
        // IPv6 has no budget of its own.
        let v4 = world.transfer("10.8.0.2", 5203, Way::Up, 12);
        let v6 = world.transfer("fd00:8::2", 5204, Way::Up, 12);
        let both = v4.megabits() + v6.megabits();
        assert!((8.5..=10.7).contains(&both), "{both} over both families");

        // Another plan, while bytes flow: the transfer goes on.
        let flowing = world.transfer("10.8.0.2", 5205, Way::Up, 8);
        tokio::time::sleep(Duration::from_secs(1)).await;
        book.set(ONE, client(), rates(50));
        limiter.limit(&mut book).await.unwrap();
        let faster = flowing.megabits();
        assert!((20.0..=60.0).contains(&faster), "{faster} after the change");
    });
}

#[test]
fn a_quota_stops_within_one_packets_worth_and_goes_on_when_it_is_raised() {
    in_private_netns(async || {
        let world = World::new("lmq");
        world.in_internet("nft add table inet count");
        for (chain, hook, field) in [("in", "input", "saddr"), ("out", "output", "daddr")] {
            world.in_internet(&format!(
                "nft add chain inet count {chain} {{ type filter hook {hook} priority 0; }}"
            ));
            world.in_internet(&format!(
                "nft add rule inet count {chain} ip {field} 10.8.0.2 counter"
            ));
        }
        let came = || {
            let rules = world.in_internet("nft list chain inet count in");
            bytes_in(&rules)
        };
        let (mut limiter, mut book) = limiter();
        book.set(ONE, client(), allowance(50 * MEGABYTE));
        limiter.limit(&mut book).await.unwrap();
        let table = table();
        let mut port = 5300;
        // The second time, the kernel has counted more than passed: what it dropped.
        for size in [50 * MEGABYTE, 60 * MEGABYTE, 70 * MEGABYTE] {
            limiter.read(&mut book, &[ONE]).await.unwrap();
            book.set(ONE, client(), allowance(size));
            limiter.limit(&mut book).await.unwrap();
            port += 1;
            let transfer = world.transfer("10.8.0.2", port, Way::Up, 60);
            until("used up", async || used(&table).await == size).await;
            // Attempts go on for a while, in vain.
            let passed = came();
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert_eq!(came(), passed);
            drop(transfer);
            // Answers on their way back count, too: a fiftieth at the most.
            let answers = bytes_in(&world.in_internet("nft list chain inet count out"));
            let total = passed + answers;
            println!("{size}: {passed} up, {answers} down");
            assert!(passed <= size, "{passed} of {size}");
            assert!(total + 4 * 65_536 >= size, "{total} of {size}");
        }
    });
}

/// The number behind `bytes` in a rule's counter.
fn bytes_in(rules: &str) -> u64 {
    let mut words = rules.split_ascii_whitespace();
    words.find(|word| *word == "bytes").expect("a counter");
    words.next().expect("a number").parse().expect("a number")
}

#[test]
fn two_thousand_limited_peers_cost_no_more_than_one() {
    in_private_netns(async || {
        let world = World::new("lmm");
        let (mut limiter, mut book) = limiter();
        book.set(
            ONE,
            client(),
            Limits {
                allowance: Some(u64::MAX),
                ..rates(100_000)
            },
        );
        limiter.limit(&mut book).await.unwrap();
        let mut best = 0.0_f64;
        for attempt in 0..4 {
            let port = 5400 + attempt * 2;
            let few = world.transfer("10.8.0.2", port, Way::Up, 2).megabits();
            many(&mut book, 2000);
            let begin = Instant::now();
            limiter.limit(&mut book).await.unwrap();
            let programmed = begin.elapsed();
            let lots = world.transfer("10.8.0.2", port + 1, Way::Up, 2).megabits();
            let begin = Instant::now();
            book.set(PeerId(1500), client_of(500), rates(20));
            limiter.limit(&mut book).await.unwrap();
            let changed = begin.elapsed();
            let begin = Instant::now();
            assert_eq!(table().quotas().await.unwrap().len(), 2000);
            println!(
                "{few} → {lots} Mbit/s; programmed in {programmed:?}, one changed in {changed:?}, \
                 quotas read in {:?}",
                begin.elapsed()
            );
            assert!(programmed < Duration::from_secs(20), "{programmed:?}");
            assert!(
                changed * 20 < programmed.max(Duration::from_secs(2)),
                "{changed:?}"
            );
            best = best.max(lots / few);
            if best > 0.8 {
                break;
            }
            for peer in 1000..3000 {
                book.remove(PeerId(peer));
            }
            limiter.clear(&mut book).await.unwrap();
        }
        assert!(best > 0.8, "{best} of the throughput with one");
        assert_eq!(limiter.repair(&mut book).await.unwrap(), 0);
    });
}

fn client_of(n: u32) -> Addresses {
    Addresses {
        v4: Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 8, 1, 0)) + n),
        v6: Some(format!("fd00:8::1:{n:x}").parse().unwrap()),
    }
}
