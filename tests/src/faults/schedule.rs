//! What happens when, from a seed. Pure.
//!
//! Every kind of victim dies at least as often as the shape says, never while it is down, and comes
//! back; every wire that is cut is healed; a third of the rounds is a storm, in which everything
//! dies within a moment. What clients do is spread over the whole time, and what they do meets
//! whatever is down just then.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::lab::Cut;

/// How much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// From the first fault to the last recovery.
    pub length: Duration,
    pub nodes: usize,
    /// Clients that come, go and move.
    pub clients: usize,
    /// How often each kind of victim is killed. A node's wire is cut half as often.
    pub kills: u32,
}

impl Shape {
    /// The usual one for this length: a round of kills every quarter of a minute.
    #[must_use]
    pub fn of(length: Duration, nodes: usize, clients: usize) -> Self {
        let rounds = u32::try_from(length.as_secs() / 15).unwrap_or(u32::MAX);
        Self {
            length,
            nodes,
            clients,
            kills: rounds.max(2),
        }
    }
}

/// Who is killed with `-9` and started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Victim {
    /// Of this node.
    Agent(usize),
    Plane,
    Postgres,
    Redis,
}

/// What a client does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Be connected, wherever the plane likes.
    Connect,
    /// Be connected to this node; a connection elsewhere moves there.
    Move(usize),
    /// Quiet first, so that its bytes are known to the last one, or in the middle of traffic.
    Disconnect { quiet: bool },
    /// Another plan, with limits or without.
    Plan { limited: bool },
}

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Kill(Victim),
    Start(Victim),
    Cut(usize, Cut),
    Heal(usize),
    Client(usize, Wish),
    /// Somebody connects many keys that no interface holds, and ends as many.
    Crowd(usize),
}

/// One thing and its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    pub at: Duration,
    pub step: Step,
}

/// Everything in the order of time. The same seed and shape give the same list.
#[must_use]
pub fn schedule(seed: u64, shape: &Shape) -> Vec<Event> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut events = Vec::new();
    kills(shape, &mut rng, &mut events);
    cuts(shape, &mut rng, &mut events);
    for client in 0..shape.clients {
        wishes(client, shape, &mut rng, &mut events);
    }
    crowds(shape, &mut rng, &mut events);
    // Stable: what falls together stays in the order of its making.
    events.sort_by_key(|event| event.at);
    events
}

/// The time is divided into rounds, and in each one every kind dies once.
fn kills(shape: &Shape, rng: &mut StdRng, events: &mut Vec<Event>) {
    let round = shape.length / shape.kills.max(1);
    for number in 0..shape.kills {
        let start = round * number;
        let storm = rng
            .random_bool(1.0 / 3.0)
            .then(|| rng.random_range(0.0..0.4));
        let agent = Victim::Agent(rng.random_range(0..shape.nodes.max(1)));
        for victim in [agent, Victim::Plane, Victim::Postgres, Victim::Redis] {
            let begin = match storm {
                Some(moment) => {
                    start + round.mul_f64(moment) + milliseconds(rng.random_range(0..400))
                }
                None => start + round.mul_f64(rng.random_range(0.0..0.5)),
            };
            // Mostly short; sometimes as long as the round has room for.
            let share = if rng.random_bool(0.2) { 0.4 } else { 0.2 };
            let room = round.mul_f64(share).min(Duration::from_secs(8));
            let outage = milliseconds(100) + room.mul_f64(rng.random_range(0.0..1.0));
            push(events, begin, Step::Kill(victim));
            push(
                events,
                (begin + outage).min(start + round),
                Step::Start(victim),
            );
        }
    }
}

fn cuts(shape: &Shape, rng: &mut StdRng, events: &mut Vec<Event>) {
    let count = shape.kills.div_ceil(2).max(1);
    let round = shape.length / count;
    for number in 0..count {
        let node = rng.random_range(0..shape.nodes.max(1));
        let cut = if rng.random_bool(0.5) {
            Cut::Unplugged
        } else {
            Cut::Swallowed
        };
        let begin = round * number + round.mul_f64(rng.random_range(0.0..0.4));
        // Past the silence that both sides bear, where there is room for it.
        let longest = if rng.random_bool(0.25) { 20 } else { 4 };
        let room = round.mul_f64(0.55).min(Duration::from_secs(longest));
        let outage = milliseconds(300) + room.mul_f64(rng.random_range(0.2..1.0));
        push(events, begin, Step::Cut(node, cut));
        push(
            events,
            (begin + outage).min(round * (number + 1)),
            Step::Heal(node),
        );
    }
}

