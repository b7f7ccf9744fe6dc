//! The ledger's file: a snapshot, and behind it a frame for every commit since.
//!
//! ```text
//! head:  magic (8) | where the snapshot ends (8) | peers in it (8) | digest of the three (8)
//! frame: bytes of the content (4) | digest of the content (8) | content
//! ```
//!
//! What must hold: a frame is taken in whole or not at all. A file comes into its place whole, snapshot and
//! all, and a commit is on disk before the next is written, as far as anybody relies on it; so only what
//! lies behind the last whole frame can be torn, by a crash in a commit that nobody was told of. Anything else
//! that is not whole is damage, and is said.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rapidhash::v3::rapidhash_v3;
use zeroize::Zeroizing;

use super::directory::restrict;
use super::entry::EntryError;

const MAGIC: [u8; 8] = *b"prime-l1";
const HEAD_BYTES: usize = 32;
const FRAME_HEAD_BYTES: usize = 12;

/// What a file is called until it is whole.
const DRAFT: &str = "draft";

/// What is read at once, if no frame is longer.
const READ_BYTES: usize = 64 * 1024;
/// A snapshot's frame ends with the entry that reaches this.
const SNAPSHOT_FRAME_BYTES: usize = 32 * 1024;
/// How much longer than twice its snapshot a file becomes.
const SLACK_BYTES: u64 = 1024 * 1024;

/// Why a file is no journal, or cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum JournalError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{0}")]
    Damaged(&'static str),
    #[error(transparent)]
    Entry(#[from] EntryError),
}

/// An open file.
#[derive(Debug)]
pub(super) struct Journal {
    file: Arc<File>,
    snapshot_end: u64,
    /// Where the next frame goes.
    end: u64,
}

/// Content on its way into a file: room for its head, and whatever is written behind that.
#[derive(Debug)]
pub(super) struct Frame(Zeroizing<Vec<u8>>);

impl Frame {
    /// With room for so many bytes of content.
    pub(super) fn with_room(bytes: usize) -> Self {
        let mut frame = Zeroizing::new(Vec::with_capacity(FRAME_HEAD_BYTES + bytes));
        frame.resize(FRAME_HEAD_BYTES, 0);
        Self(frame)
    }

    pub(super) fn content(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    fn is_empty(&self) -> bool {
        self.0.len() == FRAME_HEAD_BYTES
    }

    fn sealed(mut self) -> Result<Zeroizing<Vec<u8>>, JournalError> {
        let content = self.0.get(FRAME_HEAD_BYTES..).unwrap_or_default();
        let length = u32::try_from(content.len()).map_err(|_| EntryError::Long)?;
        let digest = rapidhash_v3(content);
        let head = length.to_le_bytes().into_iter().chain(digest.to_le_bytes());
        for (place, byte) in self.0.iter_mut().zip(head) {
            *place = byte;
        }
        Ok(self.0)
    }
}

/// What a file begins with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    snapshot_end: u64,
    pub(super) peers: u64,
}

impl Head {
    fn encode(self) -> [[u8; 8]; HEAD_BYTES / 8] {
        let [end, peers] = [self.snapshot_end, self.peers].map(u64::to_le_bytes);
        let digest = rapidhash_v3([MAGIC, end, peers].as_flattened());
        [MAGIC, end, peers, digest.to_le_bytes()]
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<8>()?;
        let (snapshot_end, rest) = rest.split_first_chunk()?;
        let (peers, _) = rest.split_first_chunk()?;
        let head = Self {
            snapshot_end: u64::from_le_bytes(*snapshot_end),
            peers: u64::from_le_bytes(*peers),
        };
        (*magic == MAGIC && bytes == head.encode().as_flattened()).then_some(head)
    }
}

impl Journal {
    /// Opens the file and hands what it says to `begin` and then, frame by frame, to `take`. What a crash
    /// tore is cut off.
    pub(super) fn open<T>(
        path: &Path,
        begin: impl FnOnce(Head) -> T,
        take: impl FnMut(&mut T, &[u8]) -> Result<(), EntryError>,
    ) -> Result<(Self, T), JournalError> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let size = file.metadata()?.len();
        let mut head = [0; HEAD_BYTES];
        let read = read_at(&file, &mut head, 0)?;
        let head = head.get(..read).and_then(Head::decode);
        let head = head.ok_or(JournalError::Damaged("it does not begin as one"))?;
        let mut told = begin(head);
        let end = frames(&file, size, &mut told, take)?;
        if end < head.snapshot_end {
            return Err(JournalError::Damaged("its snapshot is not whole"));
        }
        if end < size {
            if goes_on(&file, end, size)? {
                return Err(JournalError::Damaged("a commit in its middle is not whole"));
            }
            file.set_len(end)?;
        }
        let journal = Self {
            file: Arc::new(file),
            snapshot_end: head.snapshot_end,
            end,
        };
        Ok((journal, told))
    }

    /// Makes a file beside `path` that holds these entries and nothing else. `write` writes one entry, and
    /// says when there is none any more.
    pub(super) fn draft(
        directory: &Path,
        path: &Path,
        peers: usize,
        mut write: impl FnMut(&mut Vec<u8>) -> Result<bool, EntryError>,
    ) -> Result<Self, JournalError> {
        let draft = path.with_extension(DRAFT);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        let file = options.mode(0o600).open(&draft)?;
        let mut end = u64::try_from(HEAD_BYTES).unwrap_or_default();
        let mut more = true;
        while more {
            let mut frame = Frame::with_room(SNAPSHOT_FRAME_BYTES * 2);
            while more && frame.0.len() < SNAPSHOT_FRAME_BYTES {
                more = write(frame.content())?;
            }
            if !frame.is_empty() {
                end = write_at(&file, end, frame)?;
            }
        }
        let head = Head {
            snapshot_end: end,
            peers: u64::try_from(peers).unwrap_or_default(),
        };
        file.write_all_at(head.encode().as_flattened(), 0)?;
        restrict(directory, &draft)?;
        file.sync_all()?;
        Ok(Self {
            file: Arc::new(file),
            snapshot_end: end,
            end,
        })
    }

    /// Puts a draft into the place of the file that is there, if one is. After an error nobody knows which
    /// of the two a crash of the host would leave.
    pub(super) fn adopt(self, directory: &Path, path: &Path) -> io::Result<Self> {
        fs::rename(path.with_extension(DRAFT), path)?;
        File::open(directory)?.sync_all()?;
        Ok(self)
    }

    /// Writes a frame, which every reader of the file sees from now on. It outlives the host with the
    /// returned file's next `sync_data`.
    pub(super) fn append(&mut self, frame: Frame) -> Result<Arc<File>, JournalError> {
        if frame.is_empty() {
            return Ok(Arc::clone(&self.file));
        }
        match write_at(&self.file, self.end, frame) {
            Ok(end) => self.end = end,
            Err(error) => {
                // Or the next frame lies over it, or it is cut off at the next start.
                let _ = self.file.set_len(self.end);
                return Err(error);
            }
        }
        Ok(Arc::clone(&self.file))
    }

    /// Most of the file is commits that a snapshot would not have.
    pub(super) fn is_long(&self) -> bool {
        self.end > self.snapshot_end.saturating_mul(2) + SLACK_BYTES
    }
}

