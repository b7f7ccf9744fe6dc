//! The last accepted state, on disk: what the agent needs to go on after a restart or a reboot
//! without asking anyone.
//!
//! What must hold: one [`Ledger::commit`] is one durable transaction, and it returns before the
//! interface is touched. So a crash leaves an interface that is behind the ledger, never ahead of
//! it, and the reconcile at the next start closes the gap. Quarantined addresses and the final
//! counters of removed peers are part of the state: a restart forgets neither.
//!
//! The interface's private key lies in a file of its own beside the database, so that it outlives a
//! damaged database and clients keep their configuration; the next one, where a rotation is planned,
//! in another (`keys`).

mod keys;
mod record;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageError,
    TableDefinition,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shared::ids::{ConnectionId, Generation, PeerId, Revision, ServerId};
use shared::protocol::{Addresses, Limits, NodeToken, PeerCounters, Settings};
use shared::wireguard::{PresharedKey, PublicKey};
use tracing::error;
use uuid::Uuid;
use zeroize::Zeroizing;

pub use self::keys::private_key;

const FILE: &str = "ledger.redb";
const CACHE_BYTES: usize = 4 * 1024 * 1024;

const PEERS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("peers");
const QUARANTINE: TableDefinition<'_, u32, i64> = TableDefinition::new("quarantine");
/// What a peer has used of its allowance: by itself, since it is written often.
const CONSUMED: TableDefinition<'_, u64, u64> = TableDefinition::new("consumed");
const FINALS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("finals");
const ENDED: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("ended");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// Who this node is to the plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub server_id: ServerId,
    pub token: NodeToken,
    /// When the token was received; with its end this gives the time to renew it.
    pub received_at: DateTime<Utc>,
}

/// A peer that this node holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRecord {
    pub connection: ConnectionId,
    pub public_key: PublicKey,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preshared_key: Option<PresharedKey>,
    pub addresses: Addresses,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<DateTime<Utc>>,
    pub generation: Generation,
    #[serde(default, skip_serializing_if = "Limits::are_none")]
    pub limits: Limits,
}

/// A peer that is gone: kept for a while, so that a repeated removal is answered with the same
/// counters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Final {
    pub generation: Generation,
    /// What the interface knew it by. A crash may have left it there, counting on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<Tunnel>,
    /// None when they were never read.
    pub counters: Option<PeerCounters>,
    /// What it had used of its allowance.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub consumed: u64,
    pub removed_at: DateTime<Utc>,
}

/// Two peers, one after the other, can have had the same key; none has had the same addresses too
/// without a rest between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tunnel {
    pub public_key: PublicKey,
    pub addresses: Addresses,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// The interface as this agent last saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    pub boot_id: Uuid,
    pub index: u32,
    pub epoch: Uuid,
}

/// The key that the interface will have next; its private half lies in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedKey {
    /// The time that the plane named: which plan this is.
    pub asked: DateTime<Utc>,
    /// When the key takes over.
    pub at: DateTime<Utc>,
    pub public_key: PublicKey,
}

/// Everything that the ledger holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    pub identity: Option<Identity>,
    pub applied: Revision,
    pub interface: Option<Interface>,
    /// Asked on this host.
    pub draining: bool,
    /// What the plane asked last.
    pub settings: Settings,
    pub planned_key: Option<PlannedKey>,
    /// The plan that was carried out last, by the time that the plane named.
    pub rotated: Option<DateTime<Utc>>,
    pub peers: HashMap<PeerId, PeerRecord>,
    pub quarantine: HashMap<Ipv4Addr, DateTime<Utc>>,
    pub consumed: HashMap<PeerId, u64>,
    pub finals: HashMap<PeerId, Final>,
    /// What generations had counted when they ended, or when they were about to.
    pub ended: BTreeMap<(PeerId, Generation), PeerCounters>,
}

