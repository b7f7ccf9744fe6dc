//! Whatever happens in whatever order, the node ends where it shall be, and nothing piles up.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use chrono::DateTime;
use proptest::prelude::*;
use shared::ids::{Revision, SessionId};
use shared::protocol::{
    AgentMessage, Applied, Outcome, PeerResult, PlaneMessage, Settings, StateHash, Timings,
};
use uuid::Uuid;

use super::machine::{Machine, Opened, Output, Resumption};
use crate::fleet::desired::{Changes, Snapshot};

/// Changes that one read gives.
const READ: u64 = 3;

#[derive(Debug, Clone, Copy)]
enum Event {
    /// A change is committed, and perhaps signalled.
    Commit(bool),
    Read(bool),
    Stored(bool),
    /// The node takes one message.
    Node,
    /// The node loses its state.
    Forget,
    Second,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => any::<bool>().prop_map(Event::Commit),
        4 => prop::bool::weighted(0.8).prop_map(Event::Read),
        2 => prop::bool::weighted(0.8).prop_map(Event::Stored),
        4 => Just(Event::Node),
        1 => Just(Event::Forget),
        1 => Just(Event::Second),
    ]
}

/// The machine, a database and a node.
struct World {
    machine: Machine,
    now: Instant,
    desired: u64,
    reading: Option<Output>,
    storing: bool,
    wire: VecDeque<PlaneMessage>,
    node: u64,
    unacknowledged: usize,
    stored: usize,
    said: usize,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let opened = Opened {
            session: SessionId(Uuid::nil()),
            protocol: 1,
            report_interval: Duration::from_secs(1),
            server_time: DateTime::UNIX_EPOCH,
            applied: Revision(0),
            state_hash: StateHash::default(),
            revision: Revision(0),
            resumption: Resumption::Delta(Vec::new()),
            settings: Settings::default(),
        };
        let mut world = Self {
            machine: Machine::open(opened, now),
            now,
            desired: 0,
            reading: None,
            storing: false,
            wire: VecDeque::new(),
            node: 0,
            unacknowledged: 0,
            stored: 0,
            said: 0,
        };
        world.perform();
        world
    }

    fn perform(&mut self) {
        while let Some(output) = self.machine.poll() {
            match output {
                Output::Send(message) => {
                    let is_push =
                        matches!(message, PlaneMessage::Apply(_) | PlaneMessage::Snapshot(_));
                    self.unacknowledged += usize::from(is_push);
                    self.wire.push_back(message);
                }
                Output::ReadChanges(_) | Output::ReadSnapshot => {
                    assert!(self.reading.is_none(), "one read at a time");
                    self.reading = Some(output);
                }
                Output::Store(batch) => {
                    assert!(!self.storing, "one store at a time");
                    self.storing = true;
                    self.stored = batch.results.len();
                }
                Output::Close(close) => panic!("{close:?}"),
                _ => {}
            }
        }
        assert!(
            self.unacknowledged <= 5,
            "four pushes, or one more snapshot"
        );
    }

    fn happen(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Commit(signalled) => {
                self.desired += 1;
                if signalled {
                    self.machine.handle_wake(now, now);
                }
            }
            Event::Read(works) => match self.reading.take() {
                Some(_) if !works => self.machine.handle_read_failed(now),
                Some(Output::ReadChanges(after)) => {
                    let to = self.desired.min(after.0 + READ);
                    let more = to < self.desired;
                    let (to, changes) = (Revision(to), Vec::new());
                    self.machine
                        .handle_changes(Changes { to, changes, more }, now);
                }
                Some(_) => {
                    let (revision, peers) = (Revision(self.desired), Vec::new());
                    self.machine
                        .handle_snapshot(Snapshot { revision, peers }, now);
                }
                None => {}
            },
            Event::Stored(works) => {
                if std::mem::take(&mut self.storing) {
                    if works {
                        self.said -= self.stored;
                        self.machine.handle_stored(now);
                    } else {
                        self.machine.handle_store_failed(now);
                    }
                }
            }
            Event::Node => self.node_takes_one(),
            Event::Forget => self.node = u64::MAX,
            Event::Second => {
                self.now += Duration::from_secs(1);
                self.machine.handle_sign_of_life(self.now);
                self.machine.handle_timeout(self.now);
            }
        }
        self.perform();
    }

    fn node_takes_one(&mut self) {
        let reached = match self.wire.pop_front() {
            Some(PlaneMessage::Apply(apply)) if apply.from.0 == self.node => apply.to,
            Some(PlaneMessage::Snapshot(part)) => part.revision,
            Some(PlaneMessage::Apply(_)) => {
                self.unacknowledged -= 1;
                return self
                    .machine
                    .handle_text(&AgentMessage::Resync.encode(), self.now);
            }
            _ => return,
        };
        self.unacknowledged -= 1;
        self.node = reached.0;
        self.said += 1;
        let applied = AgentMessage::Applied(Applied {
            revision: reached,
            state_hash: StateHash::default(),
            results: vec![PeerResult {
                peer: shared::ids::PeerId(reached.0),
                outcome: Outcome::Removed { counters: None },
            }],
            timings: Timings::default(),
        });
        self.machine.handle_text(&applied.encode(), self.now);
    }

    /// What the heartbeat does to a session that lags, and then all goes well.
    fn settle(&mut self) {
        self.happen(Event::Second);
        self.machine.handle_wake(self.now, self.now);
        self.perform();
        for _ in 0..2_000 {
            self.happen(Event::Read(true));
            self.happen(Event::Node);
            self.happen(Event::Stored(true));
        }
        self.happen(Event::Second);
    }
}

proptest! {
    #[test]
    fn the_node_ends_where_it_shall_be(events in prop::collection::vec(event(), 0..120)) {
        let mut world = World::new();
        for event in events {
            world.happen(event);
        }
        world.settle();
        // A node that lost its state and was sent nothing since says so at the next change.
        world.happen(Event::Commit(true));
        world.settle();
        prop_assert_eq!(world.node, world.desired);
        prop_assert_eq!(world.said, 0, "every result was stored");
        prop_assert!(world.wire.is_empty() && world.reading.is_none() && !world.storing);
    }

    #[test]
    fn no_frame_panics(frames in prop::collection::vec(any::<(bool, Vec<u8>)>(), 0..20)) {
        let mut world = World::new();
        for (is_text, bytes) in frames {
            if is_text {
                world.machine.handle_text(&String::from_utf8_lossy(&bytes), world.now);
            } else {
                world.machine.handle_binary(&bytes, world.now);
            }
        }
        while world.machine.poll().is_some() {}
    }
}
