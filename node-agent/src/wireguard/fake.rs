//! A device in memory that follows the same rules as a real one, records what it was asked to do,
//! and fails when it is told to.
//!
//! For tests and for simulated nodes. Clones share one interface, so that a test keeps a handle on
//! what it gave away; a restart of the agent is a new owner of a clone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use shared::wireguard::PublicKey;

use super::{Device, DeviceError, InterfaceSetup, InterfaceStatus, PeerOp, PeerSpec, PeerStatus};

/// An interface in memory.
#[derive(Debug, Clone, Default)]
pub struct FakeDevice {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    interface: Option<Interface>,
    last_index: u32,
    operations: Vec<PeerOp>,
    failing_calls: u32,
    apply_limit: Option<usize>,
}

#[derive(Debug)]
struct Interface {
    index: u32,
    setup: InterfaceSetup,
    peers: BTreeMap<PublicKey, PeerStatus>,
}

impl FakeDevice {
    /// A host without the interface; [`Device::ensure`] makes it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Every operation carried out so far, oldest first.
    #[must_use]
    pub fn operations(&self) -> Vec<PeerOp> {
        self.lock().operations.clone()
    }

    /// The operations carried out since the last call.
    #[must_use]
    pub fn take_operations(&self) -> Vec<PeerOp> {
        std::mem::take(&mut self.lock().operations)
    }

    /// The next `calls` calls of any kind fail and change nothing.
    pub fn fail_next(&self, calls: u32) {
        self.lock().failing_calls = calls;
    }

    /// The next [`Device::apply`] fails after it has carried out `operations`.
    pub fn fail_apply_after(&self, operations: usize) {
        self.lock().apply_limit = Some(operations);
    }

    /// A peer's client moves bytes: `rx` up to the node, `tx` down from it.
    /// Does nothing where there is no such peer.
    pub fn transfer(&self, key: &PublicKey, rx: u64, tx: u64) {
        self.with_peer(key, |peer| {
            peer.rx_bytes = peer.rx_bytes.saturating_add(rx);
            peer.tx_bytes = peer.tx_bytes.saturating_add(tx);
        });
    }

    /// A peer's client completes a handshake. Does nothing where there is no such peer.
    pub fn handshake(&self, key: &PublicKey, unix_seconds: u64) {
        self.with_peer(key, |peer| peer.last_handshake = Some(unix_seconds));
    }

    /// Somebody else adds a peer, or replaces one: nothing is recorded.
    pub fn put_foreign(&self, spec: &PeerSpec) {
        if let Some(interface) = &mut self.lock().interface {
            interface
                .peers
                .insert(spec.public_key, fresh_status(spec.clone()));
        }
    }

    /// Somebody else removes a peer: nothing is recorded.
    pub fn remove_foreign(&self, key: &PublicKey) {
        if let Some(interface) = &mut self.lock().interface {
            interface.peers.remove(key);
        }
    }

    /// The interface disappears with its peers, as after a reboot.
    pub fn vanish(&self) {
        self.lock().interface = None;
    }

    /// What the interface was last brought to; none where there is no interface.
    #[must_use]
    pub fn setup(&self) -> Option<InterfaceSetup> {
        let state = self.lock();
        state.interface.as_ref().map(|it| it.setup.clone())
    }

    fn with_peer(&self, key: &PublicKey, change: impl FnOnce(&mut PeerStatus)) {
        let mut state = self.lock();
        if let Some(peer) = state
            .interface
            .as_mut()
            .and_then(|interface| interface.peers.get_mut(key))
        {
            change(peer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One call's turn, unless it is to fail.
    fn call(&self) -> Result<MutexGuard<'_, State>, DeviceError> {
        let mut state = self.lock();
        if state.failing_calls > 0 {
            state.failing_calls -= 1;
            return Err(told_to_fail());
        }
        Ok(state)
    }
}

#[async_trait]
impl Device for FakeDevice {
    fn backend(&self) -> &'static str {
        "fake"
    }

    async fn ensure(&self, setup: &InterfaceSetup) -> Result<InterfaceStatus, DeviceError> {
        let mut state = self.call()?;
        let index = match &mut state.interface {
            Some(interface) => {
                interface.setup = setup.clone();
                interface.index
            }
            None => {
                state.last_index += 1;
                let index = state.last_index;
                state.interface = Some(Interface {
                    index,
                    setup: setup.clone(),
                    peers: BTreeMap::new(),
                });
                index
            }
        };
        Ok(InterfaceStatus {
            index,
            public_key: Some(setup.private_key.public_key()),
            listen_port: setup.listen_port,
        })
    }

    async fn peers(&self) -> Result<Vec<PeerStatus>, DeviceError> {
        let state = self.call()?;
        let interface = state.interface.as_ref().ok_or(DeviceError::Missing)?;
        Ok(interface.peers.values().cloned().collect())
    }

    async fn apply(&self, operations: &[PeerOp]) -> Result<(), DeviceError> {
        let mut state = self.call()?;
        let limit = state.apply_limit.take();
        let State {
            interface,
            operations: log,
            ..
        } = &mut *state;
        let interface = interface.as_mut().ok_or(DeviceError::Missing)?;
        for operation in operations.iter().take(limit.unwrap_or(usize::MAX)) {
            interface.carry_out(operation.clone());
            log.push(operation.clone());
        }
        match limit {
            Some(_) => Err(told_to_fail()),
            None => Ok(()),
        }
    }

    async fn teardown(&self) -> Result<(), DeviceError> {
        self.call()?.interface = None;
        Ok(())
    }
}

impl Interface {
    /// As WireGuard does it: an allowed IP belongs to one peer and moves to whoever names it last,
    /// changing a peer keeps its counters, a peer that is not there is not updated.
    fn carry_out(&mut self, operation: PeerOp) {
        match operation {
            PeerOp::Add(spec) => self.put(spec),
            PeerOp::Update(spec) if self.peers.contains_key(&spec.public_key) => self.put(spec),
            PeerOp::Update(_) => {}
            PeerOp::Remove(key) => {
                self.peers.remove(&key);
            }
        }
    }

