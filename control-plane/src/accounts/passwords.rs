//! Argon2id, off the async threads and bounded; bcrypt for hashes that came from elsewhere.
//!
//! A hash costs 19 MiB and tens of milliseconds of a core. At most one a core runs at a time and a
//! bounded number waits; whoever comes on top is told that the service is busy. A hash that is not
//! what we would make today still verifies, and says so: its owner's next login replaces it.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::thread::available_parallelism;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{self, PasswordHasher as _, PasswordVerifier as _};
use argon2::{ARGON2ID_IDENT, Argon2, Params, Version};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, spawn_blocking};

use crate::error::{ApiError, Code};

/// How many may wait for each one that runs: about two seconds of work.
const WAITING_PER_CORE: usize = 64;

/// Stands where a hash stands and matches no password.
pub const NO_PASSWORD: &str = "!";

/// A bcrypt hash of a higher cost would hold a place for seconds.
const BCRYPT_COSTS: RangeInclusive<u32> = 4..=16;

/// What became of a password that was presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Wrong,
    Matches,
    /// It matches, and the stored hash should be replaced by one of today's kind.
    Outdated,
}

impl Verdict {
    #[must_use]
    pub fn matches(self) -> bool {
        self != Self::Wrong
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    #[error("too many passwords are waiting to be hashed")]
    Busy,
    #[error("hashing failed")]
    Hash(#[from] password_hash::Error),
    #[error("a stored bcrypt hash cannot be read")]
    Bcrypt(#[from] bcrypt::BcryptError),
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
    places: Arc<Semaphore>,
    running: Arc<Semaphore>,
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
            places: Arc::new(Semaphore::new(running + waiting)),
            running: Arc::new(Semaphore::new(running)),
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
    ) -> Result<Verdict, PasswordError> {
        let argon2 = self.argon2.clone();
        let nobody = Arc::clone(&self.nobody);
        let stored = stored.filter(|hash| hash != NO_PASSWORD);
        self.run(move || {
            let password = password.expose_secret();
            let Some(stored) = stored else {
                check(&argon2, password, &nobody)?;
                return Ok(Verdict::Wrong);
            };
            check(&argon2, password, &stored)
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, PasswordError> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| PasswordError::Busy)?;
        let running = Arc::clone(&self.running).acquire_owned().await;
        let running = running.map_err(|_| PasswordError::Busy)?;
        // The work has its place until it ends, also when nobody waits for it any more.
        let held = move || {
            let _held = (place, running);
            work()
        };
        spawn_blocking(held).await?
    }
}

fn check(argon2: &Argon2<'_>, password: &str, stored: &str) -> Result<Verdict, PasswordError> {
    if is_bcrypt(stored) {
        // Truncates at 72 bytes, as whoever made the hash did.
        return Ok(match bcrypt::verify(password, stored)? {
            true => Verdict::Outdated,
            false => Verdict::Wrong,
        });
    }
    let hash = PasswordHash::new(stored).map_err(password_hash::Error::from)?;
    if argon2.verify_password(password.as_bytes(), &hash).is_err() {
        return Ok(Verdict::Wrong);
    }
    Ok(match is_current(&hash, argon2.params()) {
        true => Verdict::Matches,
        false => Verdict::Outdated,
    })
}

/// Whether we would make such a hash today.
fn is_current(hash: &PasswordHash, today: &Params) -> bool {
    hash.algorithm == ARGON2ID_IDENT
        && hash.version == Some(Version::default().into())
        && Params::try_from(hash).is_ok_and(|params| {
            let cost = |params: &Params| (params.m_cost(), params.t_cost(), params.p_cost());
            cost(&params) == cost(today)
        })
}

/// Whether the text is a bcrypt hash that we verify: `$2b$12$` and 53 characters.
#[must_use]
pub fn is_bcrypt(text: &str) -> bool {
    ["$2a$", "$2b$", "$2y$"]
        .iter()
        .any(|prefix| text.starts_with(prefix))
        && text
            .parse()
            .is_ok_and(|parts: bcrypt::HashParts| BCRYPT_COSTS.contains(&parts.get_cost()))
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use rstest::rstest;

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
        let verify = async |text: &str| hasher.verify(secret(text), Some(hash.clone())).await;
        assert_eq!(verify("correct horse").await.unwrap(), Verdict::Matches);
        assert_eq!(verify("Correct horse").await.unwrap(), Verdict::Wrong);
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
        for stored in [None, Some(NO_PASSWORD.to_owned())] {
            let verdict = hasher.verify(secret("nobody"), stored).await.unwrap();
            assert_eq!(verdict, Verdict::Wrong);
        }
    }

    /// Made by other implementations: the test vectors of OpenBSD and of PHP.
    #[rstest]
    #[case("$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U")]
    #[case("$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U")]
    #[case(
        "$2b$05$XXXXXXXXXXXXXXXXXXXXXOAcXxm9kjPGEMsLznoKqmqw7tc8WCx4a",
        "U*U*U"
    )]
    #[tokio::test]
    async fn a_bcrypt_hash_matches_and_is_outdated(#[case] hash: &str, #[case] password: &str) {
        let hasher = PasswordHasher::new().unwrap();
        let verify = async |text: &str| hasher.verify(secret(text), Some(hash.to_owned())).await;
        assert_eq!(verify(password).await.unwrap(), Verdict::Outdated);
        assert_eq!(verify("U*u").await.unwrap(), Verdict::Wrong);
    }

