//! Who looks at which connections through the sockets of this replica.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shared::ids::{ConnectionId, PeerId, ServerId};

/// A connection that a socket shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) connection: ConnectionId,
    pub(super) server: ServerId,
    pub(super) peer: PeerId,
}

/// The open sockets of this replica and what each shows.
#[derive(Debug, Default)]
pub struct Audience(Mutex<Seats>);

#[derive(Debug, Default)]
struct Seats {
    next: u64,
    taken: HashMap<u64, Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    /// The connections are the viewer's own: what is told here can be acted on.
    is_owner: bool,
    shown: Vec<Shown>,
}

impl Audience {
    /// A place for one socket.
    pub(super) fn seat(self: &Arc<Self>, is_owner: bool) -> Seat {
        let mut seats = self.seats();
        let number = seats.next;
        seats.next = number.wrapping_add(1);
        let shown = Vec::new();
        seats.taken.insert(number, Taken { is_owner, shown });
        Seat {
            audience: Arc::clone(self),
            number,
        }
    }

    /// How many are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.seats().taken.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The connections on such servers whose owners look, in order.
    #[must_use]
    pub fn owned_on(&self, server: impl Fn(ServerId) -> bool) -> BTreeSet<ConnectionId> {
        let seats = self.seats();
        let owned = seats.taken.values().filter(|taken| taken.is_owner);
        let shown = owned.flat_map(|taken| &taken.shown);
        shown
            .filter(|shown| server(shown.server))
            .map(|shown| shown.connection)
            .collect()
    }

    /// The peers that anybody looks at, by server.
    #[must_use]
    pub fn peers(&self) -> HashMap<ServerId, Vec<PeerId>> {
        let mut peers: HashMap<_, BTreeSet<_>> = HashMap::new();
        for shown in self.seats().taken.values().flat_map(|taken| &taken.shown) {
            peers.entry(shown.server).or_default().insert(shown.peer);
        }
        let listed = |(server, peers): (_, BTreeSet<_>)| (server, peers.into_iter().collect());
        peers.into_iter().map(listed).collect()
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A socket's place; dropped, nobody looks there any more.
#[derive(Debug)]
pub(super) struct Seat {
    audience: Arc<Audience>,
    number: u64,
}

impl Seat {
    /// What the socket shows from now on.
    pub(super) fn show(&self, shown: Vec<Shown>) {
        if let Some(taken) = self.audience.seats().taken.get_mut(&self.number) {
            taken.shown = shown;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.audience.seats().taken.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn shown(connection: u128, server: u128) -> Shown {
        Shown {
            connection: ConnectionId(Uuid::from_u128(connection)),
            server: ServerId(Uuid::from_u128(server)),
            peer: PeerId(u64::try_from(connection).expect("small")),
        }
    }

    #[test]
    fn owners_and_others_are_told_apart() {
        let audience = Arc::new(Audience::default());
        let (owner, support) = (audience.seat(true), audience.seat(false));
        owner.show(vec![shown(1, 7), shown(2, 8)]);
        support.show(vec![shown(1, 7), shown(3, 7)]);
        let on_7 = |server: ServerId| server == shown(0, 7).server;
        let owned: Vec<_> = audience.owned_on(on_7).into_iter().collect();
        assert_eq!(owned, [shown(1, 7).connection]);
        assert_eq!(
            audience.peers().get(&shown(0, 7).server),
            Some(&vec![PeerId(1), PeerId(3)])
        );
        owner.show(vec![shown(2, 8)]);
        assert!(audience.owned_on(on_7).is_empty());
    }

    #[test]
    fn whoever_leaves_looks_at_nothing() {
        let audience = Arc::new(Audience::default());
        let seat = audience.seat(true);
        seat.show(vec![shown(1, 7)]);
        assert_eq!(audience.len(), 1);
        drop(seat);
        assert!(audience.owned_on(|_| true).is_empty());
        assert!(audience.peers().is_empty() && audience.is_empty());
    }
}
