//! Mail to people: each is a job, written in the commit that is its reason.

mod letter;

pub use letter::{Letter, post};
