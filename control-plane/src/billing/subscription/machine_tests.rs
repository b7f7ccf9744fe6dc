use proptest::prelude::*;
use rstest::rstest;

use super::*;

const POLICY: Policy = Policy {
    grace: TimeDelta::days(7),
    renewal_slack: TimeDelta::hours(24),
    past_due_mbps: Some(2),
};

fn day(day: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(20_000 + day)
}

/// A monthly subscription in its first period.
fn seen(status: StripeStatus) -> Seen {
    Seen {
        plan: "premium_monthly".to_owned(),
        status,
        started_at: day(0),
        period_end: day(30),
        trial_end: None,
        cancel_at_period_end: false,
        ended_at: None,
    }
}

fn held(status: Status, access_until: DateTime<Utc>) -> Subscription {
    Subscription {
        plan: "premium_monthly".to_owned(),
        status,
        started_at: day(0),
        period_end: Some(day(30)),
        trial_end: None,
        cancel_at_period_end: false,
        access_until: Some(access_until),
        throttle_mbps: None,
        lapsed_at: None,
        is_billed: true,
    }
}

/// A grace that ends at day 9.
fn in_grace() -> Subscription {
    held(Status::PastDue, day(9))
}

/// The same once its end was noticed.
fn lapsed() -> Subscription {
    Subscription {
        lapsed_at: Some(day(9)),
        ..in_grace()
    }
}

fn running() -> Subscription {
    held(Status::Active, day(31))
}

fn over() -> Subscription {
    Subscription {
        lapsed_at: Some(day(5)),
        ..held(Status::Canceled, day(5))
    }
}

/// The table of `docs/subscriptions.md`, at day 10.
#[rstest]
#[case::bought(None, StripeStatus::Active, Some((Status::Active, 31)), None)]
#[case::tried(None, StripeStatus::Trialing, Some((Status::Active, 31)), None)]
#[case::first_unpaid(None, StripeStatus::Incomplete, None, None)]
#[case::first_never_paid(None, StripeStatus::IncompleteExpired, None, None)]
#[case::late_failure(None, StripeStatus::PastDue, Some((Status::PastDue, 17)), Some(News::PaymentFailed { until: day(17) }))]
#[case::late_unpaid(None, StripeStatus::Unpaid, Some((Status::PastDue, 10)), None)]
#[case::late_paused(None, StripeStatus::Paused, Some((Status::PastDue, 10)), None)]
#[case::late_end(None, StripeStatus::Canceled, Some((Status::Canceled, 10)), None)]
#[case::renewed(Some(running()), StripeStatus::Active, Some((Status::Active, 31)), None)]
#[case::failed(Some(running()), StripeStatus::PastDue, Some((Status::PastDue, 17)), Some(News::PaymentFailed { until: day(17) }))]
#[case::unpaid_at_once(Some(running()), StripeStatus::Unpaid, Some((Status::PastDue, 10)), Some(News::GraceEnded))]
#[case::paused(Some(running()), StripeStatus::Paused, Some((Status::PastDue, 10)), Some(News::GraceEnded))]
#[case::ended(Some(running()), StripeStatus::Canceled, Some((Status::Canceled, 10)), Some(News::Ended))]
#[case::taken_back(Some(running()), StripeStatus::Incomplete, Some((Status::Canceled, 10)), Some(News::Ended))]
#[case::paid_after_all(Some(in_grace()), StripeStatus::Active, Some((Status::Active, 31)), None)]
#[case::still_failing(Some(held(Status::PastDue, day(12))), StripeStatus::PastDue, Some((Status::PastDue, 12)), None)]
#[case::grace_over(Some(in_grace()), StripeStatus::PastDue, Some((Status::PastDue, 9)), Some(News::GraceEnded))]
#[case::given_up(Some(in_grace()), StripeStatus::Unpaid, Some((Status::PastDue, 9)), Some(News::GraceEnded))]
#[case::ended_in_grace(Some(held(Status::PastDue, day(12))), StripeStatus::Canceled, Some((Status::Canceled, 10)), Some(News::GraceEnded))]
#[case::ended_after_grace(Some(lapsed()), StripeStatus::Canceled, Some((Status::Canceled, 9)), None)]
#[case::paid_too_late(Some(lapsed()), StripeStatus::Active, Some((Status::Active, 31)), None)]
#[case::ended_twice(Some(over()), StripeStatus::Canceled, Some((Status::Canceled, 5)), None)]
#[case::begun_again(Some(over()), StripeStatus::Active, Some((Status::Active, 31)), None)]
fn a_reading_leads_to_a_state(
    #[case] current: Option<Subscription>,
    #[case] status: StripeStatus,
    #[case] next: Option<(Status, i64)>,
    #[case] news: Option<News>,
) {
    let transition = fold(current.as_ref(), &seen(status), &POLICY, day(10));
    let found = transition.next.as_ref();
    assert_eq!(
        found.map(|next| (next.status, next.access_until)),
        next.map(|(status, until)| (status, Some(day(until))))
    );
    assert_eq!(transition.news, news);
    let throttle = found.and_then(|next| next.throttle_mbps);
    let is_past_due = next.is_some_and(|(status, _)| status == Status::PastDue);
    assert_eq!(throttle, is_past_due.then_some(2));
}

