//! The last accepted state, on disk: what the agent needs to go on after a restart or a reboot
//! without asking anyone.
//!
//! What must hold: the interface is never ahead of the ledger, and nobody is told of anything that is
//! not on disk. An interface does not outlive its host, so what another process of this host would read is
//! enough to touch it: [`Ledger::append`] has written the commit when it returns. What the plane is told has to
//! outlive the host: [`Unsynced::sync`] comes before the answer. So a crash leaves an interface that is behind the
//! ledger, never ahead of it, and the reconcile at the next start closes the gap. Quarantined addresses and
//! the final counters of removed peers are part of the state: a restart forgets neither.
//!
//! The interface's private key lies in a file of its own beside the journal, so that it outlives a
//! damaged one and clients keep their configuration; the next one, where a rotation is planned,
//! in another (`keys`).

mod directory;
mod entry;
mod journal;
mod keys;
mod record;
mod state;

use std::fmt;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::warn;

pub use self::directory::files;
use self::journal::{Frame, Head, Journal, JournalError};
pub use self::keys::private_key;
pub use self::state::{
    Final, Identity, Interface, PeerRecord, Peers, PlannedKey, State, Tunnel, Write,
};

const FILE: &str = "ledger.journal";

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
}

/// The open ledger. One process at a time.
pub struct Ledger {
    journal: Mutex<Journal>,
    path: PathBuf,
    _lock: Lock,
}

/// A state directory that is this process's alone, also where it holds no ledger yet. The directory is
/// locked and not the file, which is replaced now and then.
#[derive(Debug)]
pub struct Lock {
    directory: PathBuf,
    _file: File,
}

/// A commit that is written and may not outlive the host yet.
#[derive(Debug)]
#[must_use = "nobody may be told of it before it is on disk"]
pub struct Unsynced {
    file: Arc<File>,
    path: PathBuf,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Unsynced {
    /// Blocks until the commit is on disk, and all before it.
    pub fn sync(self) -> Result<(), LedgerError> {
        let path = self.path;
        let synced = self.file.sync_data();
        synced.map_err(|source| LedgerError::File { path, source })
    }
}

impl Lock {
    /// Makes the directory where there is none.
    pub fn take(directory: &Path) -> Result<Self, LedgerError> {
        directory::prepare(directory)?;
        let locked = File::open(directory).map_err(TryLockError::Error);
        let locked = locked.and_then(|file| file.try_lock().map(|()| file));
        let file = locked.map_err(|error| match error {
            TryLockError::WouldBlock => LedgerError::InUse(directory.to_owned()),
            TryLockError::Error(source) => LedgerError::File {
                path: directory.to_owned(),
                source,
            },
        })?;
        Ok(Self {
            directory: directory.to_owned(),
            _file: file,
        })
    }

    /// Opens the ledger in the directory and reads everything; makes it where there is none.
    pub fn open(self) -> Result<(Ledger, State), LedgerError> {
        let path = self.directory.join(FILE);
        let opened = match read(&path) {
            Err(JournalError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                draft(&self.directory, &path, State::default())
                    .and_then(|draft| Ok((draft.adopt(&self.directory, &path)?, State::default())))
            }
            other => other,
        };
        let (journal, state) = opened.map_err(|error| failed(&path, error))?;
        let ledger = Ledger {
            journal: Mutex::new(journal),
            path,
            _lock: self,
        };
        Ok((ledger, state))
    }
}

impl Ledger {
    /// Opens the ledger in `directory` and reads everything; makes both where there is none.
    pub fn open(directory: &Path) -> Result<(Self, State), LedgerError> {
        Lock::take(directory)?.open()
    }

    /// Carries `writes` out, all or none, durable on return. Blocks on the disk.
    pub fn commit(&self, writes: &[Write]) -> Result<(), LedgerError> {
        self.append(writes)?.sync()
    }

    /// Carries `writes` out, all or none: whoever opens the ledger from now on finds them. That they outlive
    /// the host is another step. Does not wait for the disk.
    pub fn append(&self, writes: &[Write]) -> Result<Unsynced, LedgerError> {
        let append = || {
            let mut frame = Frame::with_room(writes.iter().map(entry::room).sum());
            for write in writes {
                entry::encode(write, frame.content())?;
            }
            self.journal().append(frame)
        };
        let file = append().map_err(|error| failed(&self.path, error))?;
        Ok(Unsynced {
            file,
            path: self.path.clone(),
        })
    }

    /// Whether [`Self::tidy`] has something to do.
    #[must_use]
    pub fn is_long(&self) -> bool {
        self.journal().is_long()
    }

    /// Leaves what is past out of the file, where that is most of it. Blocks on the disk. Where a disk has
    /// no room for it, the file stays as it is.
    pub fn tidy(&self) -> Result<(), LedgerError> {
        let mut journal = self.journal();
        if !journal.is_long() {
            return Ok(());
        }
        let directory = self.directory();
        let drafted = read(&self.path).and_then(|(_, state)| draft(directory, &self.path, state));
        match drafted {
            Ok(draft) => {
                let adopted = draft.adopt(directory, &self.path);
                *journal = adopted.map_err(|error| failed(&self.path, error.into()))?;
            }
            Err(error) => warn!(event = "ledger_not_tidied", %error),
        }
        Ok(())
    }

    fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(path: &Path) -> Result<(Journal, State), JournalError> {
    let begin = |head: Head| {
        let mut state = State::default();
        // A hint: what a damaged head asks for is not believed.
        let peers = usize::try_from(head.peers).unwrap_or_default();
        state.peers.reserve(peers.min(1 << 20));
        state
    };
    Journal::open(path, begin, |state, content| entry::decode(content, state))
}

fn draft(directory: &Path, path: &Path, state: State) -> Result<Journal, JournalError> {
    let peers = state.peers.len();
    let mut writes = state.into_writes();
    Journal::draft(directory, path, peers, |bytes| match writes.next() {
        Some(write) => entry::encode(&write, bytes).map(|()| true),
        None => Ok(false),
    })
}

fn failed(path: &Path, error: JournalError) -> LedgerError {
    let path = path.to_owned();
    match error {
        JournalError::Io(source) => LedgerError::File { path, source },
        error => LedgerError::Damaged {
            path,
            detail: error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests;
