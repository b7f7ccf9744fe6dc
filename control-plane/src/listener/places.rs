//! Who has how many connections open. A place is given back when its connection ends, however it ends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::HashMap;

use crate::guard::Subject;

/// How many there may be at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) all: usize,
    pub(super) each: usize,
}

/// The places of one process, shared by its workers.
#[derive(Debug)]
pub(super) struct Places {
    bounds: Bounds,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_subject: HashMap<Subject, usize>,
}

/// There is no place left.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// One connection's place.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    subject: Option<Subject>,
}

impl Places {
    pub(super) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self {
            bounds,
            taken: Mutex::default(),
        })
    }

    /// A place of all, whoever it will be for.
    pub(super) fn take(self: &Arc<Self>) -> Result<Place, Full> {
        let mut taken = self.taken();
        if taken.all >= self.bounds.all {
            return Err(Full);
        }
        taken.all += 1;
        metrics::gauge!("connections_open").increment(1.0);
        Ok(Place {
            places: Arc::clone(self),
            subject: None,
        })
    }

    /// The state behind the lock. Nobody panics while holding it.
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Counts the place as this subject's, once and for all.
    pub(super) fn claim(&mut self, subject: Subject) -> Result<(), Full> {
        let mut taken = self.places.taken();
        let own = taken.by_subject.entry(subject).or_default();
        if *own >= self.places.bounds.each {
            return Err(Full);
        }
        *own += 1;
        self.subject = Some(subject);
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.all = taken.all.saturating_sub(1);
        if let Some(subject) = self.subject
            && let Some(own) = taken.by_subject.get_mut(&subject)
        {
            *own = own.saturating_sub(1);
            if *own == 0 {
                taken.by_subject.remove(&subject);
            }
        }
        metrics::gauge!("connections_open").decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(address: &str) -> Subject {
        Subject::of(address.parse().unwrap())
    }

    fn places(all: usize, each: usize) -> Arc<Places> {
        Places::new(Bounds { all, each })
    }

    fn enter(places: &Arc<Places>, address: &str) -> Result<Place, Full> {
        let mut place = places.take()?;
        place.claim(subject(address))?;
        Ok(place)
    }

    #[test]
    fn an_address_has_its_own_bound() {
        let places = places(10, 2);
        let first = enter(&places, "192.0.2.1").unwrap();
        let _second = enter(&places, "::ffff:192.0.2.1").unwrap();
        assert_eq!(enter(&places, "192.0.2.1").unwrap_err(), Full);
        let _other = enter(&places, "192.0.2.2").unwrap();
        drop(first);
        let _again = enter(&places, "192.0.2.1").unwrap();
    }

    #[test]
    fn a_site_of_ipv6_is_one_address() {
        let places = places(10, 1);
        let _one = enter(&places, "2001:db8::1").unwrap();
        assert_eq!(enter(&places, "2001:db8::2").unwrap_err(), Full);
        let _other = enter(&places, "2001:db8:0:1::1").unwrap();
    }

    #[test]
    fn all_together_have_a_bound() {
        let places = places(2, 2);
        let nobodys = places.take().unwrap();
        let _somebodys = enter(&places, "192.0.2.1").unwrap();
        assert_eq!(enter(&places, "192.0.2.2").unwrap_err(), Full);
        drop(nobodys);
        let _another = enter(&places, "192.0.2.2").unwrap();
    }

    #[test]
    fn nothing_is_kept_of_who_left() {
        let places = places(2, 1);
        drop(enter(&places, "192.0.2.1").unwrap());
        let kept = enter(&places, "192.0.2.1").unwrap();
        // The refused one gave its place of all back.
        assert_eq!(enter(&places, "192.0.2.1").unwrap_err(), Full);
        assert_eq!(places.taken().all, 1);
        drop(kept);
        let taken = places.taken();
        assert_eq!((taken.all, taken.by_subject.len()), (0, 0));
    }
}
