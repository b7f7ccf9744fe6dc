//! The kernel's table: `nft` makes it, netlink changes and reads it.
//!
//! One socket is kept open and used by one call at a time. After an error it is opened anew, so that
//! an answer that came late is never taken for another question's.

mod answer;
mod message;
mod structure;

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use shared::ids::PeerId;

use self::answer::Reading;
use self::message::Batch;
use super::{Change, Consumed, Found, Kind, Table, TableError};
use crate::firewall::run_nft;
use crate::netfilter::{self, Connection, Ended, Question};
use crate::wireguard::InterfaceName;

/// How often a dump that somebody else's change interrupted is begun again.
const DUMP_ATTEMPTS: usize = 8;

/// The table of limits for one interface.
#[derive(Debug)]
pub struct NftTable {
    interface: InterfaceName,
    /// `prime_vpn_<interface>_limits`, family inet.
    name: Arc<str>,
    connection: Arc<Mutex<Option<Connection>>>,
}

impl NftTable {
    #[must_use]
    pub fn new(interface: InterfaceName) -> Self {
        Self {
            name: structure::table_name(&interface).into(),
            interface,
            connection: Arc::default(),
        }
    }

    /// Does `work` with the socket on a blocking thread.
    async fn with_socket<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection, &str) -> Result<T, TableError> + Send + 'static,
    ) -> Result<T, TableError> {
        let connection = Arc::clone(&self.connection);
        let name = Arc::clone(&self.name);
        tokio::task::spawn_blocking(move || {
            let mut slot = connection.lock().unwrap_or_else(PoisonError::into_inner);
            let mut open = match slot.take() {
                Some(open) => open,
                None => Connection::open().map_err(netfilter::Error::from)?,
            };
            let done = work(&mut open, &name);
            if done.is_ok() {
                *slot = Some(open);
            }
            done
        })
        .await?
    }
}

#[async_trait]
impl Table for NftTable {
    async fn read(&self) -> Result<Option<Found>, TableError> {
        self.with_socket(read).await
    }

    async fn make(&self) -> Result<(), TableError> {
        let script = structure::script(&self.interface);
        Ok(run_nft(&["-f", "-"], script.as_bytes()).await?)
    }

    async fn change(&self, peers: &[Vec<Change>]) -> Result<(), TableError> {
        let batches = Batch::pack(&self.name, peers);
        self.with_socket(move |connection, _| {
            for batch in batches {
                connection.change(|sequences| batch.encode(sequences))?;
            }
            Ok(())
        })
        .await
    }

    async fn quotas(&self) -> Result<Vec<Consumed>, TableError> {
        self.with_socket(|connection, table| {
            let reading = dump(connection, &message::quotas(table))?;
            Ok(reading.content.quotas().collect())
        })
        .await
    }

    async fn quotas_of(&self, peers: &[PeerId]) -> Result<Vec<Consumed>, TableError> {
        let peers = peers.to_vec();
        self.with_socket(move |connection, table| {
            let mut reading = Reading::default();
            for peer in peers {
                let question = message::one_object(table, Kind::Quota, peer);
                match connection.ask(&question, |kind, body| reading.read(kind, body)) {
                    Err(error) if error.is_absent() => {}
                    other => drop(other?),
                }
            }
            Ok(reading.content.quotas().collect())
        })
        .await
    }

    async fn remove(&self) -> Result<(), TableError> {
        let script = structure::removal(&self.interface);
        Ok(run_nft(&["-f", "-"], script.as_bytes()).await?)
    }
}

fn read(connection: &mut Connection, table: &str) -> Result<Option<Found>, TableError> {
    match connection.ask(&Question::table(table), |_, _| Ok(())) {
        Err(error) if error.is_absent() => return Ok(None),
        other => drop(other?),
    }
    let rules = dump(connection, &Question::rules(table))?.rules;
    let mut found = Found {
        intact: structure::has_every_rule(&rules),
        content: dump(connection, &message::objects(table))?.content,
    };
    for (kind, family) in structure::maps() {
        let map = structure::map_name(kind, family);
        match dump(connection, &Question::elements(table, &map)) {
            Ok(reading) => {
                for (address, owner) in reading.elements {
                    found.content.put_element(kind, address, owner);
                }
            }
            Err(error) if error.is_absent() => found.intact = false,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Some(found))
}

fn dump(connection: &mut Connection, question: &Question) -> Result<Reading, netfilter::Error> {
    for _ in 0..DUMP_ATTEMPTS {
        let mut reading = Reading::default();
        match connection.ask(question, |kind, body| reading.read(kind, body))? {
            Ended::Complete => return Ok(reading),
            Ended::Interrupted => {}
        }
    }
    Err(netfilter::Error::Restless)
}

#[cfg(test)]
#[path = "../tests/nft.rs"]
mod tests;
