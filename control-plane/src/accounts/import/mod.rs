//! Taking over people from another system: addresses with bcrypt hashes, from CSV.
//!
//! A line is stored or reported, never dropped in silence. Whoever has an account already keeps it as
//! it is, so that an import can be run again. Lines are read as they come and stored in batches.

mod row;
mod store;

use std::io::Read;

use chrono::Utc;
use diesel_async::AsyncPgConnection;
use serde_json::json;

pub use row::{InvalidRow, MissingColumn};

use crate::audit::{self, Action, Actor, Event};
use row::Columns;

/// People stored by one statement.
const BATCH: usize = 1_000;

/// What became of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Imported {
    pub added: usize,
    /// Whose address has an account, or came a second time.
    pub skipped: usize,
    pub invalid: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("the file cannot be read")]
    Read(#[from] csv::Error),
    #[error(transparent)]
    Columns(#[from] MissingColumn),
    #[error(transparent)]
    Database(#[from] diesel::result::Error),
}

/// Imports everybody in the file. `report` is given the number of each line that is not valid, and
/// why.
pub async fn import(
    connection: &mut AsyncPgConnection,
    file: impl Read,
    mut report: impl FnMut(u64, &str),
) -> Result<Imported, ImportError> {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_reader(file);
    let columns = Columns::of(reader.headers()?)?;
    let (mut imported, mut batch) = (Imported::default(), Vec::with_capacity(BATCH));
    let mut record = csv::StringRecord::new();
    loop {
        match reader.read_record(&mut record) {
            Ok(false) => break,
            Ok(true) => match columns.read(&record, Utc::now()) {
                Ok(person) => batch.push(person),
                Err(invalid) => {
                    imported.invalid += 1;
                    let line = record.position().map_or(0, csv::Position::line);
                    report(line, &invalid.to_string());
                }
            },
            Err(error) if error.is_io_error() => return Err(error.into()),
            Err(error) => {
                imported.invalid += 1;
                let line = error.position().map_or(0, csv::Position::line);
                report(line, unreadable(&error));
            }
        }
        if batch.len() == BATCH {
            imported.take(connection, &mut batch).await?;
        }
    }
    imported.take(connection, &mut batch).await?;
    let (added, skipped, invalid) = (imported.added, imported.skipped, imported.invalid);
    let mut event = Event::new(Action::Import, Actor::Cli);
    event = event.change(
        json!(null),
        json!({ "added": added, "skipped": skipped, "invalid": invalid }),
    );
    audit::record(connection, &event).await?;
    Ok(imported)
}

impl Imported {
    async fn take(
        &mut self,
        connection: &mut AsyncPgConnection,
        batch: &mut Vec<row::Person>,
    ) -> Result<(), ImportError> {
        if batch.is_empty() {
            return Ok(());
        }
        let given = batch.len();
        let added = store::insert(connection, std::mem::take(batch)).await?;
        self.added += added;
        self.skipped += given.saturating_sub(added);
        Ok(())
    }
}

/// Without what the line says: it holds an address and a hash.
fn unreadable(error: &csv::Error) -> &'static str {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { .. } => "has another number of columns than the header",
        csv::ErrorKind::Utf8 { .. } => "is not UTF-8",
        _ => "cannot be read",
    }
}