    #[tokio::test]
    async fn bcrypt_looks_at_72_bytes() {
        let hasher = PasswordHasher::new().unwrap();
        let hash = bcrypt::hash("x".repeat(72), 4).unwrap();
        for (length, verdict) in [
            (71, Verdict::Wrong),
            (72, Verdict::Outdated),
            (80, Verdict::Outdated),
        ] {
            let password = secret(&"x".repeat(length));
            let found = hasher.verify(password, Some(hash.clone())).await.unwrap();
            assert_eq!(found, verdict, "{length}");
        }
    }

    #[tokio::test]
    async fn an_argon2_hash_of_other_parameters_is_outdated() {
        let hasher = PasswordHasher::new().unwrap();
        let weak = Argon2::new(
            argon2::Algorithm::Argon2id,
            Version::default(),
            Params::new(8, 1, 1, None).unwrap(),
        );
        let hash = weak.hash_password(b"correct horse").unwrap().to_string();
        let verdict = hasher.verify(secret("correct horse"), Some(hash)).await;
        assert_eq!(verdict.unwrap(), Verdict::Outdated);
    }

    #[rstest]
    #[case("$2b$12$", 53, true)]
    #[case("$2a$04$", 53, true)]
    #[case("$2y$16$", 53, true)]
    #[case("$2x$12$", 53, false)]
    #[case("$2b$17$", 53, false)]
    #[case("$2b$03$", 53, false)]
    #[case("$2b$99$", 53, false)]
    #[case("$2b$xx$", 53, false)]
    #[case("$2b$12$", 52, false)]
    #[case("2b$12$$", 53, false)]
    #[case("$argon2id$12$", 47, false)]
    fn bcrypt_hashes_are_known_by_their_form(
        #[case] prefix: &str,
        #[case] rest: usize,
        #[case] is_one: bool,
    ) {
        assert_eq!(is_bcrypt(&format!("{prefix}{}", ".".repeat(rest))), is_one);
    }

    #[tokio::test]
    async fn a_broken_hash_is_our_fault() {
        let hasher = PasswordHasher::new().unwrap();
        let result = hasher.verify(secret("x"), Some("plain".to_owned())).await;
        assert!(matches!(result, Err(PasswordError::Hash(_))));
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_keeps_its_place() {
        let hasher = Arc::new(PasswordHasher::bounded(1, 0).unwrap());
        let (ended, end) = std::sync::mpsc::channel::<()>();
        let (began, begin) = tokio::sync::oneshot::channel();
        let busy = Arc::clone(&hasher);
        let gone = tokio::spawn(async move {
            let work = move || {
                let _ = began.send(());
                let _ = end.recv();
                Ok(())
            };
            busy.run(work).await
        });
        begin.await.unwrap();
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
        let turned_away = hasher.hash(secret("x")).await;
        assert!(matches!(turned_away, Err(PasswordError::Busy)));
        drop(ended);
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
        while hasher.hash(secret("x")).await.is_err() {
            assert!(
                tokio::time::Instant::now() < deadline,
                "the place is free again"
            );
            tokio::task::yield_now().await;
        }
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
