//! How much of a payment may go back, and to whom. Pure.

use chrono::{DateTime, TimeDelta, Utc};

use crate::billing::invoices::{PaymentStatus, Seen};
use crate::billing::money::Money;
use crate::error::{ApiError, Code};

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Payer,
    Operator,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    NotPaid,
    NothingLeft,
    TooMuch,
    /// The payer has all of it back, or nothing.
    OnlyWhole,
    WindowOver,
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotPaid => Code::PaymentNotRefundable.into(),
            Refusal::NothingLeft => Code::AlreadyRefunded.into(),
            Refusal::TooMuch => Code::RefundTooLarge.into(),
            Refusal::WindowOver => Code::RefundWindowOver.into(),
            Refusal::OnlyWhole => Self::invalid(
                "amount",
                "Must be left out, or be the whole amount of the payment",
            ),
        }
    }
}

/// What goes back when this much is asked for, or all that is left. `standing` is what goes back already.
pub(super) fn granted(
    payment: &Seen,
    standing: i64,
    asked: Option<i64>,
    by: By,
    window: TimeDelta,
    now: DateTime<Utc>,
) -> Result<Money, Refusal> {
    let Money { minor, currency } = payment.amount;
    let paid_at = payment.paid_at.filter(|_| minor > 0);
    let (PaymentStatus::Succeeded, Some(paid_at)) = (payment.status, paid_at) else {
        return Err(Refusal::NotPaid);
    };
    let left = minor.saturating_sub(standing);
    if left <= 0 || by == By::Payer && standing > 0 {
        return Err(Refusal::NothingLeft);
    }
    if by == By::Payer && now - paid_at >= window {
        return Err(Refusal::WindowOver);
    }
    let asked = asked.unwrap_or(left);
    if asked > left {
        return Err(Refusal::TooMuch);
    }
    if by == By::Payer && asked != minor {
        return Err(Refusal::OnlyWhole);
    }
    Ok(Money {
        minor: asked,
        currency,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::billing::money::Currency;

    const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;

    fn payment(status: PaymentStatus, minor: i64, days_ago: i64) -> Seen {
        let at = NOW - TimeDelta::days(days_ago);
        let currency = Currency::USD;
        Seen {
            amount: Money { minor, currency },
            tax: 0,
            status,
            period: None,
            created_at: at,
            paid_at: (status == PaymentStatus::Succeeded).then_some(at),
        }
    }

    fn ask(seen: &Seen, standing: i64, asked: Option<i64>, by: By) -> Result<i64, Refusal> {
        let granted = granted(seen, standing, asked, by, TimeDelta::days(14), NOW);
        granted.map(|money| money.minor)
    }

    #[rstest]
    #[case(By::Payer, 0, None, Ok(999))]
    #[case(By::Payer, 0, Some(999), Ok(999))]
    #[case(By::Payer, 0, Some(998), Err(Refusal::OnlyWhole))]
    #[case(By::Payer, 0, Some(1_000), Err(Refusal::TooMuch))]
    #[case(By::Payer, 1, None, Err(Refusal::NothingLeft))]
    #[case(By::Operator, 0, Some(400), Ok(400))]
    #[case(By::Operator, 400, None, Ok(599))]
    #[case(By::Operator, 400, Some(600), Err(Refusal::TooMuch))]
    #[case(By::Operator, 999, None, Err(Refusal::NothingLeft))]
    #[case(By::Operator, 2_000, Some(1), Err(Refusal::NothingLeft))]
    #[case(By::Operator, 0, Some(i64::MAX), Err(Refusal::TooMuch))]
    fn what_goes_back(
        #[case] by: By,
        #[case] standing: i64,
        #[case] asked: Option<i64>,
        #[case] expected: Result<i64, Refusal>,
    ) {
        let seen = payment(PaymentStatus::Succeeded, 999, 13);
        assert_eq!(ask(&seen, standing, asked, by), expected);
    }

    #[rstest]
    #[case(13, By::Payer, Ok(999))]
    #[case(14, By::Payer, Err(Refusal::WindowOver))]
    #[case(400, By::Operator, Ok(999))]
    fn the_payers_time_ends(
        #[case] days: i64,
        #[case] by: By,
        #[case] expected: Result<i64, Refusal>,
    ) {
        let seen = payment(PaymentStatus::Succeeded, 999, days);
        assert_eq!(ask(&seen, 0, None, by), expected);
    }

    #[rstest]
    #[case(PaymentStatus::Open, 999)]
    #[case(PaymentStatus::Failed, 999)]
    #[case(PaymentStatus::Void, 999)]
    #[case(PaymentStatus::Succeeded, 0)]
    fn what_was_not_paid_cannot_go_back(#[case] status: PaymentStatus, #[case] minor: i64) {
        let seen = payment(status, minor, 0);
        for by in [By::Payer, By::Operator] {
            assert_eq!(ask(&seen, 0, None, by), Err(Refusal::NotPaid));
        }
    }

    proptest! {
        #[test]
        fn never_more_than_was_paid(
            minor in 0_i64..100_000_000,
            standing in 0_i64..200_000_000,
            asked in proptest::option::of(1_i64..i64::MAX),
            is_payer: bool,
        ) {
            let by = if is_payer { By::Payer } else { By::Operator };
            let seen = payment(PaymentStatus::Succeeded, minor, 0);
            if let Ok(granted) = ask(&seen, standing, asked, by) {
                prop_assert!(granted > 0 && standing + granted <= minor);
            }
        }
    }
}