/// One change of the ledger. Those of one transaction are carried out in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// The peer's address leaves quarantine, if it was in it.
    Peer(PeerId, PeerRecord),
    NoPeer(PeerId),
    /// What peers have used of their allowances.
    Consumed(Vec<(PeerId, u64)>),
    Quarantine(Ipv4Addr, DateTime<Utc>),
    NoQuarantine(Ipv4Addr),
    Final(PeerId, Final),
    NoFinal(PeerId),
    Ended(PeerId, PeerCounters),
    NoEnded(PeerId, Generation),
    Applied(Revision),
    Interface(Interface),
    Draining(bool),
    Settings(Settings),
    PlannedKey(PlannedKey),
    NoPlannedKey,
    Rotated(DateTime<Utc>),
    Identity(Identity),
}

/// Why the ledger could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("{0} is in use: another node-agent runs on this state directory")]
    InUse(PathBuf),
    #[error(
        "{path} is damaged or not a node-agent ledger ({detail}). Move it away and enrol again; \
         the interface and its peers stay as they are until the plane has sent its state"
    )]
    Damaged { path: PathBuf, detail: String },
    #[error(
        "{path} does not hold a WireGuard private key. Restore it, or move it away to get a new one"
    )]
    BadKey { path: PathBuf },
    #[error("the ledger could not be written: {0}")]
    Storage(#[source] Box<redb::Error>),
}

/// The open database. One process at a time.
pub struct Ledger {
    /// There until the end.
    database: Option<Database>,
    path: PathBuf,
}

