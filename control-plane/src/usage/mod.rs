//! Bytes: what the nodes count, how it becomes the connection's total, and who may watch it move.
//!
//! - Counters are cumulative within a generation; [`ledger`] is the one rule that adds them up, in
//!   memory and in SQL, and it is idempotent. No byte is lost or counted twice when the plane, the
//!   agent or the database dies in between.
//! - [`Live`] holds the last second of the nodes whose sessions are here and bounds what it keeps.
//! - [`Live`] writes so much at a time that the database has the same work every second, however many
//!   peers move; each is written within a minute. Ends and used parts of quotas do not wait.
//! - What a peer used of its quota is folded the same way, into its row and the person's month.
//! - What viewers see of the database is read for all of them together ([`watchlist`]).
//! - What a viewer is told is one thing ([`teller`]), how it is carried another: a WebSocket or events.
//! - A ticket opens one stream, once, and is worth no more than the token that it was given for.
//! - Where a client comes from reaches neither memory nor storage here.

pub mod format;
pub mod ledger;

mod audience;
mod consumption;
mod event_stream;
mod flush;
mod live;
mod message;
mod meter;
mod metrics_socket;
mod news;
mod quota_alarm;
mod round_trips;
mod routes;
mod store;
mod teller;
mod tickets;
mod viewer;
mod watch;
mod watchlist;

pub use audience::Audience;
pub use live::{Flow, Holdings, Live, Reading};
pub use round_trips::{keep as keep_round_trips, milliseconds};
pub use routes::{aliases, routes};
pub(crate) use store::handshake_time;
pub use teller::look;
pub use watchlist::keep as keep_watchlist;