    fn put(&mut self, spec: PeerSpec) {
        for peer in self.peers.values_mut() {
            peer.allowed_ips.retain(|ip| !spec.allowed_ips.contains(ip));
        }
        let fresh = fresh_status(spec);
        let peer = self.peers.entry(fresh.public_key).or_insert(fresh.clone());
        peer.preshared_key = fresh.preshared_key;
        peer.allowed_ips = fresh.allowed_ips;
    }
}

fn fresh_status(spec: PeerSpec) -> PeerStatus {
    let mut allowed_ips = spec.allowed_ips;
    allowed_ips.sort_unstable();
    PeerStatus {
        public_key: spec.public_key,
        preshared_key: spec.preshared_key,
        allowed_ips,
        rx_bytes: 0,
        tx_bytes: 0,
        last_handshake: None,
    }
}

fn told_to_fail() -> DeviceError {
    DeviceError::Netlink("told to fail".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::wireguard::{PresharedKey, PrivateKey};

    fn setup() -> InterfaceSetup {
        InterfaceSetup {
            private_key: PrivateKey::generate(),
            listen_port: 51820,
            addresses: vec!["10.8.0.1/24".parse().unwrap()],
            mtu: 1420,
        }
    }

    fn spec(seed: u8, allowed_ip: &str) -> PeerSpec {
        PeerSpec {
            public_key: PublicKey::from_bytes([seed; 32]),
            preshared_key: Some(PresharedKey::from_bytes([seed; 32])),
            allowed_ips: vec![allowed_ip.parse().unwrap()],
        }
    }

    #[tokio::test]
    async fn updates_keep_counters_and_a_new_peer_starts_at_zero() {
        let device = FakeDevice::new();
        device.ensure(&setup()).await.unwrap();
        let peer = spec(1, "10.8.0.2/32");
        device.apply(&[PeerOp::Add(peer.clone())]).await.unwrap();
        device.transfer(&peer.public_key, 10, 20);
        device
            .apply(&[PeerOp::Update(spec(1, "10.8.0.3/32"))])
            .await
            .unwrap();
        let peers = device.peers().await.unwrap();
        assert_eq!((peers[0].rx_bytes, peers[0].tx_bytes), (10, 20));
        assert_eq!(peers[0].allowed_ips, spec(1, "10.8.0.3/32").allowed_ips);

        let again = [PeerOp::Remove(peer.public_key), PeerOp::Add(peer)];
        device.apply(&again).await.unwrap();
        assert_eq!(device.peers().await.unwrap()[0].rx_bytes, 0);
        assert_eq!(device.operations().len(), 4);
    }

    #[tokio::test]
    async fn an_address_moves_to_the_peer_that_names_it_last() {
        let device = FakeDevice::new();
        device.ensure(&setup()).await.unwrap();
        let both = [
            PeerOp::Add(spec(1, "10.8.0.2/32")),
            PeerOp::Add(spec(2, "10.8.0.2/32")),
        ];
        device.apply(&both).await.unwrap();
        let peers = device.peers().await.unwrap();
        assert_eq!(peers[0].allowed_ips, []);
        assert_eq!(peers[1].allowed_ips.len(), 1);
    }

    #[tokio::test]
    async fn fails_as_told_and_recovers() {
        let device = FakeDevice::new();
        device.ensure(&setup()).await.unwrap();
        device.fail_next(1);
        assert!(device.peers().await.is_err());
        assert!(device.peers().await.unwrap().is_empty());

        device.fail_apply_after(1);
        let both = [
            PeerOp::Add(spec(1, "10.8.0.2/32")),
            PeerOp::Add(spec(2, "10.8.0.3/32")),
        ];
        assert!(device.apply(&both).await.is_err());
        assert_eq!(device.peers().await.unwrap().len(), 1);
        assert_eq!(device.take_operations(), both[..1]);
        device.apply(&both).await.unwrap();
        assert_eq!(device.peers().await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_vanished_interface_comes_back_with_another_index() {
        let device = FakeDevice::new();
        let first = device.ensure(&setup()).await.unwrap();
        device.vanish();
        assert!(matches!(device.peers().await, Err(DeviceError::Missing)));
        let second = device.ensure(&setup()).await.unwrap();
        assert_ne!(first.index, second.index);
    }
}
