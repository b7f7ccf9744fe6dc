//! What a person is told of their subscription, and by mail.

use chrono::{DateTime, TimeDelta, Utc};
use control_plane::billing::subscription::{Seen, StripeStatus};
use serde_json::{Value, json};
use tests::api::Client;
use tests::{TestApp, wait_until};

use super::{hours, seen};
use crate::SOON;

const PATH: &str = "/api/v1/subscriptions/status";

async fn status(user: &Client) -> Value {
    user.get(PATH).await.expect(200).json()
}

fn time(value: &Value) -> DateTime<Utc> {
    let text = value.as_str().expect("a time");
    text.parse().expect("RFC 3339")
}

async fn subjects(app: &TestApp) -> Vec<String> {
    let mails = app.mails_to("user0@example.org").await;
    let subjects = mails.iter().map(|mail| mail.header("subject").to_owned());
    subjects.collect()
}

/// As if what the person paid for were over.
async fn let_time_pass(app: &TestApp, user: &Client) {
    let sql = format!(
        "UPDATE subscriptions SET access_until = now() - interval '1 second'
          WHERE status <> 'canceled' AND user_id = '{}'",
        user.user()
    );
    app.db().execute(&sql).await;
    let unnoticed = "SELECT count(*) FROM subscriptions
         WHERE status <> 'canceled' AND access_until <= now() AND lapsed_at IS NULL";
    wait_until("its end is noticed", SOON, async || {
        app.db().number(unnoticed).await == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_free_plan_does_not_end() {
    let app = TestApp::start().await;
    let user = app.user_on("free").await;
    let answer = status(&user).await;
    assert!(answer["start_date"].is_string());
    let expected = json!({
        "plan_type": "free", "plan": "free", "status": "active", "start_date": answer["start_date"],
        "end_date": null, "trial_end": null, "cancel_at_period_end": false, "auto_renew": false,
        "access_until": null, "effective_plan": "free", "throttle_mbps": null,
    });
    assert_eq!(answer, expected);
    let alias = user.get("/subscriptions/status").await.expect(200).json();
    assert_eq!(alias, expected);
    app.db().execute("DELETE FROM subscriptions").await;
    let nothing = status(&user).await;
    assert_eq!(nothing["plan"], "free");
    assert_eq!(nothing["start_date"], Value::Null);
    app.client()
        .get(PATH)
        .await
        .expect_error(401, "UNAUTHORIZED");
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_life_is_told_step_by_step() {
    let app = TestApp::with(|variables| {
        variables.insert("PAST_DUE_GRACE_DAYS".to_owned(), "3".to_owned());
        variables.insert("PAST_DUE_THROTTLE_MBPS".to_owned(), "2".to_owned());
    })
    .await;
    let user = app.user_on("free").await;
    let is = async |seen: &Seen| {
        app.subscription_seen(user.user(), "sub_1", seen).await;
        status(&user).await
    };
    let active = seen(StripeStatus::Active);

    let answer = is(&active).await;
    assert_eq!(
        (&answer["plan"], &answer["plan_type"]),
        (&json!("premium_monthly"), &json!("monthly"))
    );
    assert_eq!(time(&answer["start_date"]), active.started_at);
    assert_eq!(time(&answer["end_date"]), active.period_end);
    assert_eq!(
        time(&answer["access_until"]),
        active.period_end + TimeDelta::hours(24)
    );
    assert_eq!(
        (&answer["auto_renew"], &answer["effective_plan"]),
        (&json!(true), &json!("premium_monthly"))
    );

    let canceling = Seen {
        cancel_at_period_end: true,
        ..active.clone()
    };
    let answer = is(&canceling).await;
    assert_eq!(
        (&answer["cancel_at_period_end"], &answer["auto_renew"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(time(&answer["access_until"]), active.period_end);
    let answer = is(&active).await;
    assert_eq!(answer["cancel_at_period_end"], false);

    let yearly = Seen {
        plan: "premium_yearly".to_owned(),
        ..active.clone()
    };
    assert_eq!(is(&yearly).await["plan_type"], "yearly");

    let failing = seen(StripeStatus::PastDue);
    let answer = is(&failing).await;
    assert_eq!(
        (&answer["status"], &answer["throttle_mbps"]),
        (&json!("past_due"), &json!(2))
    );
    let grace = time(&answer["access_until"]);
    assert!((grace - hours(72)).abs() < TimeDelta::minutes(5), "{grace}");
    // Reading it again prolongs nothing, and tells nobody.
    assert_eq!(time(&is(&failing).await["access_until"]), grace);

    let_time_pass(&app, &user).await;
    let answer = status(&user).await;
    assert_eq!(
        (&answer["status"], &answer["effective_plan"]),
        (&json!("past_due"), &json!("free"))
    );

    let over = Seen {
        ended_at: Some(hours(0)),
        ..seen(StripeStatus::Canceled)
    };
    let answer = is(&over).await;
    assert_eq!(
        (&answer["plan"], &answer["status"]),
        (&json!("free"), &json!("active"))
    );
    let profile = user.get("/api/v1/users/me").await.expect(200).json();
    assert_eq!(profile["subscription"]["plan"], "free");
    assert_eq!(
        subjects(&app).await,
        [
            "Prime VPN: a payment failed",
            "Prime VPN: your plan is on hold"
        ]
    );
    let changes = "SELECT count(*) FROM audit_log WHERE action = 'subscription.change'";
    assert_eq!(app.db().number(changes).await, 7);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_gave_ends_by_itself() {
    let app = TestApp::start().await;
    let user = app.user().await;
    let_time_pass(&app, &user).await;
    let answer = status(&user).await;
    assert_eq!(
        (&answer["plan"], &answer["status"]),
        (&json!("free"), &json!("active"))
    );
    assert_eq!(subjects(&app).await, ["Prime VPN: your plan has ended"]);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_is_told() {
    let app = TestApp::start().await;
    let user = app.user_on("free").await;
    let trial = Seen {
        period_end: hours(100),
        trial_end: Some(hours(100)),
        ..seen(StripeStatus::Trialing)
    };
    app.subscription_seen(user.user(), "sub_1", &trial).await;
    let answer = status(&user).await;
    assert_eq!(answer["status"], "active");
    assert_eq!(Some(time(&answer["trial_end"])), trial.trial_end);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_subscriptions_the_same_one_runs_whatever_comes_first() {
    let app = TestApp::start().await;
    let old = seen(StripeStatus::Active);
    let new = Seen {
        plan: "premium_yearly".to_owned(),
        started_at: hours(-1),
        ..old.clone()
    };
    let unpaid = Seen {
        status: StripeStatus::Unpaid,
        ..new.clone()
    };
    for (number, (readings, plan)) in [
        ([&old, &new, &old], "premium_yearly"),
        ([&new, &old, &new], "premium_yearly"),
        // What gives no rights is in nobody's way.
        ([&old, &unpaid, &old], "premium_monthly"),
        ([&unpaid, &old, &unpaid], "premium_monthly"),
    ]
    .into_iter()
    .enumerate()
    {
        let user = app.user_on("free").await;
        for reading in readings {
            let id = format!("sub_{number}_{}", reading.plan);
            app.subscription_seen(user.user(), &id, reading).await;
        }
        assert_eq!(status(&user).await["plan"], plan, "{number}");
        let rows = format!(
            "SELECT count(*) FROM subscriptions WHERE status <> 'canceled' AND user_id = '{}'",
            user.user()
        );
        assert_eq!(app.db().number(&rows).await, 1);
    }
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_payment_that_is_never_made_leaves_nothing() {
    let app = TestApp::start().await;
    let user = app.user_on("free").await;
    for status in [StripeStatus::Incomplete, StripeStatus::IncompleteExpired] {
        app.subscription_seen(user.user(), "sub_1", &seen(status))
            .await;
    }
    assert_eq!(status(&user).await["plan"], "free");
    assert_eq!(
        app.db().number("SELECT count(*) FROM subscriptions").await,
        1
    );
    let plain =
        "SELECT count(*) FROM subscriptions WHERE position('sub_1'::bytea IN sealed_stripe_id) > 0";
    app.subscription_seen(user.user(), "sub_1", &seen(StripeStatus::Active))
        .await;
    assert_eq!(app.db().number(plain).await, 0);
    app.finish(&[]).await;
}
