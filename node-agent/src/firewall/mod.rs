//! What a VPN client may reach, as one nftables table of our own.
//!
//! A client reaches the internet and the node's resolver: not other clients, not the host's
//! services, not private, link-local or metadata addresses, and not port 25. The table is built as
//! a value from [`FirewallSetup`] and replaced in one transaction, so there is never a moment
//! without it, and other tables are never touched. It only takes away: a packet that our table
//! lets pass may still be dropped by somebody else's.

#[cfg(test)]
mod isolation_tests;
mod ruleset;
mod syntax;
#[cfg(test)]
mod tests;

use std::io;
use std::net::IpAddr;
use std::process::Stdio;

use ipnet::IpNet;
use nftables::helper::{self, NftablesError};
use nftables::schema::{NfListObject, NfObject, Nftables};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::wireguard::InterfaceName;

/// What the rules are made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirewallSetup {
    /// The node's own addresses inside the tunnel, with the pool's prefix length: where clients
    /// find DNS and a ping's answer, and what is masqueraded.
    pub addresses: Vec<IpNet>,
    /// Resolvers elsewhere that clients may ask on port 53, though their addresses be private.
    pub resolvers: Vec<IpAddr>,
    /// Destinations that clients may reach although they lie in a range that is closed to them.
    pub allow: Vec<IpNet>,
}

/// Why the table could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    #[error("`nft` could not be run: {0}")]
    Execute(#[from] io::Error),
    #[error("nftables refused: {0}")]
    Refused(String),
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
    pub async fn apply(&self, setup: &FirewallSetup) -> Result<(), FirewallError> {
        run_transaction(&ruleset::replacement(&self.interface, setup)).await
    }

    /// Removes the table. Succeeds where there is none.
    pub async fn remove(&self) -> Result<(), FirewallError> {
        run_transaction(&ruleset::removal(&self.interface)).await
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
    let said = String::from_utf8_lossy(&output.stderr);
    Err(FirewallError::Refused(said.trim().to_owned()))
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
