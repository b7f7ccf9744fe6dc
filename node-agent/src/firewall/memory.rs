//! What the table was when this agent last made it, kept over a restart: who finds it so need not make
//! it again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::image::Image;
use super::{FirewallSetup, ruleset};
use crate::wireguard::InterfaceName;

/// The file's name.
pub const REMEMBERED: &str = "firewall.image";

/// Digests of the rules as they were asked for, and of the table that they became.
type Entry = [[u8; 32]; 2];

/// A file, or nothing.
#[derive(Debug, Clone, Default)]
pub struct Memory(Option<PathBuf>);

impl Memory {
    /// In this directory.
    #[must_use]
    pub fn within(directory: &Path) -> Self {
        Self(Some(directory.join(REMEMBERED)))
    }

    /// The table that these rules became; none where they never were made, or others since.
    pub(super) fn recall(&self, interface: &InterfaceName, setup: &FirewallSetup) -> Option<Image> {
        let bytes = fs::read(self.0.as_ref()?).ok()?;
        let (rules, image) = bytes.split_first_chunk::<32>()?;
        let asked = rules_digest(interface, setup).ok()?;
        let image = image.try_into().ok()?;
        (*rules == asked).then_some(Image(image))
    }

    /// A file that is lost, or half written, is as good as none.
    pub(super) fn keep(
        &self,
        interface: &InterfaceName,
        setup: &FirewallSetup,
        image: Image,
    ) -> io::Result<()> {
        let Some(path) = &self.0 else { return Ok(()) };
        let entry: Entry = [rules_digest(interface, setup)?, image.0];
        fs::write(path, entry.as_flattened())
    }
}

/// Of the rules themselves: another version of this program may make others of the same setup.
fn rules_digest(interface: &InterfaceName, setup: &FirewallSetup) -> io::Result<[u8; 32]> {
    let rules = serde_json::to_vec(&ruleset::replacement(interface, setup))?;
    Ok(Sha256::digest(rules).into())
}
