//! What the operator wants of the node as a whole, and the node's word on its next key. Pure.
//!
//! The settings are read again at every signal and said when they differ from what the node was
//! told. Agents of the first version of the protocol know neither.

use shared::protocol::{NextKey, Settings};

/// The first version of the protocol that has settings.
const SINCE: u16 = 2;

#[derive(Debug)]
pub(super) struct Directions {
    understood: bool,
    said: Option<Settings>,
    /// There may be other settings than those that were said.
    stale: bool,
    reading: bool,
    next_key: Option<NextKey>,
    storing: Option<NextKey>,
}

impl Directions {
    pub(super) const fn new(protocol: u16) -> Self {
        Self {
            understood: protocol >= SINCE,
            said: None,
            stale: false,
            reading: false,
            next_key: None,
            storing: None,
        }
    }

    /// What the node was told; none when it is told nothing.
    pub(super) const fn said(&self) -> Option<Settings> {
        self.said
    }

    /// What to tell the node, if it was not told so before.
    pub(super) fn say(&mut self, settings: Settings) -> Option<Settings> {
        self.reading = false;
        if !self.understood || self.said == Some(settings) {
            return None;
        }
        self.said = Some(settings);
        Some(settings)
    }

    pub(super) const fn signalled(&mut self) {
        self.stale = self.understood;
    }

    /// Whether to read now; at most one read is under way.
    pub(super) const fn begin_read(&mut self) -> bool {
        let begins = self.stale && !self.reading;
        if begins {
            (self.stale, self.reading) = (false, true);
        }
        begins
    }

    pub(super) const fn read_failed(&mut self) {
        (self.stale, self.reading) = (true, false);
    }

    pub(super) const fn announced(&mut self, key: NextKey) {
        if self.understood {
            self.next_key = Some(key);
        }
    }

    /// The key to store now; at most one is under way, and the newest is the last.
    pub(super) const fn begin_store(&mut self) -> Option<NextKey> {
        if self.storing.is_some() {
            return None;
        }
        self.storing = self.next_key.take();
        self.storing
    }

    pub(super) const fn stored(&mut self) {
        self.storing = None;
    }

    pub(super) fn store_failed(&mut self) {
        let failed = self.storing.take();
        self.next_key = self.next_key.take().or(failed);
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use shared::wireguard::PublicKey;

    use super::*;

    const PLAIN: Settings = Settings {
        draining: false,
        rotate_key_at: None,
    };
    const DRAIN: Settings = Settings {
        draining: true,
        ..PLAIN
    };

    fn key(number: u8) -> NextKey {
        NextKey {
            public_key: PublicKey::from_bytes([number; 32]),
            at: DateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn says_what_differs_from_what_was_said() {
        let mut directions = Directions::new(2);
        let said: Vec<_> = [PLAIN, PLAIN, DRAIN, DRAIN, PLAIN]
            .into_iter()
            .map(|settings| directions.say(settings))
            .collect();
        assert_eq!(said, [Some(PLAIN), None, Some(DRAIN), None, Some(PLAIN)]);
        assert_eq!(directions.said(), Some(PLAIN));
    }

    #[test]
    fn signals_during_a_read_are_one_more_read() {
        let mut directions = Directions::new(2);
        assert!(!directions.begin_read(), "nothing was signalled");
        directions.signalled();
        assert!(directions.begin_read());
        directions.signalled();
        directions.signalled();
        assert!(!directions.begin_read(), "one is under way");
        directions.say(PLAIN);
        assert!(directions.begin_read());
        directions.read_failed();
        assert!(directions.begin_read(), "it is tried again");
        directions.say(PLAIN);
        assert!(!directions.begin_read());
    }

    #[test]
    fn the_newest_key_is_stored_last() {
        let mut directions = Directions::new(2);
        directions.announced(key(1));
        assert_eq!(directions.begin_store(), Some(key(1)));
        directions.announced(key(2));
        directions.announced(key(3));
        assert_eq!(directions.begin_store(), None, "one is under way");
        directions.store_failed();
        assert_eq!(directions.begin_store(), Some(key(3)), "the older is moot");
        directions.store_failed();
        assert_eq!(directions.begin_store(), Some(key(3)));
        directions.stored();
        assert_eq!(directions.begin_store(), None);
    }

    #[test]
    fn an_agent_of_the_first_version_hears_nothing() {
        let mut directions = Directions::new(1);
        directions.signalled();
        directions.announced(key(1));
        assert!(!directions.begin_read());
        assert_eq!(directions.begin_store(), None);
        assert_eq!(directions.say(DRAIN), None);
    }
}
