//! Guessing the password of one account, from one place or from any number of them.
//!
//! Every try counts before its password is hashed: with the tries at its place, and, where the account does
//! not know the place, with all tries at places that it does not know. The second window is what stops a
//! crowd. It neither counts nor refuses what comes from a place where the account logged in before, so that
//! no stranger can shut an owner out of there; the way in from anywhere else is a password reset.
//!
//! Accounts are named by a keyed hash of the address as it was typed. Whether anybody has it makes no
//! difference here.

use std::fmt;
use std::future::{Ready, ready};
use std::rc::Rc;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};
use aws_lc_rs::hmac;
use shared::ids::UserId;

use super::limiter::{Asked, Key};
use super::window::Standing;
use super::{Client, Guard, Kind, Lane, Subject, key, octets, short};
use crate::app::AppState;
use crate::config::AccountLimits;
use crate::error::{ApiError, Code};

/// What the key of this module is derived for.
const KEY_LABEL: &[u8] = b"accounts";

/// Who tries a password, and the way to the limits of the worker that serves them.
#[derive(Debug)]
pub(crate) struct Caller {
    lane: Rc<Lane>,
    /// None where no limit is meant for them.
    subject: Option<Subject>,
}

/// An account that may exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Account([u8; 16]);

/// Where somebody is, as their account remembers it. It tells neither the address nor whether two accounts
/// have one in common.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct LoginPlace([u8; 16]);

/// A try that may go on to the hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Try {
    /// It was the last that strangers had for now: somebody is guessing.
    pub(crate) is_last: bool,
}

/// A try that may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Seconds.
    wait: u64,
    /// Strangers have used up what they have.
    pub(crate) by_crowd: bool,
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        Self::new(Code::RateLimited)
            .with_message("Too many tries; wait, or ask for a new password")
            .with_retry_after(refused.wait)
    }
}

impl Guard {
    /// The account that an address names. The address is normalised as those are that are stored.
    pub(crate) fn account(&self, address: &str) -> Account {
        Account(self.named(b'a', &[address.as_bytes()]))
    }

    /// Where a person calls from; none for who is not limited.
    pub(crate) fn place(&self, caller: &Caller, user: UserId) -> Option<LoginPlace> {
        let octets = octets(caller.subject?);
        let name = self.named(b'p', &[user.0.as_bytes(), &octets]);
        Some(LoginPlace(name))
    }

    /// Counts a try of an account's password, or refuses it.
    pub(crate) async fn try_password(
        &self,
        caller: &Caller,
        account: Account,
        is_known: bool,
    ) -> Result<Try, Refused> {
        let Some(tries) = self.tries(caller, account) else {
            return Ok(Try { is_last: false });
        };
        let asked = windows(&self.config.account, tries, account, is_known);
        let standings = caller.lane.take(&asked).await;
        judge(&standings).inspect_err(|_| {
            metrics::counter!("guard_refused_total", "why" => "account").increment(1);
            self.alerts.refused();
        })
    }

    /// Takes note that strangers have used up the tries of somebody's password.
    pub(crate) fn guessed(&self, user: UserId) {
        self.alerts.guessed(user);
    }

    /// Forgets the tries at a place where it turned out to be the account's owner who tried.
    pub(crate) async fn proved(&self, caller: &Caller, account: Account) {
        if let Some(tries) = self.tries(caller, account) {
            caller.lane.forget(tries).await;
        }
    }

    /// The window of an account's tries at the caller's place, if they are limited.
    fn tries(&self, caller: &Caller, account: Account) -> Option<Key> {
        let subject = caller.subject.filter(|_| self.config.limits_enabled)?;
        let name = self.named(b'w', &[&account.0, &octets(subject)]);
        Some(key(Kind::Tries, name))
    }

    /// `sort` tells apart what is named, all of which but its end has one length.
    fn named(&self, sort: u8, parts: &[&[u8]]) -> [u8; 16] {
        let mut context = hmac::Context::with_key(&self.accounts);
        context.update(&[sort]);
        for part in parts {
            context.update(part);
        }
        short(context.sign())
    }
}

/// The key of this module, below the guard's own.
pub(super) fn key_below(mask: &hmac::Key) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(mask, KEY_LABEL).as_ref())
}

/// What a try counts in: its place's window first.
fn windows(limits: &AccountLimits, tries: Key, account: Account, is_known: bool) -> Vec<Asked> {
    let here = Asked {
        key: tries,
        limit: limits.place,
    };
    let everywhere = Asked {
        key: key(Kind::StrangersTries, account.0),
        limit: limits.strangers,
    };
    if is_known {
        vec![here]
    } else {
        vec![here, everywhere]
    }
}

/// Whether a try may go on, or after how many seconds the next one may.
fn judge(standings: &[Standing]) -> Result<Try, Refused> {
    match standings.iter().filter_map(|it| it.wait_ms).max() {
        Some(wait) => Err(Refused {
            wait: wait.max(1).div_ceil(1000),
            by_crowd: standings.get(1).is_some_and(|all| all.wait_ms.is_some()),
        }),
        None => Ok(Try {
            is_last: standings.get(1).is_some_and(|all| all.remaining == 0),
        }),
    }
}

