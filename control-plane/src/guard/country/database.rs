//! An MMDB file in memory.

use std::fmt;
use std::io;
use std::net::IpAddr;

use maxminddb::{MaxMindDbError, Reader};

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
        reader.verify()?;
        // By its content, because vendors name the types of their files as they like.
        for found in reader.networks(maxminddb::WithinOptions::default())? {
            if found?
                .decode::<Record>()?
                .and_then(Record::country)
                .is_some()
            {
                return Ok(Self(reader));
            }
        }
        Err(CountryError::NoCountries(
            reader.metadata().database_type.clone(),
        ))
    }

    /// Where an address is, as far as the file knows.
    pub(super) fn country_of(&self, address: IpAddr) -> Option<CountryCode> {
        // A file of IPv4 alone answers an IPv6 address with an error.
        let found = self.0.lookup(address.to_canonical()).ok()?;
        found.decode::<Record>().ok()??.country()
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
