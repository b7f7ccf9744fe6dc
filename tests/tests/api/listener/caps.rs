//! How many connections one address has, and all have.

use std::net::Ipv4Addr;

use tests::wait_until;
use tokio::net::TcpStream;

use super::{Target, asks, attacker, connect};
use crate::SOON;

/// As many connections that answer.
async fn crowd(target: &Target, from: Ipv4Addr, count: usize) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for _ in 0..count {
        let mut stream = connect(from, target.address()).await;
        assert!(asks(&mut stream).await, "connection {}", open.len());
        open.push(stream);
    }
    open
}

async fn is_let_in(target: &Target, from: Ipv4Addr) -> bool {
    asks(&mut connect(from, target.address()).await).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_has_its_share_and_others_theirs() {
    let target = Target::start(false, &[("CONNECTIONS_PER_ADDRESS", "5")]).await;
    let (greedy, other) = (attacker(1), attacker(2));
    let mut open = crowd(&target, greedy, 5).await;
    for _ in 0..20 {
        assert!(!is_let_in(&target, greedy).await);
    }
    let refused = "connections_refused_total{why=\"address\"}";
    target.wait_counted(refused, 20).await;
    let _others = crowd(&target, other, 5).await;
    target.answers_quickly().await;
    // Those that were there are still answered, and a place that is given up is somebody's again.
    assert!(asks(open.first_mut().expect("open")).await);
    drop(open.pop());
    wait_until("the place is free", SOON, async || {
        is_let_in(&target, greedy).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_together_have_a_bound() {
    let more = [("MAX_CONNECTIONS", "20"), ("CONNECTIONS_PER_ADDRESS", "10")];
    let target = Target::start(false, &more).await;
    // The harness may still hold one with which it asked whether the plane is ready.
    let mut open = Vec::new();
    for number in 0..=20 {
        let mut stream = connect(attacker(number), target.address()).await;
        if !asks(&mut stream).await {
            break;
        }
        open.push(stream);
    }
    assert!(
        (18..=20).contains(&open.len()),
        "{} were let in",
        open.len()
    );
    let refused = "connections_refused_total{why=\"full\"}";
    target.wait_counted(refused, 1).await;
    drop(open);
    wait_until("there is room again", SOON, async || {
        is_let_in(&target, attacker(100)).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn proxies_and_the_whitelist_may_have_many() {
    let more = [
        ("CONNECTIONS_PER_ADDRESS", "2"),
        ("TRUSTED_PROXIES", "127.66.0.1"),
        ("DDOS_WHITELIST_IPS", "127.66.0.2"),
    ];
    let target = Target::start(false, &more).await;
    for number in [1, 2] {
        let _open = crowd(&target, attacker(number), 10).await;
    }
    let _open = crowd(&target, attacker(3), 2).await;
    assert!(!is_let_in(&target, attacker(3)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_no_place_costs_no_handshake() {
    let target = Target::start(true, &[("CONNECTIONS_PER_ADDRESS", "3")]).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(connect(attacker(1), target.address()).await);
    }
    wait_until("a fourth is refused", SOON, async || {
        let mut fourth = connect(attacker(1), target.address()).await;
        !asks(&mut fourth).await
            && target
                .metric("connections_refused_total{why=\"address\"}")
                .await
                > 0
    })
    .await;
    let _ = target.plane.client().get("/health").await.expect(200);
}
