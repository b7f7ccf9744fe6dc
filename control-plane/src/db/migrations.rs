//! The migrations, embedded in the binary.

use diesel_async::{AsyncMigrationHarness, AsyncPgConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::pool;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../migrations");

/// Why the schema could not be brought where it shall be.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    #[error("cannot reach Postgres")]
    Connect(#[from] diesel::ConnectionError),
    #[error("migration failed: {0}")]
    Migration(Box<dyn std::error::Error + Send + Sync>),
}

/// Runs what is pending and names it. Needs a multi-thread runtime.
pub async fn run(url: &str) -> Result<Vec<String>, MigrationError> {
    let mut harness = harness(url).await?;
    let ran = harness
        .run_pending_migrations(MIGRATIONS)
        .map_err(MigrationError::Migration)?;
    Ok(ran.iter().map(ToString::to_string).collect())
}

/// Undoes the last `steps` migrations and names them. Needs a multi-thread runtime.
pub async fn revert(url: &str, steps: usize) -> Result<Vec<String>, MigrationError> {
    let mut harness = harness(url).await?;
    let mut reverted = Vec::new();
    for _ in 0..steps {
        let version = harness
            .revert_last_migration(MIGRATIONS)
            .map_err(MigrationError::Migration)?;
        reverted.push(version.to_string());
    }
    Ok(reverted)
}

/// Whether the schema is older than this build. Needs a multi-thread runtime.
pub async fn pending(url: &str) -> Result<bool, MigrationError> {
    harness(url)
        .await?
        .has_pending_migration(MIGRATIONS)
        .map_err(MigrationError::Migration)
}

async fn harness(url: &str) -> Result<AsyncMigrationHarness<AsyncPgConnection>, MigrationError> {
    Ok(AsyncMigrationHarness::new(pool::establish(url).await?))
}