/// From one wish to the next it takes between half a second and five.
fn wishes(client: usize, shape: &Shape, rng: &mut StdRng, events: &mut Vec<Event>) {
    let nodes: Vec<usize> = (0..shape.nodes).collect();
    let mut at = milliseconds(rng.random_range(0..1_000));
    while at < shape.length {
        let wish = match rng.random_range(0..10) {
            0..=2 => Wish::Connect,
            3..=5 => Wish::Move(nodes.choose(rng).copied().unwrap_or(0)),
            6..=8 => Wish::Disconnect {
                quiet: rng.random_bool(0.5),
            },
            _ => Wish::Plan {
                limited: rng.random_bool(0.5),
            },
        };
        push(events, at, Step::Client(client, wish));
        at += milliseconds(rng.random_range(500..5_000));
    }
}

fn crowds(shape: &Shape, rng: &mut StdRng, events: &mut Vec<Event>) {
    let mut at = milliseconds(rng.random_range(0..2_000));
    while at < shape.length {
        push(events, at, Step::Crowd(rng.random_range(1..6)));
        at += milliseconds(rng.random_range(500..3_000));
    }
}

fn push(events: &mut Vec<Event>, at: Duration, step: Step) {
    events.push(Event { at, step });
}

const fn milliseconds(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn shape() -> impl Strategy<Value = Shape> {
        (10..900_u64, 1..4_usize, 0..9_usize).prop_map(|(seconds, nodes, clients)| {
            Shape::of(Duration::from_secs(seconds), nodes, clients)
        })
    }

    fn kind(victim: Victim) -> Victim {
        match victim {
            Victim::Agent(_) => Victim::Agent(0),
            other => other,
        }
    }

    proptest! {
        #[test]
        fn the_same_seed_gives_the_same_schedule(seed: u64, shape in shape()) {
            let events = schedule(seed, &shape);
            prop_assert_eq!(&events, &schedule(seed, &shape));
            prop_assert_ne!(&events, &schedule(seed.wrapping_add(1), &shape));
            prop_assert!(events.is_sorted_by_key(|event| event.at));
        }

        #[test]
        fn who_dies_comes_back_and_every_kind_dies_often_enough(seed: u64, shape in shape()) {
            let mut down = HashMap::new();
            let mut deaths: HashMap<Victim, u32> = HashMap::new();
            for event in schedule(seed, &shape) {
                match event.step {
                    Step::Kill(victim) => {
                        prop_assert!(down.insert(victim, event.at).is_none(), "{:?} died twice", victim);
                        *deaths.entry(kind(victim)).or_default() += 1;
                    }
                    Step::Start(victim) => {
                        let since = down.remove(&victim);
                        prop_assert!(since.is_some_and(|since| since < event.at));
                    }
                    _ => {}
                }
                prop_assert!(event.at <= shape.length);
            }
            prop_assert!(down.is_empty(), "{:?} stay down", down);
            prop_assert_eq!(deaths.len(), 4);
            prop_assert!(deaths.values().all(|count| *count >= shape.kills));
        }

        #[test]
        fn what_is_cut_is_healed(seed: u64, shape in shape()) {
            let mut cut: Option<usize> = None;
            let mut cuts = 0;
            for event in schedule(seed, &shape) {
                match event.step {
                    Step::Cut(node, _) => {
                        prop_assert!(cut.replace(node).is_none(), "one wire at a time");
                        prop_assert!(node < shape.nodes);
                        cuts += 1;
                    }
                    Step::Heal(node) => prop_assert_eq!(cut.take(), Some(node)),
                    _ => {}
                }
            }
            prop_assert!(cut.is_none() && cuts >= 1);
        }

        #[test]
        fn every_client_has_something_to_do(seed: u64, shape in shape()) {
            let mut wishes = vec![0; shape.clients];
            for event in schedule(seed, &shape) {
                if let Step::Client(client, wish) = event.step {
                    wishes[client] += 1;
                    if let Wish::Move(node) = wish {
                        prop_assert!(node < shape.nodes);
                    }
                }
            }
            prop_assert!(wishes.iter().all(|count| *count >= 2), "{:?}", wishes);
        }
    }

    #[test]
    fn ten_minutes_kill_everything_at_least_five_times() {
        let shape = Shape::of(Duration::from_secs(600), 2, 6);
        assert!(shape.kills >= 5, "{shape:?}");
    }
}
