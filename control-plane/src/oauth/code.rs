//! Authorization codes: what a login is exchanged for, and what that is exchanged for in turn. Pure.

use chrono::{DateTime, TimeDelta, Utc};
use shared::ids::UserId;

use super::pkce::Challenge;
use crate::accounts::SessionId;

/// How long an app has to exchange a code.
pub(super) const LIFE: TimeDelta = TimeDelta::seconds(60);

/// A code as it was issued.
#[derive(Debug, Clone)]
pub(super) struct Code {
    pub(super) client: String,
    pub(super) user: UserId,
    pub(super) redirect_uri: String,
    pub(super) challenge: Challenge,
    pub(super) expires_at: DateTime<Utc>,
    pub(super) is_used: bool,
    /// What it was exchanged for.
    pub(super) session: Option<SessionId>,
}

/// What somebody brings with a code.
#[derive(Debug, Clone, Copy)]
pub(super) struct Presented<'a> {
    pub(super) client: &'a str,
    pub(super) redirect_uri: &'a str,
    pub(super) verifier: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    /// It was copied: what it was exchanged for is not safe.
    Replayed,
    /// It belongs to somebody else, to another request, or to the past.
    Refused,
}

impl Code {
    pub(super) fn judge(&self, presented: Presented<'_>, now: DateTime<Utc>) -> Verdict {
        let fits = self.client == presented.client
            && self.redirect_uri == presented.redirect_uri
            && self.challenge.is_met_by(presented.verifier);
        match (self.is_used, fits) {
            (true, _) => Verdict::Replayed,
            (false, true) if now < self.expires_at => Verdict::Good,
            (false, _) => Verdict::Refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const PRESENTED: Presented<'static> = Presented {
        client: "app",
        redirect_uri: "org.example.app:/cb",
        verifier: VERIFIER,
    };

    fn code() -> Code {
        Code {
            client: "app".to_owned(),
            user: UserId::generate(),
            redirect_uri: "org.example.app:/cb".to_owned(),
            challenge: Challenge::parse("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM").unwrap(),
            expires_at: DateTime::UNIX_EPOCH + LIFE,
            is_used: false,
            session: None,
        }
    }

    #[rstest]
    #[case(0, Verdict::Good)]
    #[case(59, Verdict::Good)]
    #[case(60, Verdict::Refused)]
    fn a_code_lives_a_minute(#[case] seconds: i64, #[case] verdict: Verdict) {
        let now = DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds);
        assert_eq!(code().judge(PRESENTED, now), verdict);
    }

    #[rstest]
    #[case::client(Presented { client: "other", ..PRESENTED })]
    #[case::place(Presented { redirect_uri: "org.example.app:/other", ..PRESENTED })]
    #[case::verifier(Presented { verifier: "another-verifier-that-is-long-enough-to-be-one", ..PRESENTED })]
    #[case::no_verifier(Presented { verifier: "", ..PRESENTED })]
    fn a_code_is_worth_nothing_to_others(#[case] presented: Presented<'_>) {
        assert_eq!(
            code().judge(presented, DateTime::UNIX_EPOCH),
            Verdict::Refused
        );
    }

    #[rstest]
    #[case::the_same(PRESENTED, 0)]
    #[case::another(Presented { client: "other", ..PRESENTED }, 0)]
    #[case::late(PRESENTED, 3600)]
    fn a_used_code_was_copied(#[case] presented: Presented<'_>, #[case] seconds: i64) {
        let used = Code {
            is_used: true,
            ..code()
        };
        let now = DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds);
        assert_eq!(used.judge(presented, now), Verdict::Replayed);
    }
}
