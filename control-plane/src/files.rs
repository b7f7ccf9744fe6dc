//! Files that are replaced while the service runs, and what is made of them.
//!
//! Whoever replaces files writes them one after the other and not always whole at once. They are read when they
//! have rested for a second, and what they make takes the place of what was in force whole or not at all: content
//! that nothing can be made of changes nothing and is told of once. A look costs a `stat` a file; content is read
//! when something changed, and kept in memory, so that a later change of a file changes nothing under anybody.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, fs, io};

use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

/// How often the files are looked at, and how long they have to rest.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a file holds. It may be a key.
pub(crate) type Content = Zeroizing<Vec<u8>>;

/// Files that belong together.
pub(crate) trait Source<const N: usize>: fmt::Debug + Send + Sync + 'static {
    type Made: Send + Sync + 'static;
    type Error: std::error::Error + 'static;
    const WORDS: Words;

    fn paths(&self) -> [&Path; N];

    /// What the files make, in the order of their paths; an error tells which variable is to be mended.
    fn make(files: io::Result<[Content; N]>) -> Result<Self::Made, Self::Error>;

    /// What the files make now.
    fn read(&self) -> Result<Self::Made, Self::Error> {
        Self::make(contents(self.paths()))
    }
}

/// How a replacement is told of.
#[derive(Debug)]
pub(crate) struct Words {
    /// Counts replacements by `result`.
    pub(crate) counter: &'static str,
    /// The `result` of one that is in force; any other is `refused`.
    pub(crate) taken: &'static str,
    pub(crate) news: &'static str,
    pub(crate) stays: &'static str,
}

/// Files and what is in force of them.
pub(crate) struct Followed<S: Source<N>, const N: usize> {
    source: S,
    /// What was found at the start.
    first: Fingerprint,
    made: ArcSwap<S::Made>,
}

impl<S: Source<N>, const N: usize> Followed<S, N> {
    pub(crate) fn load(source: S) -> Result<Arc<Self>, S::Error> {
        let files = contents(source.paths());
        Ok(Arc::new(Self {
            first: fingerprint(&files),
            made: ArcSwap::from_pointee(S::make(files)?),
            source,
        }))
    }

    /// What is in force; to be let go of soon, because it stays in memory for so long.
    pub(crate) fn current(&self) -> arc_swap::Guard<Arc<S::Made>> {
        self.made.load()
    }

    /// Puts into force what the files hold, whenever that changes, until `stop`.
    pub(crate) async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let mut tick = interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut known = Known::at_start(self.first);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            let this = Arc::clone(&self);
            match tokio::task::spawn_blocking(move || this.look(known)).await {
                Ok(now) => known = now,
                Err(error) => tracing::error!(%error, "files could not be looked at"),
            }
        }
    }

    /// Takes what the files hold, if they rest and it is not what is known of them. Answers what is known now.
    fn look(&self, known: Known<N>) -> Known<N> {
        let stamps = self.source.paths().map(stamp);
        if !known.is_due(&stamps) {
            return Known {
                seen: Some(stamps),
                ..known
            };
        }
        let files = contents(self.source.paths());
        let found = fingerprint(&files);
        // What could not be read is read again, whether or not it looks the same.
        let read = files.is_ok().then_some(stamps);
        if found != known.content {
            self.take(files);
        }
        Known {
            seen: Some(stamps),
            read,
            content: found,
        }
    }

    fn take(&self, files: io::Result<[Content; N]>) {
        let words = S::WORDS;
        let result = match S::make(files) {
            Ok(made) => {
                self.made.store(Arc::new(made));
                tracing::info!("{}", words.news);
                words.taken
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, cause, "{}", words.stays);
                "refused"
            }
        };
        metrics::counter!(words.counter, "result" => result).increment(1);
    }
}

impl<S: Source<N>, const N: usize> fmt::Debug for Followed<S, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Followed")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

/// What was found so far.
#[derive(Debug, Clone, Copy)]
struct Known<const N: usize> {
    /// At the latest look.
    seen: Option<[Stamp; N]>,
    /// As the files looked when they were read.
    read: Option<[Stamp; N]>,
    content: Fingerprint,
}

impl<const N: usize> Known<N> {
    /// How the files looked is not known: they are read once more, because somebody may have been about to
    /// replace them.
    const fn at_start(content: Fingerprint) -> Self {
        Self {
            seen: None,
            read: None,
            content,
        }
    }

    /// Whether files that look like this rest and were not read like this.
    fn is_due(&self, now: &[Stamp; N]) -> bool {
        self.seen.as_ref() == Some(now) && self.read.as_ref() != Some(now)
    }
}

/// Where a file is, how long it is, and when it was changed: another one after whatever is done to it. None where
/// there is no file.
type Stamp = Option<[i128; 5]>;

fn stamp(path: &Path) -> Stamp {
    let it = fs::metadata(path).ok()?;
    let time = |seconds: i64, nanoseconds: i64| {
        i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)
    };
    Some([
        it.dev().into(),
        it.ino().into(),
        it.size().into(),
        time(it.mtime(), it.mtime_nsec()),
        time(it.ctime(), it.ctime_nsec()),
    ])
}

/// All files whole, or why one of them cannot be read.
fn contents<const N: usize>(paths: [&Path; N]) -> io::Result<[Content; N]> {
    let mut failed = None;
    let read = |path: &Path| match fs::read(path) {
        Ok(content) => Content::new(content),
        Err(error) => {
            failed = Some(error);
            Content::default()
        }
    };
    let contents = paths.map(read);
    failed.map_or(Ok(contents), Err)
}

type Fingerprint = [u8; 32];

/// Tells one content from another without keeping it.
fn fingerprint<const N: usize>(files: &io::Result<[Content; N]>) -> Fingerprint {
    let mut digest = Sha256::new();
    match files {
        Ok(contents) => contents
            .iter()
            .for_each(|content| digest.update(Sha256::digest(content.as_slice()))),
        Err(error) => digest.update(error.to_string()),
    }
    digest.finalize().into()
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
