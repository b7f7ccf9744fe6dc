//! Pages of the server list, and recommendations, as they were last written.
//!
//! The list is asked for far more often than a node reports, and everybody who asks in the same words
//! gets the same. A view has its own pages, so what the operator changes is seen at once; the figures
//! that move may be [`MAX_AGE`] old, a tenth of the time between two reports.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use actix_web::web::Bytes;
use foldhash::HashMap;

use super::lock;

const MAX_AGE: Duration = Duration::from_millis(100);
/// Ways of asking that are kept at once.
const CAPACITY: usize = 1024;
/// Longer ones are their callers' inventions.
const LONGEST_KEY: usize = 200;

#[derive(Debug, Default)]
pub(super) struct Pages(Mutex<HashMap<String, Page>>);

#[derive(Debug)]
struct Page {
    written: Instant,
    body: Bytes,
}

impl Page {
    fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.written) < MAX_AGE
    }
}

impl Pages {
    /// The page, written anew unless it was lately. `key` says all that was asked.
    pub(super) fn get<E>(
        &self,
        key: &str,
        now: Instant,
        write: impl FnOnce() -> Result<Bytes, E>,
    ) -> Result<Bytes, E> {
        if let Some(page) = lock(&self.0).get(key)
            && page.is_fresh(now)
        {
            return Ok(page.body.clone());
        }
        let body = write()?;
        self.keep(key, now, body.clone());
        Ok(body)
    }

    fn keep(&self, key: &str, now: Instant, body: Bytes) {
        if key.len() > LONGEST_KEY {
            return;
        }
        let mut pages = lock(&self.0);
        if pages.len() >= CAPACITY {
            pages.retain(|_, page| page.is_fresh(now));
        }
        if pages.len() < CAPACITY || pages.contains_key(key) {
            pages.insert(key.to_owned(), Page { written: now, body });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn ask(pages: &Pages, key: &str, now: Instant, body: &'static str) -> Bytes {
        let write = || Ok::<_, Infallible>(Bytes::from_static(body.as_bytes()));
        match pages.get(key, now, write) {
            Ok(page) => page,
        }
    }

    #[test]
    fn a_page_is_written_once_a_time() {
        let (pages, start) = (Pages::default(), Instant::now());
        assert_eq!(ask(&pages, "a", start, "first"), "first");
        let almost = start + MAX_AGE.saturating_sub(Duration::from_millis(1));
        assert_eq!(ask(&pages, "a", almost, "second"), "first");
        assert_eq!(ask(&pages, "b", almost, "other"), "other");
        assert_eq!(ask(&pages, "a", start + MAX_AGE, "third"), "third");
    }

    #[test]
    fn what_fails_is_not_kept() {
        let (pages, now) = (Pages::default(), Instant::now());
        assert_eq!(pages.get("a", now, || Err("broken")), Err("broken"));
        assert_eq!(ask(&pages, "a", now, "whole"), "whole");
    }

    #[test]
    fn many_ways_of_asking_take_no_more_room() {
        let (pages, start) = (Pages::default(), Instant::now());
        for number in 0..CAPACITY * 2 {
            ask(&pages, &number.to_string(), start, "page");
        }
        ask(&pages, &"x".repeat(LONGEST_KEY + 1), start, "page");
        assert_eq!(lock(&pages.0).len(), CAPACITY);
        // One that is kept may be renewed; once the others are old they make room.
        assert_eq!(ask(&pages, "new", start + MAX_AGE, "page"), "page");
        assert_eq!(lock(&pages.0).len(), 1);
    }
}
