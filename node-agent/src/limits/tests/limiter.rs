//! The limiter over a table in memory.

use std::net::{IpAddr, Ipv4Addr};

use shared::protocol::{Addresses, Limits};

use super::*;
use crate::limits::fake::FakeTable;
use crate::limits::{Kind, Object};

const ONE: PeerId = PeerId(1);

fn addresses(host: u8) -> Addresses {
    Addresses {
        v4: Ipv4Addr::new(10, 8, 0, host),
        v6: None,
    }
}

fn allowance(bytes: u64) -> Limits {
    Limits {
        allowance: Some(bytes),
        ..Limits::default()
    }
}

fn limiter() -> (FakeTable, Limiter, Book) {
    let table = FakeTable::new();
    let limiter = Limiter::new(Arc::new(table.clone()));
    (table, limiter, Book::default())
}

#[tokio::test]
async fn nothing_is_made_where_nobody_is_limited() {
    let (table, mut limiter, mut book) = limiter();
    assert_eq!(limiter.repair(&mut book).await.expect("works"), 0);
    assert!(limiter.is_idle(&book));
    book.set(ONE, addresses(2), Limits::default());
    limiter.limit(&mut book).await.expect("works");
    assert_eq!(table.content(), None);
    assert_eq!(table.reads(), 1);
}

#[tokio::test]
async fn a_change_is_made_without_reading_the_table() {
    let (table, mut limiter, mut book) = limiter();
    limiter.repair(&mut book).await.expect("works");
    let reads = table.reads();
    book.set(ONE, addresses(2), allowance(100));
    limiter.limit(&mut book).await.expect("works");
    assert_eq!(table.take_changes().len(), 2);
    book.set(ONE, addresses(2), allowance(200));
    limiter.limit(&mut book).await.expect("works");
    assert_eq!(table.take_changes(), [Change::SetAllowance(ONE, 200)]);
    limiter.limit(&mut book).await.expect("works");
    book.remove(ONE);
    limiter.clear(&mut book).await.expect("works");
    assert!(table.content().expect("made").is_empty());
    assert_eq!(table.reads(), reads);
}

#[tokio::test]
async fn a_restart_changes_nothing_and_drops_what_nobody_wants() {
    let (table, mut limiter, mut book) = limiter();
    for (peer, host) in [(ONE, 2), (PeerId(2), 3)] {
        book.set(peer, addresses(host), allowance(100));
    }
    limiter.repair(&mut book).await.expect("works");
    table.transfer(IpAddr::from([10, 8, 0, 2]), 60);
    let _ = table.take_changes();

    let mut limiter = Limiter::new(Arc::new(table.clone()));
    let mut book = Book::default();
    book.set(ONE, addresses(2), allowance(100));
    assert_eq!(limiter.repair(&mut book).await.expect("works"), 1);
    assert_eq!(book.wanted(ONE).expect("limited").consumed, 60);
    let gone = [
        Change::RemoveElement(Kind::Quota, [10, 8, 0, 3].into()),
        Change::RemoveObject(Kind::Quota, PeerId(2)),
    ];
    assert_eq!(table.take_changes(), gone);
    assert_eq!(limiter.repair(&mut book).await.expect("works"), 0);
}

#[tokio::test]
async fn a_table_that_vanished_comes_back_with_what_was_used() {
    let (table, mut limiter, mut book) = limiter();
    book.set(ONE, addresses(2), allowance(100));
    limiter.repair(&mut book).await.expect("works");
    table.transfer(IpAddr::from([10, 8, 0, 2]), 60);
    limiter.read(&mut book, &[ONE]).await.expect("works");
    table.vanish();
    assert_eq!(limiter.repair(&mut book).await.expect("works"), 1);
    let object = Object::Quota {
        bytes: 100,
        consumed: 60,
    };
    let content = table.content().expect("made");
    assert_eq!(content.object(Kind::Quota, ONE), Some(object));
}

#[tokio::test]
async fn after_a_failure_the_table_is_looked_at_before_the_next_change() {
    let (table, mut limiter, mut book) = limiter();
    limiter.repair(&mut book).await.expect("works");
    table.fail_changes(1);
    book.set(ONE, addresses(2), allowance(100));
    assert!(limiter.limit(&mut book).await.is_err());
    assert_eq!(book.to_limit(), [ONE]);
    let reads = table.reads();
    limiter.limit(&mut book).await.expect("works");
    assert!(table.reads() > reads);
    assert_eq!(book.to_limit(), []);
    assert!(limiter.has_quota());
}