impl LoginPlace {
    pub(crate) const fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for LoginPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It stands for an address, and those are in no log.
        f.write_str("LoginPlace(_)")
    }
}

impl FromRequest for Caller {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(caller(request).ok_or_else(|| ApiError::internal("the application has no limits")))
    }
}

fn caller(request: &HttpRequest) -> Option<Caller> {
    let state = request.app_data::<web::Data<AppState>>()?;
    let lane = Rc::clone(request.app_data::<Rc<Lane>>()?);
    let proxies = &state.config().http.trusted_proxies;
    let client = request
        .peer_addr()
        .map(|peer| Client::of(peer.ip(), request.headers(), proxies))
        .filter(|client| !state.guard().is_whitelisted(client));
    Some(Caller {
        lane,
        subject: client.map(|client| Subject::of(client.address)),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rstest::rstest;

    use super::*;
    use crate::config::Limit;
    use crate::guard::window::Window;

    const LIMITS: AccountLimits = AccountLimits {
        place: Limit::new(2, Duration::from_secs(60), 0),
        strangers: Limit::new(3, Duration::from_secs(600), 0),
    };

    fn standing(remaining: u32, wait_ms: Option<u64>) -> Standing {
        Standing {
            remaining,
            reset_ms: 0,
            wait_ms,
        }
    }

    #[rstest]
    #[case::room(&[standing(1, None), standing(1, None)], Ok(Try { is_last: false }))]
    #[case::last_of_all(&[standing(1, None), standing(0, None)], Ok(Try { is_last: true }))]
    #[case::last_here(&[standing(0, None), standing(1, None)], Ok(Try { is_last: false }))]
    #[case::last_at_a_known_place(&[standing(0, None)], Ok(Try { is_last: false }))]
    #[case::here(&[standing(0, Some(1)), standing(1, None)], refused(1, false))]
    #[case::everywhere(&[standing(1, None), standing(0, Some(1001))], refused(2, true))]
    #[case::the_longer(&[standing(0, Some(5000)), standing(0, Some(3000))], refused(5, true))]
    #[case::at_once(&[standing(0, Some(0))], refused(1, false))]
    fn the_fuller_window_speaks(
        #[case] standings: &[Standing],
        #[case] verdict: Result<Try, Refused>,
    ) {
        assert_eq!(judge(standings), verdict);
    }

    const fn refused(wait: u64, by_crowd: bool) -> Result<Try, Refused> {
        Err(Refused { wait, by_crowd })
    }

    /// As the limiter does: all windows or none.
    fn take(windows: &mut [(Key, Window)], asked: &[Asked], now: u64) -> Result<Try, Refused> {
        let mut standings = Vec::new();
        for asked in asked {
            let (_, window) = windows.iter_mut().find(|it| it.0 == asked.key).unwrap();
            standings.push(window.look(&asked.limit, now));
        }
        if standings.iter().all(|it| it.wait_ms.is_none()) {
            for (asked, standing) in asked.iter().zip(&mut standings) {
                let (_, window) = windows.iter_mut().find(|it| it.0 == asked.key).unwrap();
                window.count(now);
                standing.remaining -= 1;
            }
        }
        judge(&standings)
    }

    #[test]
    fn a_crowd_is_stopped_and_a_known_place_is_not() {
        let account = Account([7; 16]);
        let place = |number| key(Kind::Tries, [number; 16]);
        let mut kept: Vec<_> = (0..9).map(|it| (place(it), Window::default())).collect();
        kept.push((key(Kind::StrangersTries, account.0), Window::default()));
        let mut attempt = |number, is_known, now| {
            let asked = windows(&LIMITS, place(number), account, is_known);
            take(&mut kept, &asked, now)
        };
        let lasts: Vec<_> = (1..=3)
            .map(|number| attempt(number, false, 0).unwrap().is_last)
            .collect();
        assert_eq!(lasts, [false, false, true]);
        let all = refused(600, true);
        assert_eq!(attempt(4, false, 0), all, "whoever else it is");
        // The owner has what a place has, and neither counts with the others nor makes room for them.
        for wait in [None, None, Some(60)] {
            assert_eq!(attempt(0, true, 0).err().map(|it| it.wait), wait);
        }
        assert_eq!(attempt(4, false, 599_999), refused(1, true));
        assert!(attempt(4, false, 600_000).is_ok());
    }

    #[test]
    fn one_place_does_not_use_up_what_all_have() {
        let account = Account([7; 16]);
        let place = |number| key(Kind::Tries, [number; 16]);
        let mut kept: Vec<_> = (0..2).map(|it| (place(it), Window::default())).collect();
        kept.push((key(Kind::StrangersTries, account.0), Window::default()));
        let mut attempt = |number| {
            let asked = windows(&LIMITS, place(number), account, false);
            take(&mut kept, &asked, 0)
        };
        let passed = (0..50).filter(|_| attempt(0).is_ok()).count();
        assert_eq!(passed, 2);
        assert_eq!(attempt(1), Ok(Try { is_last: true }));
    }
}
