//! The host under the interface: how loaded it is, and whether it forwards packets.

pub mod forwarding;
mod load;
#[cfg(test)]
pub(crate) mod netns;
mod reading;
mod sampler;
mod uplink;

pub use load::Occupancy;
pub use sampler::{LoadSampler, speed_of};
pub use uplink::default_uplink;