impl Drop for Ledger {
    fn drop(&mut self) {
        let database = self.database.take();
        if catch_unwind(AssertUnwindSafe(|| drop(database))).is_err() {
            error!(event = "ledger_not_closed", path = %self.path.display());
        }
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Ledger {
    /// Opens the ledger in `directory` and reads everything; makes both where there is none.
    pub fn open(directory: &Path) -> Result<(Self, State), LedgerError> {
        prepare_directory(directory)?;
        let path = directory.join(FILE);
        guarded(&path, || Self::open_file(directory, path.clone()))
    }

    fn open_file(directory: &Path, path: PathBuf) -> Result<(Self, State), LedgerError> {
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(&path)
            .map_err(|error| not_opened(&path, error))?;
        restrict(directory, &path).map_err(|source| LedgerError::File {
            path: path.clone(),
            source,
        })?;
        let ledger = Self {
            database: Some(database),
            path,
        };
        let state = match ledger.read() {
            Err(ReadError::Database(redb::Error::TableDoesNotExist(_))) => ledger
                .make_tables()
                .map_err(ReadError::from)
                .and_then(|()| ledger.read()),
            other => other,
        };
        let state = state.map_err(|error| damaged(&ledger.path, &error))?;
        Ok((ledger, state))
    }

    /// Carries `writes` out in one transaction, durable on return. Blocks on the disk.
    pub fn commit(&self, writes: &[Write]) -> Result<(), LedgerError> {
        guarded(&self.path, || {
            self.write(writes)
                .map_err(|error| LedgerError::Storage(Box::new(error)))
        })
    }

    fn database(&self) -> Result<&Database, redb::Error> {
        self.database.as_ref().ok_or(redb::Error::DatabaseClosed)
    }

    /// Those of a new ledger, and those that a later version has added.
    fn make_tables(&self) -> Result<(), redb::Error> {
        let transaction = self.database()?.begin_write()?;
        drop(transaction.open_table(PEERS)?);
        drop(transaction.open_table(QUARANTINE)?);
        drop(transaction.open_table(CONSUMED)?);
        drop(transaction.open_table(FINALS)?);
        drop(transaction.open_table(ENDED)?);
        drop(transaction.open_table(META)?);
        transaction.commit()?;
        Ok(())
    }

    fn read(&self) -> Result<State, ReadError> {
        let transaction = self.database()?.begin_read().map_err(redb::Error::from)?;
        let mut state = State::default();
        let peers = open(&transaction, PEERS)?;
        state
            .peers
            .reserve(usize::try_from(peers.len()?).unwrap_or(0));
        for entry in peers.iter()? {
            let (peer, record) = entry?;
            let record = record::decode(record.value())?;
            state.peers.insert(PeerId(peer.value()), record);
        }
        for entry in open(&transaction, QUARANTINE)?.iter()? {
            let (address, until) = entry?;
            let until = DateTime::from_timestamp_millis(until.value()).ok_or(ReadError::Time)?;
            state
                .quarantine
                .insert(Ipv4Addr::from(address.value()), until);
        }
        for entry in open(&transaction, CONSUMED)?.iter()? {
            let (peer, consumed) = entry?;
            state
                .consumed
                .insert(PeerId(peer.value()), consumed.value());
        }
        for entry in open(&transaction, FINALS)?.iter()? {
            let (peer, last) = entry?;
            state
                .finals
                .insert(PeerId(peer.value()), serde_json::from_slice(last.value())?);
        }
        for entry in open(&transaction, ENDED)?.iter()? {
            let (key, counters) = entry?;
            let (peer, generation) = key.value();
            state.ended.insert(
                (PeerId(peer), Generation(generation)),
                serde_json::from_slice(counters.value())?,
            );
        }
        let meta = open(&transaction, META)?;
        state.identity = value(&meta, "identity")?;
        state.applied = value(&meta, "applied")?.unwrap_or_default();
        state.interface = value(&meta, "interface")?;
        state.draining = value(&meta, "draining")?.unwrap_or_default();
        state.settings = value(&meta, "settings")?.unwrap_or_default();
        state.planned_key = value(&meta, "planned_key")?;
        state.rotated = value(&meta, "rotated")?;
        Ok(state)
    }

    fn write(&self, writes: &[Write]) -> Result<(), redb::Error> {
        let transaction = self.database()?.begin_write()?;
        {
            let mut peers = Lazy::new(&transaction, PEERS);
            let mut quarantine = Lazy::new(&transaction, QUARANTINE);
            let mut used = Lazy::new(&transaction, CONSUMED);
            let mut finals = Lazy::new(&transaction, FINALS);
            let mut ended = Lazy::new(&transaction, ENDED);
            let mut meta = Lazy::new(&transaction, META);
            let mut bytes = Zeroizing::new(Vec::with_capacity(record::MAX_BYTES));
            for write in writes {
                match write {
                    Write::Peer(peer, record) => {
                        quarantine.open()?.remove(u32::from(record.addresses.v4))?;
                        record::encode(record, &mut bytes);
                        peers.open()?.insert(peer.0, bytes.as_slice())?;
                    }
                    Write::NoPeer(peer) => {
                        peers.open()?.remove(peer.0)?;
                        used.open()?.remove(peer.0)?;
                    }
                    Write::Consumed(consumed) => {
                        for (peer, bytes) in consumed {
                            used.open()?.insert(peer.0, *bytes)?;
                        }
                    }
                    Write::Quarantine(address, until) => {
                        quarantine
                            .open()?
                            .insert(u32::from(*address), until.timestamp_millis())?;
                    }
                    Write::NoQuarantine(address) => {
                        quarantine.open()?.remove(u32::from(*address))?;
                    }
                    Write::Final(peer, last) => {
                        finals.open()?.insert(peer.0, json(last)?.as_slice())?;
                    }
                    Write::NoFinal(peer) => drop(finals.open()?.remove(peer.0)?),
                    Write::Ended(peer, counters) => {
                        let key = (peer.0, counters.generation.0);
                        ended.open()?.insert(key, json(counters)?.as_slice())?;
                    }
                    Write::NoEnded(peer, generation) => {
                        ended.open()?.remove((peer.0, generation.0))?;
                    }
                    Write::Applied(revision) => {
                        meta.open()?.insert("applied", json(revision)?.as_slice())?;
                    }
                    Write::Interface(interface) => {
                        meta.open()?
                            .insert("interface", json(interface)?.as_slice())?;
                    }
                    Write::Draining(draining) => {
                        meta.open()?
                            .insert("draining", json(draining)?.as_slice())?;
                    }
                    Write::Settings(settings) => {
                        meta.open()?
                            .insert("settings", json(settings)?.as_slice())?;
                    }
                    Write::PlannedKey(planned) => {
                        meta.open()?
                            .insert("planned_key", json(planned)?.as_slice())?;
                    }
                    Write::NoPlannedKey => drop(meta.open()?.remove("planned_key")?),
                    Write::Rotated(asked) => {
                        meta.open()?.insert("rotated", json(asked)?.as_slice())?;
                    }
                    Write::Identity(identity) => {
                        meta.open()?
                            .insert("identity", json(identity)?.as_slice())?;
                    }
                }
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

/// A table that is opened when it is first needed: most commits change one or two.
struct Lazy<'a, K: redb::Key + 'static, V: redb::Value + 'static> {
    transaction: &'a redb::WriteTransaction,
    definition: TableDefinition<'a, K, V>,
    table: Option<redb::Table<'a, K, V>>,
}

impl<'a, K: redb::Key + 'static, V: redb::Value + 'static> Lazy<'a, K, V> {
    fn new(transaction: &'a redb::WriteTransaction, definition: TableDefinition<'a, K, V>) -> Self {
        Self {
            transaction,
            definition,
            table: None,
        }
    }

    fn open(&mut self) -> Result<&mut redb::Table<'a, K, V>, redb::Error> {
        let table = match self.table.take() {
            Some(table) => table,
            None => self.transaction.open_table(self.definition)?,
        };
        Ok(self.table.insert(table))
    }
}

/// A damaged file can trip assertions inside the database before its checksums do.
fn guarded<T>(
    path: &Path,
    work: impl FnOnce() -> Result<T, LedgerError>,
) -> Result<T, LedgerError> {
    let done = catch_unwind(AssertUnwindSafe(work));
    done.unwrap_or_else(|_| Err(damaged(path, &"inconsistent pages")))
}

/// Every file that the agent keeps in its state directory, the database first.
#[must_use]
pub fn files(directory: &Path) -> [PathBuf; 3] {
    [FILE, keys::KEY_FILE, keys::NEXT_KEY_FILE].map(|name| directory.join(name))
}

fn prepare_directory(directory: &Path) -> Result<(), LedgerError> {
    let file = |source| LedgerError::File {
        path: directory.to_owned(),
        source,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(file)?;
    let mode = fs::metadata(directory).map_err(file)?.permissions().mode();
    if mode & 0o777 == 0o700 {
        return Ok(());
    }
    fs::set_permissions(directory, Permissions::from_mode(0o700)).map_err(file)
}

/// Readable by its owner alone. What root makes, by enrolling, belongs to the directory's owner: the
/// service runs as that user.
fn restrict(directory: &Path, path: &Path) -> io::Result<()> {
    let (owner, file) = (fs::metadata(directory)?, fs::metadata(path)?);
    if (owner.uid(), owner.gid()) != (file.uid(), file.gid()) {
        chown(path, Some(owner.uid()), Some(owner.gid()))?;
    }
    if file.mode() & 0o777 != 0o600 {
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
    }
    Ok(())
}

fn not_opened(path: &Path, error: DatabaseError) -> LedgerError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => LedgerError::InUse(path.to_owned()),
        DatabaseError::Storage(StorageError::Io(source))
            if source.kind() != io::ErrorKind::InvalidData
                && source.kind() != io::ErrorKind::UnexpectedEof =>
        {
            LedgerError::File {
                path: path.to_owned(),
                source,
            }
        }
        error => damaged(path, &error),
    }
}

fn damaged(path: &Path, detail: &impl fmt::Display) -> LedgerError {
    LedgerError::Damaged {
        path: path.to_owned(),
        detail: detail.to_string(),
    }
}

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Database(#[from] redb::Error),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("a record cannot be read: {0}")]
    Record(#[from] serde_json::Error),
    #[error(transparent)]
    Peer(#[from] record::RecordError),
    #[error("a time is out of range")]
    Time,
}

fn open<K: redb::Key + 'static, V: redb::Value + 'static>(
    transaction: &redb::ReadTransaction,
    table: TableDefinition<'_, K, V>,
) -> Result<redb::ReadOnlyTable<K, V>, redb::Error> {
    Ok(transaction.open_table(table)?)
}

fn value<T: DeserializeOwned>(
    meta: &redb::ReadOnlyTable<&str, &[u8]>,
    name: &str,
) -> Result<Option<T>, ReadError> {
    meta.get(name)?
        .map(|bytes| serde_json::from_slice(bytes.value()).map_err(ReadError::from))
        .transpose()
}

fn json<T: Serialize>(value: &T) -> Result<Zeroizing<Vec<u8>>, StorageError> {
    serde_json::to_vec(value)
        .map(Zeroizing::new)
        .map_err(|error| StorageError::Io(error.into()))
}

#[cfg(test)]
mod tests;
