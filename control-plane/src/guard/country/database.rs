//! An MMDB file in memory.

use std::fmt;
use std::io;
use std::net::IpAddr;

use foldhash::{HashSet, HashSetExt};
use maxminddb::{MaxMindDbError, Reader, WithinOptions};

use super::record::Record;
use crate::config::CountryCode;

#[derive(Debug, thiserror::Error)]
pub enum CountryError {
    #[error("COUNTRY_DB_FILE cannot be read")]
    Unreadable(#[source] io::Error),
    #[error("COUNTRY_DB_FILE is no MMDB file, or a damaged one")]
    Damaged(#[from] MaxMindDbError),
    #[error("COUNTRY_DB_FILE takes a file that knows countries, and this one ({0:?}) names none")]
    NoCountries(String),
}

/// A file that is whole and names countries.
pub(super) struct Database(Reader<Vec<u8>>);

impl Database {
    /// Looks at all of it once, so that no request meets damage.
    pub(super) fn new(file: Vec<u8>) -> Result<Self, CountryError> {
        let reader = Reader::from_source(file)?;
        // This asks for a description as well, which some files do without.
        if !reader.metadata().description.is_empty() {
            reader.verify()?;
        }
        if names_countries(&reader)? {
            return Ok(Self(reader));
        }
        let kind = reader.metadata().database_type.clone();
        Err(CountryError::NoCountries(kind))
    }

    /// Where an address is, as far as the file knows.
    pub(super) fn country_of(&self, address: IpAddr) -> Option<CountryCode> {
        // A file of IPv4 alone answers an IPv6 address with an error.
        let found = self.0.lookup(address.to_canonical()).ok()?;
        found.decode::<Record>().ok()??.country()
    }
}

/// Decodes every record as requests will, and says whether any has a country. A file is known by its content:
/// vendors name the types of their files as they like.
fn names_countries(reader: &Reader<Vec<u8>>) -> Result<bool, MaxMindDbError> {
    let nodes = usize::try_from(reader.metadata().node_count).unwrap_or(usize::MAX);
    let all = WithinOptions::default().include_networks_without_data();
    let mut networks = reader.networks(all)?;
    let (mut seen, mut any) = (HashSet::new(), false);
    // More than a tree of so many nodes has, aliases included.
    for network in networks.by_ref().take(nodes.saturating_mul(3)) {
        let network = network?;
        // Records are shared by many networks.
        if network.offset().is_some_and(|offset| seen.insert(offset)) {
            let record = network.decode::<Record>()?;
            any |= record.and_then(Record::country).is_some();
        }
    }
    match networks.next() {
        None => Ok(any),
        Some(_) => Err(MaxMindDbError::invalid_database(
            "its search tree runs in circles",
        )),
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Database")
            .field(&self.0.metadata().database_type)
            .finish()
    }
}

#[cfg(test)]
#[path = "database_tests.rs"]
mod tests;
