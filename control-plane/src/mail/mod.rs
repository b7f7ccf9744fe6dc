//! Mail to people: each is a job, written in the commit that is its reason.
//!
//! Neither an address nor a token is logged or kept with a job's failure: a mail server's own words
//! repeat the address, so that only its status code is taken over.

mod letter;
mod postman;
mod render;
mod transport;

pub use letter::{Letter, post, pretend};
pub use postman::{MailError, Postman};
