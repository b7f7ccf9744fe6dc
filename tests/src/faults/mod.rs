//! The fault test: clients come, go, move and send while everything is killed and cut around them.
//!
//! `schedule` (what happens when), `trail` (what came back) and `audit` (what the interfaces say) are
//! pure; `traffic`, `client` and `run` do it over the lab. Run it with `scripts/faults`.

pub mod audit;
mod books;
mod client;
mod run;
mod schedule;
mod stage;
pub mod traffic;
pub mod trail;

pub use run::{from_environment, run};
pub use schedule::{Event, Shape, Step, Victim, Wish, schedule};
