//! Argon2id, off the async threads and bounded.
//!
//! A hash costs 19 MiB and tens of milliseconds of a core. At most one a core runs at a time and a
//! bounded number waits; whoever comes on top is told that the service is busy.

use std::sync::Arc;
use std::thread::available_parallelism;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{self, PasswordHasher as _, PasswordVerifier as _};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, spawn_blocking};

use crate::error::{ApiError, Code};

/// How many may wait for each one that runs: about two seconds of work.
const WAITING_PER_CORE: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    #[error("too many passwords are waiting to be hashed")]
    Busy,
    #[error("hashing failed")]
    Hash(#[from] password_hash::Error),
    #[error("the hashing thread ended early")]
    Thread(#[from] JoinError),
}

impl From<PasswordError> for ApiError {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Busy => Self::new(Code::Unavailable).with_source(error),
            _ => Self::internal(error),
        }
    }
}

/// A password that nobody should choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WeakPassword {
    #[error("Must have 8 to 128 characters")]
    Length,
    #[error("Must not be the email address")]
    IsEmail,
}

/// Whether a new account may have this password.
pub fn check_new(password: &SecretString, email: &str) -> Result<(), WeakPassword> {
    let password = password.expose_secret();
    if !(8..=128).contains(&password.chars().count()) {
        return Err(WeakPassword::Length);
    }
    if password.to_lowercase() == email.trim().to_lowercase() {
        return Err(WeakPassword::IsEmail);
    }
    Ok(())
}

/// Hashes and verifies passwords.
#[derive(Debug)]
pub struct PasswordHasher {
    argon2: Argon2<'static>,
    places: Semaphore,
    running: Semaphore,
    /// Verified against when there is no account, so that the answer takes as long.
    nobody: Arc<str>,
}

impl PasswordHasher {
    pub fn new() -> Result<Self, PasswordError> {
        let cores = available_parallelism().map_or(1, usize::from);
        Self::bounded(cores, cores * WAITING_PER_CORE)
    }

    fn bounded(running: usize, waiting: usize) -> Result<Self, PasswordError> {
        let argon2 = Argon2::default();
        let nobody = argon2.hash_password(b"nobody")?.to_string().into();
        Ok(Self {
            argon2,
            places: Semaphore::new(running + waiting),
            running: Semaphore::new(running),
            nobody,
        })
    }

    /// The hash with its parameters and salt, as it is stored.
    pub async fn hash(&self, password: SecretString) -> Result<String, PasswordError> {
        let argon2 = self.argon2.clone();
        self.run(move || {
            let hash = argon2.hash_password(password.expose_secret().as_bytes())?;
            Ok(hash.to_string())
        })
        .await
    }

    /// Whether the password is the one of the stored hash. Without a hash it is not, after the same work.
    pub async fn verify(
        &self,
        password: SecretString,
        stored: Option<String>,
    ) -> Result<bool, PasswordError> {
        let argon2 = self.argon2.clone();
        let nobody = Arc::clone(&self.nobody);
        self.run(move || {
            let parsed = PasswordHash::new(stored.as_deref().unwrap_or(&nobody))
                .map_err(password_hash::Error::from)?;
            let matches = argon2
                .verify_password(password.expose_secret().as_bytes(), &parsed)
                .is_ok();
            Ok(matches && stored.is_some())
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, PasswordError> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let _place = self.places.try_acquire().map_err(|_| PasswordError::Busy)?;
        let _running = self
            .running
            .acquire()
            .await
            .map_err(|_| PasswordError::Busy)?;
        spawn_blocking(work).await?
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;

    fn secret(text: &str) -> SecretString {
        SecretString::from(text)
    }

    #[tokio::test]
    async fn only_the_same_password_matches() {
        let hasher = PasswordHasher::new().unwrap();
        let hash = hasher.hash(secret("correct horse")).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$"), "{hash}");
        assert!(hash.len() <= 255);
        assert!(
            hasher
                .verify(secret("correct horse"), Some(hash.clone()))
                .await
                .unwrap()
        );
        assert!(
            !hasher
                .verify(secret("Correct horse"), Some(hash))
                .await
                .unwrap()
        );
    }

    #[tokio::test]
    async fn the_same_password_hashes_differently_each_time() {
        let hasher = PasswordHasher::new().unwrap();
        let first = hasher.hash(secret("correct horse")).await.unwrap();
        assert_ne!(first, hasher.hash(secret("correct horse")).await.unwrap());
    }

    #[tokio::test]
    async fn nobody_has_no_password() {
        let hasher = PasswordHasher::new().unwrap();
        assert!(!hasher.verify(secret("nobody"), None).await.unwrap());
    }

    #[tokio::test]
    async fn a_broken_hash_is_our_fault() {
        let hasher = PasswordHasher::new().unwrap();
        let result = hasher.verify(secret("x"), Some("plain".to_owned())).await;
        assert!(matches!(result, Err(PasswordError::Hash(_))));
    }

    #[tokio::test]
    async fn who_finds_no_place_is_turned_away() {
        let hasher = PasswordHasher::bounded(1, 2).unwrap();
        let all = join_all((0..5).map(|_| hasher.hash(secret("x")))).await;
        let busy =
            |result: &&Result<String, PasswordError>| matches!(result, Err(PasswordError::Busy));
        assert_eq!(all.iter().filter(busy).count(), 2);
        assert_eq!(all.iter().filter(|result| result.is_ok()).count(), 3);
        assert!(
            hasher.hash(secret("x")).await.is_ok(),
            "the places are free again"
        );
    }
}
