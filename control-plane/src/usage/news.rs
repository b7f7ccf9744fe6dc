//! What there is to tell a connection's client about its server: each thing once. A pure core.

use chrono::{DateTime, Utc};
use shared::ids::ConnectionId;
use shared::protocol::NextKey;
use shared::wireguard::PublicKey;

use crate::fleet::Trouble;

/// What the connection's row says of offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Offers {
    /// Stands ready.
    pub(super) offer: Option<Offer>,
    /// Why one was looked for at last.
    pub(super) reason: Option<Trouble>,
    /// No other server could take the client when one was looked for at last.
    pub(super) failed: bool,
}

/// A connection that may replace this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) connection: ConnectionId,
    /// It ends then, unless the client used it.
    pub(super) until: DateTime<Utc>,
}

/// A connection's server at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ServerNow {
    pub(super) trouble: Option<Trouble>,
    pub(super) public_key: PublicKey,
    pub(super) next_key: Option<NextKey>,
}

/// Something to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    Trouble {
        trouble: Trouble,
        /// None where no other server has room.
        offer: Option<Offer>,
    },
    KeyChanging(NextKey),
    KeyChanged(PublicKey),
}

/// What was told of a connection's server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Told {
    /// The connection that was offered last; inside, none where it was said that there is none.
    offer: Option<Option<ConnectionId>>,
    next_key: Option<NextKey>,
    /// The key that the client has.
    public_key: Option<PublicKey>,
}

impl Told {
    /// What is new. It stays new until [`Told::tell`].
    pub(super) fn news(&self, offers: &Offers, server: Option<&ServerNow>) -> Vec<News> {
        let keys = server.map(|server| self.news_of_keys(server));
        let keys = keys.into_iter().flatten().flatten();
        self.news_of_trouble(offers, server)
            .into_iter()
            .chain(keys)
            .collect()
    }

    fn news_of_trouble(&self, offers: &Offers, server: Option<&ServerNow>) -> Option<News> {
        let trouble = server.and_then(|server| server.trouble);
        let is_told = self.offer == Some(offers.offer.map(|offer| offer.connection));
        let is_due = offers.offer.is_some() || offers.failed && trouble.is_some();
        (is_due && !is_told).then(|| News::Trouble {
            trouble: offers.reason.or(trouble).unwrap_or(Trouble::Draining),
            offer: offers.offer,
        })
    }

    fn news_of_keys(&self, server: &ServerNow) -> [Option<News>; 2] {
        let changed = self.public_key.is_some_and(|key| key != server.public_key);
        let planned = server
            .next_key
            .filter(|next| Some(*next) != self.next_key && next.public_key != server.public_key);
        [
            changed.then_some(News::KeyChanged(server.public_key)),
            planned.map(News::KeyChanging),
        ]
    }

    /// The client knows it now.
    pub(super) fn tell(&mut self, news: &News) {
        match news {
            News::Trouble { offer, .. } => {
                self.offer = Some(offer.map(|offer| offer.connection));
            }
            News::KeyChanging(next) => self.next_key = Some(*next),
            News::KeyChanged(key) => self.public_key = Some(*key),
        }
    }

    /// Takes note of what needs no telling: the key that the client was connected with, and trouble
    /// that passed.
    pub(super) fn note(&mut self, offers: &Offers, server: Option<&ServerNow>) {
        let Some(server) = server else {
            return;
        };
        self.public_key.get_or_insert(server.public_key);
        if server.next_key.is_none() {
            self.next_key = None;
        }
        if server.trouble.is_none() && offers.offer.is_none() {
            self.offer = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const OLD_KEY: PublicKey = PublicKey::from_bytes([1; 32]);
    const NEW_KEY: PublicKey = PublicKey::from_bytes([2; 32]);
    const FINE: ServerNow = ServerNow {
        trouble: None,
        public_key: OLD_KEY,
        next_key: None,
    };
    const DRAINING: ServerNow = ServerNow {
        trouble: Some(Trouble::Draining),
        ..FINE
    };
    const NO_OFFERS: Offers = Offers {
        offer: None,
        reason: None,
        failed: false,
    };
    const FAILED: Offers = Offers {
        reason: Some(Trouble::Unreachable),
        failed: true,
        ..NO_OFFERS
    };

    fn offered(number: u128) -> Offers {
        Offers {
            offer: Some(Offer {
                connection: ConnectionId(Uuid::from_u128(number)),
                until: DateTime::UNIX_EPOCH,
            }),
            reason: Some(Trouble::Draining),
            failed: false,
        }
    }

    /// What a socket tells, moment by moment.
    fn told(moments: &[(Offers, ServerNow)]) -> Vec<Vec<News>> {
        let mut told = Told::default();
        let mut step = |(offers, server): &(Offers, ServerNow)| {
            told.note(offers, Some(server));
            let news = told.news(offers, Some(server));
            news.iter().for_each(|news| told.tell(news));
            news
        };
        moments.iter().map(&mut step).collect()
    }

    fn trouble(trouble: Trouble, offers: &Offers) -> Vec<News> {
        let offer = offers.offer;
        vec![News::Trouble { trouble, offer }]
    }

    #[test]
    fn an_offer_is_told_once_and_so_is_the_next() {
        assert_eq!(
            told(&[
                (NO_OFFERS, FINE),
                (NO_OFFERS, DRAINING),
                (offered(1), DRAINING),
                (offered(1), DRAINING),
                (NO_OFFERS, DRAINING),
                (offered(2), FINE),
            ]),
            [
                vec![],
                vec![],
                trouble(Trouble::Draining, &offered(1)),
                vec![],
                vec![],
                trouble(Trouble::Draining, &offered(2)),
            ]
        );
    }

    #[test]
    fn without_another_server_it_is_told_once_for_each_time_of_trouble() {
        assert_eq!(
            told(&[
                (FAILED, DRAINING),
                (FAILED, DRAINING),
                (offered(1), DRAINING),
                (FAILED, FINE),
                (FAILED, DRAINING),
            ]),
            [
                trouble(Trouble::Unreachable, &FAILED),
                vec![],
                trouble(Trouble::Draining, &offered(1)),
                vec![],
                trouble(Trouble::Unreachable, &FAILED),
            ]
        );
    }

    #[test]
    fn a_change_of_keys_is_told_early_and_when_it_happened() {
        let next = NextKey {
            public_key: NEW_KEY,
            at: DateTime::UNIX_EPOCH,
        };
        let planned = ServerNow {
            next_key: Some(next),
            ..FINE
        };
        // The node may have changed before the plan is taken off.
        let changing = ServerNow {
            public_key: NEW_KEY,
            ..planned
        };
        let changed = ServerNow {
            public_key: NEW_KEY,
            ..FINE
        };
        let moments = [FINE, planned, planned, changing, changed, changed];
        assert_eq!(
            told(&moments.map(|server| (NO_OFFERS, server))),
            [
                vec![],
                vec![News::KeyChanging(next)],
                vec![],
                vec![News::KeyChanged(NEW_KEY)],
                vec![],
                vec![],
            ]
        );
    }

    #[test]
    fn what_was_not_delivered_stays_new() {
        let told = Told::default();
        let first = told.news(&offered(1), Some(&DRAINING));
        assert_eq!(told.news(&offered(1), Some(&DRAINING)), first);
        assert_eq!(told.news(&offered(1), None), first);
    }
}
