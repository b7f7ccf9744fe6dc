//! Carries the plans out, and looks again when something failed.

use std::collections::BTreeSet;
use std::sync::Arc;

use shared::ids::PeerId;

use super::plan::{foreign, plan};
use super::{Book, Change, Consumed, Content, Found, Table, TableError};

/// One table, and what is known to be in it.
#[derive(Debug)]
pub struct Limiter {
    table: Arc<dyn Table>,
    /// None when something failed, or before the first look.
    held: Option<Content>,
    /// This process has made the table or brought it up to date.
    made: bool,
}

impl Limiter {
    #[must_use]
    pub fn new(table: Arc<dyn Table>) -> Self {
        Self {
            table,
            held: None,
            made: false,
        }
    }

    /// The table, for questions beside the node's own work.
    #[must_use]
    pub fn table(&self) -> Arc<dyn Table> {
        Arc::clone(&self.table)
    }

    /// Nothing is limited and the table is known to hold nothing.
    #[must_use]
    pub fn is_idle(&self, book: &Book) -> bool {
        self.held.as_ref().is_some_and(Content::is_empty) && book.limited().next().is_none()
    }

    /// Whether a quota was put into the table and not taken out.
    #[must_use]
    pub fn has_quota(&self) -> bool {
        self.held
            .as_ref()
            .is_some_and(|it| it.quotas().next().is_some())
    }

    /// Limits those whose limits are new or changed.
    pub async fn limit(&mut self, book: &mut Book) -> Result<(), TableError> {
        let peers = book.to_limit();
        self.bring(book, peers).await
    }

    /// Takes those out who left.
    pub async fn clear(&mut self, book: &mut Book) -> Result<(), TableError> {
        let peers = book.to_clear();
        self.bring(book, peers).await
    }

    async fn bring(&mut self, book: &mut Book, peers: Vec<PeerId>) -> Result<(), TableError> {
        if peers.is_empty() {
            return Ok(());
        }
        let Some(mut content) = self.held.take() else {
            return self.repair(book).await.map(|_| ());
        };
        let wanted = peers.iter().map(|peer| (*peer, book.wanted(*peer)));
        let changes = plan(wanted, &content);
        if !changes.is_empty() {
            self.make_once().await?;
            self.table.change(&changes).await?;
            carry_out(&mut content, &changes);
        }
        self.held = Some(content);
        book.settled(&peers);
        Ok(())
    }

    /// Looks at the whole table and brings it to the book; returns how many peers differed.
    pub async fn repair(&mut self, book: &mut Book) -> Result<usize, TableError> {
        self.held = None;
        let mut found = self.table.read().await?;
        if found.is_none() && book.limited().next().is_none() {
            self.held = Some(Content::default());
            book.all_settled();
            return Ok(0);
        }
        if !found.as_ref().is_some_and(|it| it.intact) || !self.made {
            self.table.make().await?;
            self.made = true;
            found = self.table.read().await?;
        }
        let Found { mut content, .. } = found.unwrap_or_default();
        book.observe(content.quotas());
        let known: BTreeSet<PeerId> = content.peers().into_iter().chain(book.limited()).collect();
        let strangers = foreign(&content);
        // Apart and first: a peer's address may be among them.
        if !strangers.is_empty() {
            let strangers = [strangers];
            self.table.change(&strangers).await?;
            carry_out(&mut content, &strangers);
        }
        let changes = plan(
            known.into_iter().map(|peer| (peer, book.wanted(peer))),
            &content,
        );
        if !changes.is_empty() {
            self.table.change(&changes).await?;
            carry_out(&mut content, &changes);
        }
        self.held = Some(content);
        book.all_settled();
        Ok(changes.len())
    }

    /// Reads what these peers have used, before something becomes of their quotas.
    pub async fn read(&mut self, book: &mut Book, peers: &[PeerId]) -> Result<(), TableError> {
        if peers.is_empty() {
            return Ok(());
        }
        let quotas = self.table.quotas_of(peers).await?;
        self.observe(book, &quotas);
        Ok(())
    }

    /// Takes in what was read of the table.
    pub fn observe(&mut self, book: &mut Book, quotas: &[Consumed]) {
        if let Some(content) = &mut self.held {
            content.observe(quotas);
        }
        book.observe(quotas.iter().copied());
    }

    async fn make_once(&mut self) -> Result<(), TableError> {
        if !self.made {
            self.table.make().await?;
            self.made = true;
        }
        Ok(())
    }
}

fn carry_out(content: &mut Content, peers: &[Vec<Change>]) {
    for change in peers.iter().flatten() {
        content.carry_out(change);
    }
}

#[cfg(test)]
#[path = "tests/limiter.rs"]
mod tests;
