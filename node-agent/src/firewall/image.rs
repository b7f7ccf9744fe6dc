//! What the kernel holds of a table, so that it can be compared without starting `nft`.
//!
//! The image is a digest of everything that the kernel tells of the table: its flags, chains, rules
//! with their numbers, sets and elements. Whoever changes the table changes it; traffic does not.

use sha2::{Digest, Sha256};

use crate::netfilter::{Connection, Ended, Error, NFTA_TABLE, Question};
use crate::netlink::{attributes, find, text};

// <linux/netfilter/nf_tables.h>
const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;

/// How often a reading that somebody else's change interrupted is begun again.
const ATTEMPTS: usize = 8;

/// A digest of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Image(pub(super) [u8; 32]);

impl Image {
    /// None where there is no such table.
    pub(super) fn take(table: &str) -> Result<Option<Self>, Error> {
        let mut connection = Connection::open()?;
        for _ in 0..ATTEMPTS {
            match Reading::of(&mut connection, table) {
                Ok(Some(reading)) => return Ok(Some(reading.digest())),
                Ok(None) => {}
                Err(error) if error.is_absent() => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Err(Error::Restless)
    }
}

/// The kernel's messages about a table.
#[derive(Default)]
struct Reading {
    parts: Vec<Vec<u8>>,
}

impl Reading {
    /// None where something changed meanwhile.
    fn of(connection: &mut Connection, table: &str) -> Result<Option<Self>, Error> {
        let mut reading = Self::default();
        let mut sets = Vec::new();
        let wholes = [
            Question::table(table),
            Question::chains(table),
            Question::rules(table),
            Question::sets(table),
        ];
        for (question, names) in wholes.iter().zip([false, false, false, true]) {
            let ended = connection.ask(question, |_, message| {
                // Chains are told whatever table they are in.
                if find(message, NFTA_TABLE)?.map(text) == Some(table) {
                    reading.parts.push(message.to_vec());
                    let name = find(message, NFTA_SET_NAME)?.filter(|_| names);
                    sets.extend(name.map(|it| text(it).to_owned()));
                }
                Ok(())
            })?;
            if ended == Ended::Interrupted {
                return Ok(None);
            }
        }
        for set in sets {
            let mut elements = Vec::new();
            let ended = connection.ask(&Question::elements(table, &set), |_, message| {
                let list = find(message, NFTA_SET_ELEM_LIST_ELEMENTS)?;
                for element in attributes(list.unwrap_or_default()) {
                    elements.push(element?.1.to_vec());
                }
                Ok(())
            })?;
            if ended == Ended::Interrupted {
                return Ok(None);
            }
            // A hash table is told in an order that is its own affair.
            elements.sort_unstable();
            reading.parts.push(set.into_bytes());
            reading.parts.append(&mut elements);
        }
        Ok(Some(reading))
    }

    fn digest(&self) -> Image {
        let mut digest = Sha256::new();
        for part in &self.parts {
            digest.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            digest.update(part);
        }
        Image(digest.finalize().into())
    }
}
