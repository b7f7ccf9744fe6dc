//! The interface's private keys, each in a file of its own that only its owner can read.
//!
//! What must hold: a crash leaves the old content of a file or the new one, never a part; a key is on
//! disk before anyone hears of it; keys never leave the node.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use shared::wireguard::{PrivateKey, PublicKey};
use zeroize::Zeroizing;

use super::directory::{prepare, restrict};
use super::{Ledger, LedgerError};

pub(super) const KEY_FILE: &str = "private.key";
pub(super) const NEXT_KEY_FILE: &str = "next.key";

/// The interface's private key; made on the first call.
pub fn private_key(directory: &Path) -> Result<PrivateKey, LedgerError> {
    prepare(directory)?;
    let path = directory.join(KEY_FILE);
    if let Some(key) = read_key(&path)? {
        return Ok(key);
    }
    let key = PrivateKey::generate();
    write_key(directory, &path, &key)?;
    Ok(key)
}

impl Ledger {
    /// Makes the key that the interface will have next. One that was made before is lost.
    pub(crate) fn make_next_key(&self) -> Result<PublicKey, LedgerError> {
        let key = PrivateKey::generate();
        write_key(
            self.directory(),
            &self.directory().join(NEXT_KEY_FILE),
            &key,
        )?;
        Ok(key.public_key())
    }

    /// Whether the private half of `public_key` is here, as the next key or as the present one.
    pub(crate) fn has_key(&self, public_key: &PublicKey) -> Result<bool, LedgerError> {
        for name in [KEY_FILE, NEXT_KEY_FILE] {
            let key = read_key(&self.directory().join(name));
            if key.is_ok_and(|key| key.is_some_and(|key| key.public_key() == *public_key)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The next key takes the place of the present one, which is gone from then on. Repeating it
    /// changes nothing. None where the private half of `public_key` is not here.
    pub(crate) fn adopt_next_key(
        &self,
        public_key: &PublicKey,
    ) -> Result<Option<PrivateKey>, LedgerError> {
        let (path, next) = (
            self.directory().join(KEY_FILE),
            self.directory().join(NEXT_KEY_FILE),
        );
        let wanted = |key: &PrivateKey| key.public_key() == *public_key;
        if let Some(key) = read_key(&path)?.filter(wanted) {
            return Ok(Some(key));
        }
        let Ok(Some(key)) = read_key(&next).map(|key| key.filter(wanted)) else {
            return Ok(None);
        };
        fs::rename(&next, &path)
            .and_then(|()| fs::File::open(self.directory())?.sync_all())
            .map_err(|source| LedgerError::File { path, source })?;
        Ok(Some(key))
    }

    /// The next key is not wanted any more.
    pub(crate) fn discard_next_key(&self) -> Result<(), LedgerError> {
        let path = self.directory().join(NEXT_KEY_FILE);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(LedgerError::File { path, source })
            }
            _ => Ok(()),
        }
    }
}

fn read_key(path: &Path) -> Result<Option<PrivateKey>, LedgerError> {
    let path = || path.to_owned();
    match fs::read_to_string(path()).map(Zeroizing::new) {
        Ok(text) => text
            .trim_end()
            .parse()
            .map(Some)
            .map_err(|_| LedgerError::BadKey { path: path() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(LedgerError::File {
            path: path(),
            source,
        }),
    }
}

/// A crash in the middle leaves no half a key under the key's name.
fn write_key(directory: &Path, path: &Path, key: &PrivateKey) -> Result<(), LedgerError> {
    let write = || {
        let draft = path.with_extension("new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)?;
        file.write_all(key.expose_base64().as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        restrict(directory, &draft)?;
        fs::rename(&draft, path)?;
        fs::File::open(directory)?.sync_all()
    };
    write().map_err(|source| LedgerError::File {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_next_key_takes_over_once_and_whole() {
        let directory = tempfile::tempdir().expect("directory");
        let (ledger, _) = Ledger::open(directory.path()).expect("opens");
        let present = private_key(directory.path()).expect("made");
        let next = ledger.make_next_key().expect("made");
        let path = directory.path().join(NEXT_KEY_FILE);
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_ne!(next, present.public_key());
        assert_eq!(private_key(directory.path()).expect("read"), present);

        assert!(ledger.has_key(&next).expect("read"));
        for _ in 0..2 {
            let adopted = ledger.adopt_next_key(&next).expect("adopts");
            assert_eq!(adopted.map(|key| key.public_key()), Some(next));
            let key = private_key(directory.path()).expect("read");
            assert_eq!(key.public_key(), next);
            assert!(!path.exists() && ledger.has_key(&next).expect("read"));
        }
        ledger.discard_next_key().expect("nothing to discard");
    }

    #[test]
    fn a_key_that_is_not_the_promised_one_does_not_take_over() {
        let directory = tempfile::tempdir().expect("directory");
        let (ledger, _) = Ledger::open(directory.path()).expect("opens");
        let present = private_key(directory.path()).expect("made");
        let promised = ledger.make_next_key().expect("made");
        let other = ledger.make_next_key().expect("made");
        assert!(!ledger.has_key(&promised).expect("read"));
        assert_eq!(ledger.adopt_next_key(&promised).expect("reads"), None);
        fs::write(directory.path().join(NEXT_KEY_FILE), "no key").expect("written");
        assert_eq!(ledger.adopt_next_key(&other).expect("reads"), None);
        ledger.discard_next_key().expect("discards");
        assert_eq!(ledger.adopt_next_key(&other).expect("reads"), None);
        assert_eq!(private_key(directory.path()).expect("read"), present);
    }
}
