//! What a VPN client may reach, as one nftables table of our own.
//!
//! A client reaches the internet and the node's resolver: not other clients, not the host's
//! services, not private, link-local or metadata addresses, and not port 25. The table is built as
//! a value from [`FirewallSetup`] and replaced in one transaction, so there is never a moment
//! without it, and other tables are never touched. It only takes away: a packet that our table
//! lets pass may still be dropped by somebody else's. A [`Keeper`] holds it against changes.

mod destination;
mod events;
mod image;
#[cfg(test)]
mod isolation_tests;
mod keeper;
mod memory;
mod ruleset;
mod syntax;
#[cfg(test)]
mod tests;

use std::io;
use std::net::IpAddr;
use std::process::Stdio;

pub use self::destination::{Destination, MalformedDestination, Ports, Transport};
pub use self::keeper::{Drift, Keeper};
pub use self::memory::{Memory, REMEMBERED};

use clap::ValueEnum;
use ipnet::IpNet;
use nftables::helper::{self, NftablesError};
use nftables::schema::{NfListObject, NfObject, Nftables};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use self::image::Image;
use crate::netfilter;
use crate::wireguard::InterfaceName;

/// While others change their tables all the time, ours is looked at without proof that it is ours.
const ATTEMPTS: usize = 5;

/// How clients' IPv6 packets reach the internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Ipv6Mode {
    /// With the host's address.
    #[default]
    Nat,
    /// With the client's own address, from a prefix that is routed to this host. What nobody asked for
    /// reaches no client all the same.
    Routed,
}

/// What the rules are made from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FirewallSetup {
    /// The node's own addresses inside the tunnel, with the pool's prefix length: where clients
    /// find DNS and a ping's answer, and what is masqueraded.
    pub addresses: Vec<IpNet>,
    /// Resolvers elsewhere that clients may ask on port 53, though their addresses be private.
    pub resolvers: Vec<IpAddr>,
    /// Destinations that clients may reach although they lie in a range that is closed to them.
    pub allow: Vec<Destination>,
    /// Destinations that clients may not reach, whatever else is said of them.
    pub deny: Vec<Destination>,
    pub ipv6: Ipv6Mode,
    /// Whomever a client asks on port 53, the node's resolver answers.
    pub redirect_dns: bool,
}

/// Why the table could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    #[error("`nft` could not be run: {0}")]
    Execute(#[from] io::Error),
    #[error("nftables refused: {0}")]
    Refused(String),
    #[error(transparent)]
    Netlink(#[from] netfilter::Error),
    #[error("somebody else removes the table as soon as it is made")]
    Removed,
}

/// Our table for one interface.
#[derive(Debug, Clone)]
pub struct Firewall {
    interface: InterfaceName,
}

impl Firewall {
    #[must_use]
    pub fn new(interface: InterfaceName) -> Self {
        Self { interface }
    }

    /// Brings the table to `setup` in one transaction. Doing it again changes nothing.
    async fn apply(&self, setup: &FirewallSetup) -> Result<(), FirewallError> {
        run_transaction(&ruleset::replacement(&self.interface, setup)).await
    }

    /// Removes the table. Succeeds where there is none.
    pub async fn remove(&self) -> Result<(), FirewallError> {
        run_transaction(&ruleset::removal(&self.interface)).await
    }

    /// Brings the table to `setup`, and takes its image then. Where somebody else's transaction came
    /// between, the image might show their work for ours: it is done again.
    async fn establish(&self, setup: &FirewallSetup) -> Result<Image, FirewallError> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let before = events::generation()?;
            self.apply(setup).await?;
            let image = self.image()?;
            let alone = events::generation()? == before.wrapping_add(1);
            match image {
                Some(image) if alone || attempts == ATTEMPTS => return Ok(image),
                None if attempts == ATTEMPTS => return Err(FirewallError::Removed),
                _ => {}
            }
        }
    }

    /// None where there is no table.
    fn image(&self) -> Result<Option<Image>, FirewallError> {
        Ok(Image::take(&ruleset::table_name(&self.interface))?)
    }

    /// Whether the table is there.
    pub async fn present(&self) -> Result<bool, FirewallError> {
        let listing = helper::get_current_ruleset_with_args_async(
            helper::DEFAULT_NFT,
            ["list", "tables", "inet"],
        )
        .await?;
        let name = ruleset::table_name(&self.interface);
        Ok(listing.objects.iter().any(|object| {
            matches!(object, NfObject::ListObject(NfListObject::Table(table)) if table.name == name)
        }))
    }
}

/// The library's own way of doing this loses what `nft` says about a refusal.
async fn run_transaction(transaction: &Nftables<'_>) -> Result<(), FirewallError> {
    let text = serde_json::to_vec(transaction).map_err(io::Error::from)?;
    run_nft(&["-j", "-f", "-"], &text).await
}

/// Runs `nft` with `input`, one transaction.
pub(crate) async fn run_nft(arguments: &[&str], input: &[u8]) -> Result<(), FirewallError> {
    let mut nft = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let written = match nft.stdin.take() {
        Some(mut stdin) => stdin.write_all(input).await,
        None => Ok(()),
    };
    let output = nft.wait_with_output().await?;
    if output.status.success() {
        return Ok(written?);
    }
    Err(refused(&output.stderr))
}

fn refused(said: &[u8]) -> FirewallError {
    FirewallError::Refused(String::from_utf8_lossy(said).trim().to_owned())
}

impl From<NftablesError> for FirewallError {
    fn from(error: NftablesError) -> Self {
        match error {
            NftablesError::NftExecution { inner, .. } => Self::Execute(inner),
            NftablesError::NftFailed { stderr, .. } => Self::Refused(stderr.trim().to_owned()),
            other => Self::Refused(other.to_string()),
        }
    }
}
