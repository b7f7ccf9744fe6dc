//! How many nodes are in which state. Pure.

use chrono::{DateTime, Utc};

use super::view::{FleetView, ServerStatus};

/// Where a node stands, as operators count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Online,
    Draining,
    Maintenance,
    Offline,
    Silent,
}

/// Nodes by state; each is in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NodeStates {
    /// It answers and takes clients.
    pub online: u64,
    /// It is to be emptied, by the operator's word or its own.
    pub draining: u64,
    pub maintenance: u64,
    /// Switched off by the operator.
    pub offline: u64,
    /// It should answer and does not.
    pub silent: u64,
}

impl NodeStates {
    pub(super) fn of(view: &FleetView, now: DateTime<Utc>) -> Self {
        let mut states = Self::default();
        for server in view.servers() {
            let live = server.live();
            let draining = server.is_drained || live.draining;
            states.count(state(server.status, draining, live.is_online(now)));
        }
        states
    }

    #[must_use]
    pub const fn total(&self) -> u64 {
        self.online + self.draining + self.maintenance + self.offline + self.silent
    }

    /// Each state's word and count.
    #[must_use]
    pub const fn all(&self) -> [(&'static str, u64); 5] {
        [
            ("online", self.online),
            ("draining", self.draining),
            ("maintenance", self.maintenance),
            ("offline", self.offline),
            ("silent", self.silent),
        ]
    }

    const fn count(&mut self, state: State) {
        let count = match state {
            State::Online => &mut self.online,
            State::Draining => &mut self.draining,
            State::Maintenance => &mut self.maintenance,
            State::Offline => &mut self.offline,
            State::Silent => &mut self.silent,
        };
        *count += 1;
    }
}

/// What an operator switched off is expected to be silent; what should answer and does not says more than
/// that it is drained.
const fn state(status: ServerStatus, is_draining: bool, is_online: bool) -> State {
    match (status, is_online, is_draining) {
        (ServerStatus::Offline, ..) => State::Offline,
        (ServerStatus::Maintenance, ..) => State::Maintenance,
        (ServerStatus::Active, false, _) => State::Silent,
        (ServerStatus::Active, true, true) => State::Draining,
        (ServerStatus::Active, true, false) => State::Online,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::fleet::view::tests::{online, profile};
    use crate::fleet::view::{Live, Profile, Server};

    #[rstest]
    #[case(ServerStatus::Active, false, true, State::Online)]
    #[case(ServerStatus::Active, true, true, State::Draining)]
    #[case(ServerStatus::Active, true, false, State::Silent)]
    #[case(ServerStatus::Active, false, false, State::Silent)]
    #[case(ServerStatus::Maintenance, true, false, State::Maintenance)]
    #[case(ServerStatus::Offline, false, true, State::Offline)]
    fn a_node_is_in_one_state(
        #[case] status: ServerStatus,
        #[case] is_draining: bool,
        #[case] is_online: bool,
        #[case] expected: State,
    ) {
        assert_eq!(state(status, is_draining, is_online), expected);
    }

    #[test]
    fn a_fleet_is_counted() {
        let now = Utc::now();
        let drained = Profile {
            is_drained: true,
            ..profile(2)
        };
        let servers = vec![
            Server::new(profile(1), online(now)),
            Server::new(drained, online(now)),
            Server::new(profile(3), Live::default()),
        ];
        let states = NodeStates::of(&FleetView::new(servers), now);
        let expected = NodeStates {
            online: 1,
            draining: 1,
            silent: 1,
            ..NodeStates::default()
        };
        assert_eq!((states, states.total()), (expected, 3));
        assert_eq!(states.all().iter().map(|(_, count)| count).sum::<u64>(), 3);
    }
}
