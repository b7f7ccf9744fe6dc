//! What an agent and the plane say to each other.
//!
//! The agent enrols once over HTTPS (`enrolment`), then keeps one WebSocket to
//! `GET /node/v1/session`. Text frames are JSON messages (`message`), binary frames are counters
//! (`counters`). Unknown fields and unknown variants are ignored on both sides, so that peers one
//! version apart work together; `fixtures/` keeps what every released version sent.
//!
//! A session: the agent says [`Hello`]; the plane answers [`Welcome`] (or [`Refused`] and closes),
//! then either a [`SnapshotPart`] series or [`Apply`] from the agent's revision on. Every applied
//! revision is acknowledged with [`Applied`]. Liveness is the WebSocket's own ping, sent by the plane.

pub mod counters;
pub mod enrolment;
#[cfg(test)]
mod fixtures;
mod message;
mod state_hash;

pub use message::*;
pub use state_hash::StateHash;

/// The newest version that this build speaks.
pub const PROTOCOL_VERSION: u16 = 2;
/// The oldest version that this build still speaks.
pub const MIN_PROTOCOL_VERSION: u16 = 1;

/// Largest frame that either side sends or accepts, in bytes.
pub const MAX_FRAME_BYTES: usize = 256 * 1024;
/// Largest number of peers in one snapshot part, and of changes in one [`Apply`].
pub const MAX_PEERS_PER_MESSAGE: usize = 500;
/// Largest number of peers in one [`Watch`].
pub const MAX_WATCHED: usize = 1_000;

/// The path of the session's WebSocket, below the plane's base URL.
pub const SESSION_PATH: &str = "/node/v1/session";
/// The path for enrolment, below the plane's base URL.
pub const ENROL_PATH: &str = "/node/v1/enrol";

/// WebSocket close codes of the session, in the private range.
pub mod close {
    /// The Hello's protocol versions do not meet the plane's.
    pub const UNSUPPORTED_PROTOCOL: u16 = 4400;
    /// The node's token is not, or no longer, valid.
    pub const UNAUTHORIZED: u16 = 4401;
    /// A frame was too large, not decodable, or out of order.
    pub const BAD_FRAME: u16 = 4402;
    /// A newer session of the same node took over.
    pub const REPLACED: u16 = 4403;
    /// The other side did not keep up or fell silent.
    pub const TIMED_OUT: u16 = 4408;
    /// The plane is going away; dial again at once.
    pub const RESTARTING: u16 = 4409;
}

/// Why a frame was not understood.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("frame of {0} bytes exceeds the limit of {MAX_FRAME_BYTES}")]
    TooLarge(usize),
    #[error("not a message: {0}")]
    Json(#[from] serde_json::Error),
    #[error("not a counters frame: {0}")]
    Counters(&'static str),
}