#[test]
fn who_cancels_has_the_period_and_who_resumes_goes_on() {
    let canceling = Seen {
        cancel_at_period_end: true,
        ..seen(StripeStatus::Active)
    };
    let canceled = fold(Some(&running()), &canceling, &POLICY, day(10)).next;
    let canceled = canceled.expect("kept");
    assert_eq!(canceled.status, Status::Active);
    assert_eq!(canceled.access_until, Some(day(30)));
    let resumed = fold(
        Some(&canceled),
        &seen(StripeStatus::Active),
        &POLICY,
        day(11),
    );
    assert_eq!(resumed.next, Some(running()));
    // A grace does not outlive what was to end anyway.
    let failing = Seen {
        status: StripeStatus::PastDue,
        period_end: day(12),
        ..canceling
    };
    let failed = fold(Some(&canceled), &failing, &POLICY, day(10)).next;
    assert_eq!(failed.expect("kept").access_until, Some(day(12)));
}

#[test]
fn another_plan_is_the_same_subscription() {
    let yearly = Seen {
        plan: "premium_yearly".to_owned(),
        period_end: day(365),
        ..seen(StripeStatus::Active)
    };
    let next = fold(Some(&running()), &yearly, &POLICY, day(10)).next;
    let next = next.expect("kept");
    assert_eq!(next.plan, "premium_yearly");
    assert_eq!(next.access_until, Some(day(366)));
}

#[test]
fn a_trial_is_paid_time() {
    let trial = Seen {
        status: StripeStatus::Trialing,
        period_end: day(14),
        trial_end: Some(day(14)),
        ..seen(StripeStatus::Trialing)
    };
    let next = fold(None, &trial, &POLICY, day(1)).next.expect("kept");
    assert!(entitles(&next, day(14)));
    assert!(!entitles(&next, day(15)));
    assert_eq!(next.trial_end, Some(day(14)));
}

#[test]
fn time_ends_rights_and_tells_once() {
    let granted = Subscription {
        is_billed: false,
        ..running()
    };
    let canceling = Subscription {
        cancel_at_period_end: true,
        ..running()
    };
    for (current, status, news) in [
        (in_grace(), Status::PastDue, Some(News::GraceEnded)),
        (canceling, Status::Active, Some(News::Ended)),
        // Stripe is late, and may have been paid.
        (running(), Status::Active, None),
        (granted, Status::Canceled, Some(News::Ended)),
    ] {
        let end = current.access_until.expect("an end");
        assert_eq!(lapse(&current, end - TimeDelta::seconds(1)), None);
        let transition = lapse(&current, end).expect("it is over");
        let next = transition.next.expect("kept");
        assert_eq!((next.status, transition.news), (status, news));
        assert_eq!(lapse(&next, end + TimeDelta::days(1)), None);
        let later = fold(Some(&next), &seen(StripeStatus::Canceled), &POLICY, day(40));
        assert_eq!(later.news, None);
    }
    let free = Subscription {
        access_until: None,
        ..running()
    };
    assert_eq!(lapse(&free, day(4_000)), None);
}

fn statuses() -> impl Strategy<Value = StripeStatus> {
    prop::sample::select(vec![
        StripeStatus::Incomplete,
        StripeStatus::IncompleteExpired,
        StripeStatus::Trialing,
        StripeStatus::Active,
        StripeStatus::PastDue,
        StripeStatus::Unpaid,
        StripeStatus::Paused,
        StripeStatus::Canceled,
    ])
}

