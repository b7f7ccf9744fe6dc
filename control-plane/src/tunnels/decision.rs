//! What a connect request comes to, given what the person has. Pure.

use sha2::{Digest, Sha256};
use shared::ids::{ConnectionId, DeviceId, ServerId};
use shared::wireguard::PublicKey;

use super::model::{EndReason, Status};
use super::quota::shares;
use super::store::{Entitlement, LiveConnection, NewLease};
use crate::error::{ApiError, Code};

/// What the caller of a connect asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Request {
    pub(super) server: Option<ServerId>,
    pub(super) public_key: Option<PublicKey>,
    pub(super) device: Option<DeviceId>,
    pub(super) location: Option<String>,
    pub(super) idempotency_key: Option<String>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// The connection is there already, or on its way.
    Existing(ConnectionId),
    Connect {
        /// None: make a pair.
        public_key: Option<PublicKey>,
        /// The connection that ends once the new one is acknowledged.
        replaces: Option<ConnectionId>,
    },
    /// A move is in the way that nobody finishes: this connection ends, and then it is decided anew.
    End(ConnectionId, EndReason),
}

/// `fits` says whether a live connection's server is what the request asks for.
pub(super) fn decide(
    request: &Request,
    entitlement: &Entitlement,
    fits: impl Fn(&LiveConnection) -> bool,
) -> Result<Decision, ApiError> {
    if !entitlement.is_active {
        return Err(Code::AccountSuspended.into());
    }
    let public_key = effective_key(request, entitlement)?;
    let repeated = repeated(request, entitlement)?;
    let replaces = match (public_key, repeated) {
        (Some(_), Some(live)) => return Ok(Decision::Existing(live.id)),
        // Its private key is not known here any more, so that the answer cannot be repeated.
        (None, Some(live)) => Some(live),
        (Some(key), None) => {
            let mut same = same_key(entitlement, key);
            let mut staying = same.clone().filter(|live| !live.is_leaving());
            if let Some(live) = staying.find(|live| fits(live)) {
                return Ok(Decision::Existing(live.id));
            }
            if let Some(leaving) = same.clone().find(|live| live.is_leaving()) {
                return Ok(conclude(entitlement, leaving));
            }
            // An offer only has the place when what it was offered for is gone.
            same.find(|live| !live.is_offer || live.holds_place)
        }
        (None, None) => None,
    };
    let replaces = replaces.or_else(|| unused_offer(entitlement));
    if replaces.is_none() && is_full(entitlement) {
        return Err(Code::ConnectionLimit.into());
    }
    Ok(Decision::Connect {
        public_key,
        replaces: replaces.map(|live| live.id),
    })
}

/// What becomes of a move whose request did not live to finish it. Until then its old half is never
/// what a client is told: it may end at any moment.
fn conclude(entitlement: &Entitlement, leaving: &LiveConnection) -> Decision {
    let mut live = entitlement.live.iter();
    let next = live.find(|live| live.supersedes == Some(leaving.id) && !live.is_offer);
    match next {
        // Its end gives the old one its place back.
        Some(next) if next.status == Status::Connecting => {
            Decision::End(next.id, EndReason::Abandoned)
        }
        _ => Decision::End(leaving.id, EndReason::Moved),
    }
}

fn is_full(entitlement: &Entitlement) -> bool {
    let places = entitlement.live.iter().filter(|live| live.holds_place);
    let limit = usize::try_from(entitlement.bounds.max_connections).unwrap_or(0);
    places.count() >= limit
}

/// Where the plan is full, an offer that nobody used makes room.
fn unused_offer(entitlement: &Entitlement) -> Option<&LiveConnection> {
    let mut live = entitlement.live.iter();
    live.find(|live| live.is_offer && live.holds_place)
        .filter(|_| is_full(entitlement))
}

/// What a new connection gets of the person's quota, if there is one.
pub(super) fn opening(entitlement: &Entitlement) -> Result<Option<NewLease>, ApiError> {
    let Some(monthly) = entitlement.quota else {
        return Ok(None);
    };
    let others = entitlement.live.len();
    let lease = shares::open(monthly.quota, others, monthly.outstanding);
    let lease = lease.ok_or(Code::QuotaExhausted)?;
    Ok(Some(NewLease {
        allowance: lease.allowance,
        share_at: lease.share_at,
        stamp: monthly.stamp,
    }))
}

/// The key of the request or of its device.
fn effective_key(
    request: &Request,
    entitlement: &Entitlement,
) -> Result<Option<PublicKey>, ApiError> {
    if request.device.is_none() {
        return Ok(request.public_key);
    }
    let device_key = entitlement.device_key.ok_or(Code::DeviceNotFound)?;
    match request.public_key {
        Some(key) if key != device_key => Err(ApiError::invalid(
            "client_public_key",
            "Is not the key of this device",
        )),
        _ => Ok(Some(device_key)),
    }
}