/// Writes a frame at its place; where it ends.
fn write_at(file: &File, at: u64, frame: Frame) -> Result<u64, JournalError> {
    let bytes = frame.sealed()?;
    file.write_all_at(&bytes, at)?;
    Ok(at + u64::try_from(bytes.len()).unwrap_or_default())
}

/// Fills the buffer as far as the file goes.
fn read_at(file: &File, mut buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let wanted = buffer.len();
    let mut at = at;
    while !buffer.is_empty() {
        match file.read_at(buffer, at) {
            Ok(0) => break,
            Ok(read) => {
                at += u64::try_from(read).unwrap_or_default();
                buffer = buffer.get_mut(read..).unwrap_or_default();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(wanted - buffer.len())
}

/// Hands each whole frame's content on; where the last one ends. A buffer of one size does for frames of
/// any number, and grows for one that is longer.
fn frames<T>(
    file: &File,
    size: u64,
    told: &mut T,
    mut take: impl FnMut(&mut T, &[u8]) -> Result<(), EntryError>,
) -> Result<u64, JournalError> {
    let mut buffer = Zeroizing::new(vec![0; READ_BYTES]);
    let mut at = u64::try_from(HEAD_BYTES).unwrap_or_default();
    while at < size {
        let filled = read_at(file, &mut buffer, at)?;
        let mut rest = buffer.get(..filled).unwrap_or_default();
        while let Some((content, after)) = split(rest) {
            take(told, content)?;
            rest = after;
        }
        let taken = filled - rest.len();
        at += u64::try_from(taken).unwrap_or_default();
        if taken == 0 {
            let wanted = wanted(rest);
            let there = usize::try_from(size - at).unwrap_or(usize::MAX);
            if wanted <= buffer.len() || wanted > there {
                break;
            }
            buffer = Zeroizing::new(vec![0; wanted]);
        }
    }
    Ok(at)
}

/// A frame's content, and what lies behind it. None where it is not there in full, or not as it was.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (digest, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (content, after) = rest.split_at_checked(length)?;
    let whole = length > 0 && rapidhash_v3(content).to_le_bytes() == *digest;
    whole.then_some((content, after))
}

/// Bytes of the frame that begins here, by its head.
fn wanted(bytes: &[u8]) -> usize {
    let length = bytes.first_chunk().map_or(0, |it| u32::from_le_bytes(*it));
    usize::try_from(length).map_or(usize::MAX, |it| it.saturating_add(FRAME_HEAD_BYTES))
}

/// Whether a whole frame lies somewhere behind `end`: then it was no crash that tore the one that begins
/// there.
fn goes_on(file: &File, end: u64, size: u64) -> Result<bool, JournalError> {
    let rest = usize::try_from(size - end).map_err(|_| JournalError::Damaged("it is too long"))?;
    let mut bytes = Zeroizing::new(vec![0; rest]);
    let filled = read_at(file, &mut bytes, end)?;
    let bytes = bytes.get(..filled).unwrap_or_default();
    Ok((1..filled).any(|at| bytes.get(at..).and_then(split).is_some()))
}