prop_compose! {
    fn readings()(status in statuses(), period in 1..4_i64, cancel in any::<bool>(), ended in 0..40_i64) -> Seen {
        Seen {
            period_end: day(30 * period),
            cancel_at_period_end: cancel,
            ended_at: (status == StripeStatus::Canceled).then(|| day(ended)),
            ..seen(status)
        }
    }
}

/// A reading, and how many hours after the last one it was made.
fn histories() -> impl Strategy<Value = Vec<(Seen, i64)>> {
    prop::collection::vec((readings(), 0..200_i64), 0..12)
}

struct Life {
    now: DateTime<Utc>,
    state: Option<Subscription>,
    news: Vec<News>,
}

/// Lives through a history, looked at by time before every reading.
fn live(history: &[(Seen, i64)]) -> Life {
    let mut life = Life {
        now: day(0),
        state: None,
        news: Vec::new(),
    };
    for (seen, hours) in history {
        life.now += TimeDelta::hours(*hours);
        if let Some(lapsed) = life.state.as_ref().and_then(|it| lapse(it, life.now)) {
            life.news.extend(lapsed.news);
            life.state = lapsed.next;
        }
        let read = fold(life.state.as_ref(), seen, &POLICY, life.now);
        life.news.extend(read.news);
        life.state = read.next.or(life.state);
    }
    life
}

/// All but when something was noticed.
fn facts(state: Option<&Subscription>) -> Option<Subscription> {
    state.map(|state| Subscription {
        lapsed_at: None,
        ..state.clone()
    })
}

proptest! {
    #[test]
    fn a_second_reading_changes_nothing(history in histories(), seen in readings(), later in 0..500_i64) {
        let mut history = history;
        history.push((seen.clone(), 0));
        let life = live(&history);
        let again = fold(life.state.as_ref(), &seen, &POLICY, life.now);
        prop_assert_eq!(&again.next, &life.state);
        prop_assert_eq!(again.news, None);
        // Nor does a late one, but for noticing that rights are over.
        let late = fold(life.state.as_ref(), &seen, &POLICY, life.now + TimeDelta::hours(later));
        prop_assert_eq!(facts(late.next.as_ref()), facts(life.state.as_ref()));
    }

    #[test]
    fn what_was_read_before_does_not_matter(history in histories(), last in readings()) {
        // A grace is remembered, and so is when access was lost; everything else is not.
        prop_assume!(matches!(last.status, StripeStatus::Active | StripeStatus::Trialing | StripeStatus::Canceled));
        let mut whole = history;
        whole.push((last.clone(), 1_000));
        let life = live(&whole);
        let alone = fold(None, &last, &POLICY, life.now);
        prop_assert_eq!(facts(life.state.as_ref()), facts(alone.next.as_ref()));
    }

    #[test]
    fn failing_longer_prolongs_nothing(history in histories(), failing in prop::collection::vec(0..100_i64, 1..20)) {
        let mut history = history;
        history.push((seen(StripeStatus::Active), 0));
        let first = live(&history).now;
        history.extend(failing.into_iter().map(|hours| (seen(StripeStatus::PastDue), hours)));
        let life = live(&history);
        let first_failure = first + TimeDelta::hours(history.iter().rev()
            .take_while(|(seen, _)| seen.status == StripeStatus::PastDue).last().map_or(0, |(_, hours)| *hours));
        let until = life.state.as_ref().and_then(|state| state.access_until);
        prop_assert_eq!(until, Some(first_failure + POLICY.grace));
    }

    #[test]
    fn nobody_has_rights_that_stripe_does_not_grant(history in histories(), last in readings()) {
        let mut history = history;
        history.push((last.clone(), 0));
        let life = live(&history);
        let has_rights = life.state.as_ref().is_some_and(|state| entitles(state, life.now));
        match last.status {
            StripeStatus::Active | StripeStatus::Trialing => {
                let until = last.period_end + if last.cancel_at_period_end { TimeDelta::zero() } else { POLICY.renewal_slack };
                prop_assert_eq!(has_rights, life.now < until);
            }
            StripeStatus::PastDue => {}
            _ => prop_assert!(!has_rights),
        }
    }

    #[test]
    fn an_end_is_told_once_for_each_beginning(history in histories()) {
        let life = live(&history);
        let ends = life.news.iter().filter(|news| matches!(news, News::GraceEnded | News::Ended)).count();
        let begins = history.iter().filter(|(seen, _)| matches!(
            seen.status,
            StripeStatus::Active | StripeStatus::Trialing | StripeStatus::PastDue
        )).count();
        prop_assert!(ends <= begins);
    }
}
