//! The state directory and the files in it: their owner's alone.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use super::{FILE, LedgerError, keys};

/// Every file that the agent keeps in its state directory, the journal first.
#[must_use]
pub fn files(directory: &Path) -> [PathBuf; 3] {
    [FILE, keys::KEY_FILE, keys::NEXT_KEY_FILE].map(|name| directory.join(name))
}

pub(super) fn prepare(directory: &Path) -> Result<(), LedgerError> {
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
pub(super) fn restrict(directory: &Path, path: &Path) -> io::Result<()> {
    let (owner, file) = (fs::metadata(directory)?, fs::metadata(path)?);
    if (owner.uid(), owner.gid()) != (file.uid(), file.gid()) {
        chown(path, Some(owner.uid()), Some(owner.gid()))?;
    }
    if file.mode() & 0o777 != 0o600 {
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
    }
    Ok(())
}
