//! What callers ask for, and whether it is theirs.

use actix_web::HttpRequest;
use chrono::{DateTime, TimeDelta, Utc};
use garde::Validate;
use serde::Deserialize;
use shared::ids::{ServerId, UserId};
use utoipa::IntoParams;
use uuid::Uuid;

use super::answer::Format;
use super::period::{Interval, Period};
use crate::app::AppState;
use crate::error::{ApiError, Code};
use crate::http::permission::{OwnOr, ReadAnalytics};

/// Whose rollups: one user's or all users', on one server or on all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) user: Option<UserId>,
    pub(super) server: Option<ServerId>,
}

/// 31 days, in buckets that may begin before the first and end after the last.
const LONGEST_LIST: TimeDelta = TimeDelta::days(33);

/// A period in buckets.
#[derive(Debug, Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PeriodQuery {
    /// The first moment; its whole bucket counts. Without it a day of hours, 30 days or twelve months.
    #[garde(skip)]
    #[param(example = "2026-11-01T00:00:00Z", nullable = false)]
    from: Option<DateTime<Utc>>,
    /// The first moment after; now, where nobody says it.
    #[garde(skip)]
    #[param(example = "2026-12-01T00:00:00Z", nullable = false)]
    to: Option<DateTime<Utc>>,
    /// Hours of at most 31 days, as far back as hours are kept; days of at most 731, where nobody says it; months of
    /// at most five years.
    #[garde(skip)]
    #[param(inline, nullable = false)]
    interval: Option<Interval>,
}

/// The form of the answer.
#[derive(Debug, Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct FormatQuery {
    /// `csv` for a table of `data`; otherwise `Accept` says it.
    #[garde(skip)]
    #[param(inline, nullable = false)]
    format: Option<Format>,
}

impl PeriodQuery {
    pub(crate) fn period(&self, state: &AppState, now: DateTime<Utc>) -> Result<Period, ApiError> {
        let interval = self.interval.unwrap_or_default();
        let kept = state.config().analytics.hours_kept;
        Period::of(interval, self.from, self.to, now, kept)
    }

    /// The same for what is added up user by user: no longer than hours may be asked for.
    pub(super) fn list_period(
        &self,
        state: &AppState,
        now: DateTime<Utc>,
    ) -> Result<Period, ApiError> {
        let period = self.period(state, now)?;
        if period.to - period.from > LONGEST_LIST {
            return Err(ApiError::invalid("from", "At most 31 days before `to`"));
        }
        Ok(period)
    }
}

impl FormatQuery {
    pub(super) fn of(&self, request: &HttpRequest) -> Format {
        Format::of(self.format, request)
    }
}

/// Whose of it.
#[derive(Debug, Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ScopeQuery {
    /// For support: one user's. Without it everybody's.
    #[garde(skip)]
    #[param(nullable = false)]
    user_id: Option<Uuid>,
    /// Over one server.
    #[garde(skip)]
    #[param(nullable = false)]
    server_id: Option<Uuid>,
}

impl ScopeQuery {
    /// A person has their own; whoever may read analytics has anybody's, or everybody's.
    pub(super) fn scope(&self, caller: &OwnOr<ReadAnalytics>) -> Result<Scope, ApiError> {
        let asked = self.user_id.map(UserId);
        let user = match caller {
            OwnOr::Own(user) if asked.is_some_and(|asked| asked != *user) => {
                return Err(Code::Forbidden.into());
            }
            OwnOr::Own(user) => Some(*user),
            OwnOr::Allowed(_) => asked,
        };
        Ok(Scope {
            user,
            server: self.server_id.map(ServerId),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_has_their_own_alone() {
        let (me, other) = (UserId::generate(), UserId::generate());
        let caller = OwnOr::Own(me);
        let ask = |user: Option<UserId>| ScopeQuery {
            user_id: user.map(|user| user.0),
            server_id: None,
        };
        for asked in [None, Some(me)] {
            assert_eq!(ask(asked).scope(&caller).unwrap().user, Some(me));
        }
        let error = ask(Some(other)).scope(&caller).unwrap_err();
        assert_eq!(error.code(), Code::Forbidden);
    }
}