/// The live connection that this very request made before.
fn repeated<'a>(
    request: &Request,
    entitlement: &'a Entitlement,
) -> Result<Option<&'a LiveConnection>, ApiError> {
    let (Some(key), Some(stored)) = (&request.idempotency_key, request.stored_key()) else {
        return Ok(None);
    };
    let holder = entitlement.live.iter().find(|live| {
        let theirs = live.idempotency_key.as_deref();
        theirs
            .and_then(|theirs| theirs.split_once(':'))
            .map(|(_, key)| key)
            == Some(key)
    });
    match holder {
        Some(live) if live.idempotency_key.as_ref() != Some(&stored) => {
            Err(ApiError::new(Code::Conflict)
                .with_message("This Idempotency-Key was used with a different request"))
        }
        holder => Ok(holder),
    }
}

/// The live connections with this key, the newest first.
fn same_key(
    entitlement: &Entitlement,
    key: PublicKey,
) -> impl Iterator<Item = &LiveConnection> + Clone {
    let mut same: Vec<_> = entitlement
        .live
        .iter()
        .filter(|live| live.public_key == key)
        .collect();
    same.sort_by_key(|live| std::cmp::Reverse(live.id));
    same.into_iter()
}

impl Request {
    /// The idempotency key as it is stored: behind a fingerprint of what was asked for, so that the
    /// same key with another request is noticed.
    pub(super) fn stored_key(&self) -> Option<String> {
        let key = self.idempotency_key.as_ref()?;
        let asked = format!(
            "{:?} {:?} {:?} {:?}",
            self.server, self.public_key, self.device, self.location
        );
        let fingerprint = Sha256::digest(asked.as_bytes());
        let fingerprint = fingerprint.get(..8).unwrap_or_default();
        Some(format!("{}:{key}", hex::encode(fingerprint)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnels::bounds::Bounds;
    use crate::tunnels::store::Rates;

    const KEY: PublicKey = PublicKey::from_bytes([1; 32]);
    const OTHER_KEY: PublicKey = PublicKey::from_bytes([2; 32]);

    fn live(public_key: PublicKey) -> LiveConnection {
        LiveConnection {
            id: ConnectionId::generate(),
            server: Some(ServerId::generate()),
            status: Status::Connected,
            public_key,
            idempotency_key: None,
            holds_place: true,
            is_offer: false,
            supersedes: None,
        }
    }

    fn entitlement(max_connections: i32, live: Vec<LiveConnection>) -> Entitlement {
        Entitlement {
            is_active: true,
            bounds: Bounds {
                tier: 0,
                lasting_tier: 0,
                max_connections,
                ends_at: None,
            },
            device_key: None,
            rates: Rates::default(),
            quota: None,
            live,
        }
    }

    fn with_key(public_key: PublicKey) -> Request {
        Request {
            public_key: Some(public_key),
            ..Request::default()
        }
    }

    fn code(result: Result<Decision, ApiError>) -> Code {
        result.expect_err("refused").code()
    }

    #[test]
    fn a_suspended_account_gets_nothing() {
        let entitlement = Entitlement {
            is_active: false,
            ..entitlement(1, vec![])
        };
        let refused = decide(&Request::default(), &entitlement, |_| true);
        assert_eq!(code(refused), Code::AccountSuspended);
    }

    #[test]
    fn without_a_key_a_pair_is_made() {
        let decision = decide(&Request::default(), &entitlement(1, vec![]), |_| true);
        assert_eq!(
            decision.expect("allowed"),
            Decision::Connect {
                public_key: None,
                replaces: None
            }
        );
    }

    #[test]
    fn the_plan_limits_connections() {
        let full = entitlement(1, vec![live(OTHER_KEY)]);
        assert_eq!(
            code(decide(&with_key(KEY), &full, |_| true)),
            Code::ConnectionLimit
        );
        let moving = LiveConnection {
            holds_place: false,
            ..live(OTHER_KEY)
        };
        let free = entitlement(1, vec![moving]);
        assert!(decide(&with_key(KEY), &free, |_| true).is_ok());
    }

    #[test]
    fn the_same_key_finds_its_connection_or_moves_it() {
        let mine = live(KEY);
        let full = entitlement(1, vec![mine.clone()]);
        let there = decide(&with_key(KEY), &full, |_| true).expect("allowed");
        assert_eq!(there, Decision::Existing(mine.id));
        let moved = decide(&with_key(KEY), &full, |_| false).expect("allowed");
        assert_eq!(
            moved,
            Decision::Connect {
                public_key: Some(KEY),
                replaces: Some(mine.id)
            }
        );
    }

    #[test]
    fn in_the_middle_of_a_move_the_newer_one_counts() {
        let old = LiveConnection {
            holds_place: false,
            ..live(KEY)
        };
        let moving = |status| LiveConnection {
            status,
            supersedes: Some(old.id),
            ..live(KEY)
        };
        for (status, reason) in [
            (Status::Connected, EndReason::Moved),
            (Status::Connecting, EndReason::Abandoned),
        ] {
            let new = moving(status);
            let both = entitlement(1, vec![old.clone(), new.clone()]);
            let decide = |fits: &dyn Fn(&LiveConnection) -> bool| {
                decide(&with_key(KEY), &both, fits).expect("allowed")
            };
            assert_eq!(decide(&|_| true), Decision::Existing(new.id));
            // The old one is nobody's answer, wherever it is.
            let ends = match reason {
                EndReason::Moved => old.id,
                _ => new.id,
            };
            let end = Decision::End(ends, reason);
            assert_eq!(decide(&|live| live.id == old.id), end);
            assert_eq!(decide(&|_| false), end);
        }
        // Its successor ended without giving the place back.
        let alone = entitlement(1, vec![old.clone()]);
        let decision = decide(&with_key(KEY), &alone, |_| true).expect("allowed");
        assert_eq!(decision, Decision::End(old.id, EndReason::Moved));
    }

    #[test]
    fn an_offer_is_taken_or_left() {
        let old = live(KEY);
        let offer = LiveConnection {
            holds_place: false,
            is_offer: true,
            supersedes: Some(old.id),
            ..live(KEY)
        };
        let both = entitlement(1, vec![old.clone(), offer.clone()]);
        let anywhere = decide(&with_key(KEY), &both, |_| true).expect("allowed");
        assert_eq!(anywhere, Decision::Existing(offer.id));
        let at_the_old = decide(&with_key(KEY), &both, |live| live.id == old.id);
        assert_eq!(at_the_old.expect("allowed"), Decision::Existing(old.id));
        let elsewhere = decide(&with_key(KEY), &both, |_| false).expect("allowed");
        assert_eq!(
            elsewhere,
            Decision::Connect {
                public_key: Some(KEY),
                replaces: Some(old.id)
            }
        );
        let another = decide(&with_key(OTHER_KEY), &both, |_| true);
        assert_eq!(code(another), Code::ConnectionLimit);
    }

    #[test]
    fn an_offer_that_outlived_its_cause_makes_room() {
        let offer = LiveConnection {
            is_offer: true,
            ..live(KEY)
        };
        let replaced = |limit, key| {
            let full = entitlement(limit, vec![offer.clone()]);
            match decide(&with_key(key), &full, |_| false).expect("allowed") {
                Decision::Connect { replaces, .. } => replaces,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(replaced(1, OTHER_KEY), Some(offer.id));
        assert_eq!(replaced(1, KEY), Some(offer.id));
        assert_eq!(replaced(2, OTHER_KEY), None);
    }

    #[test]
    fn a_device_brings_its_key() {
        let request = Request {
            device: Some(DeviceId::generate()),
            ..Request::default()
        };
        let unknown = entitlement(1, vec![]);
        assert_eq!(
            code(decide(&request, &unknown, |_| true)),
            Code::DeviceNotFound
        );

        let known = Entitlement {
            device_key: Some(KEY),
            ..unknown
        };
        assert_eq!(
            decide(&request, &known, |_| true).expect("allowed"),
            Decision::Connect {
                public_key: Some(KEY),
                replaces: None
            }
        );
        let mismatch = Request {
            public_key: Some(OTHER_KEY),
            ..request
        };
        assert_eq!(
            code(decide(&mismatch, &known, |_| true)),
            Code::InvalidInput
        );
    }

    #[test]
    fn an_idempotency_key_repeats_or_replaces_or_conflicts() {
        let idempotent = |request: Request| Request {
            idempotency_key: Some("a:b".to_owned()),
            ..request
        };
        let made_by = |request: &Request, key| LiveConnection {
            idempotency_key: request.stored_key(),
            ..live(key)
        };
        let (ours, theirs) = (idempotent(with_key(KEY)), idempotent(Request::default()));

        let repeated = made_by(&ours, KEY);
        let full = entitlement(1, vec![repeated.clone()]);
        assert_eq!(
            decide(&ours, &full, |_| false).expect("allowed"),
            Decision::Existing(repeated.id)
        );
        assert_eq!(code(decide(&theirs, &full, |_| true)), Code::Conflict);

        let unrepeatable = made_by(&theirs, OTHER_KEY);
        let full = entitlement(1, vec![unrepeatable.clone()]);
        assert_eq!(
            decide(&theirs, &full, |_| true).expect("allowed"),
            Decision::Connect {
                public_key: None,
                replaces: Some(unrepeatable.id)
            }
        );
        let elsewhere = Request {
            location: Some("us-east".to_owned()),
            ..theirs
        };
        assert_eq!(code(decide(&elsewhere, &full, |_| true)), Code::Conflict);
    }
}
