//! A subscription's shape and its periods.

use chrono::{DateTime, Days, Months, Utc};
use serde_json::{Value, json};

use super::desk::Answer;
use super::failure::Failure;
use super::store::{flag, new_id, now, number, text};

pub(super) fn new_subscription(parameters: &Value, price: &Value) -> Answer {
    let (id, made) = (new_id("sub"), now());
    let days = number(parameters, "trial_period_days");
    let trial_end = match number(parameters, "trial_end") {
        0 if days > 0 => made + days * 86_400,
        end => end,
    };
    if trial_end != 0 && trial_end <= made {
        return Err(Failure::invalid(
            "trial_end",
            "The trial must end in the future.",
        ));
    }
    let is_trial = trial_end != 0;
    let end = if is_trial {
        trial_end
    } else {
        period_after(made, price)
    };
    let trial = |moment: i64| if is_trial { json!(moment) } else { Value::Null };
    let mut subscription = json!({
        "id": id, "object": "subscription",
        "automatic_tax": {"enabled": flag(&parameters["automatic_tax"], "enabled")},
        "billing_cycle_anchor": end, "cancel_at": null, "cancel_at_period_end": false,
        "canceled_at": null, "cancellation_details": {"comment": null, "feedback": null,
            "reason": null},
        "collection_method": "charge_automatically", "created": made,
        "currency": price["currency"], "customer": parameters["customer"],
        "default_payment_method": parameters["default_payment_method"],
        "description": parameters["description"], "ended_at": null,
        "items": {"object": "list", "has_more": false, "data": [item(&id, price)],
            "url": format!("/v1/subscription_items?subscription={id}")},
        "latest_invoice": null, "livemode": false, "metadata": {}, "pending_setup_intent": null,
        "start_date": made, "status": if is_trial { "trialing" } else { "incomplete" },
        "trial_start": trial(made), "trial_end": trial(trial_end), "_pending": [],
    });
    set_period(&mut subscription, made, end);
    if flag(parameters, "cancel_at_period_end") {
        set_cancel_at_period_end(&mut subscription, true);
    }
    Ok(subscription)
}

#[must_use]
pub(super) fn item(subscription: &str, price: &Value) -> Value {
    json!({"id": new_id("si"), "object": "subscription_item", "created": now(), "metadata": {},
        "price": price, "quantity": 1, "subscription": subscription})
}

/// Stripe moved the period from the subscription to its items in 2025: it stands at both.
pub(super) fn set_period(subscription: &mut Value, start: i64, end: i64) {
    subscription["current_period_start"] = start.into();
    subscription["current_period_end"] = end.into();
    for item in subscription["items"]["data"]
        .as_array_mut()
        .into_iter()
        .flatten()
    {
        item["current_period_start"] = start.into();
        item["current_period_end"] = end.into();
    }
}

pub(super) fn set_cancel_at_period_end(subscription: &mut Value, is_set: bool) {
    let of = |value: Value| if is_set { value } else { Value::Null };
    let end = subscription["current_period_end"].clone();
    subscription["cancel_at_period_end"] = is_set.into();
    subscription["cancel_at"] = of(end);
    subscription["canceled_at"] = of(now().into());
    subscription["cancellation_details"]["reason"] = of("cancellation_requested".into());
}

#[must_use]
pub(super) fn period(subscription: &Value) -> (i64, i64) {
    (
        number(subscription, "current_period_start"),
        number(subscription, "current_period_end"),
    )
}

/// When a period of this price that begins then ends.
#[must_use]
pub(super) fn period_after(start: i64, price: &Value) -> i64 {
    let begin: DateTime<Utc> = DateTime::from_timestamp(start, 0).unwrap_or_default();
    let recurring = &price["recurring"];
    let count = u32::try_from(number(recurring, "interval_count")).unwrap_or(1);
    let end = match text(recurring, "interval") {
        "day" => begin.checked_add_days(Days::new(count.into())),
        "week" => begin.checked_add_days(Days::new(u64::from(count) * 7)),
        "year" => begin.checked_add_months(Months::new(count * 12)),
        _ => begin.checked_add_months(Months::new(count)),
    };
    end.unwrap_or(begin).timestamp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_as_long_as_its_interval() {
        let of = |interval: &str, count: i64| {
            let price = json!({"recurring": {"interval": interval, "interval_count": count}});
            // 2024-01-31T00:00:00Z
            (period_after(1_706_659_200, &price) - 1_706_659_200) / 86_400
        };
        let days = [
            ("day", 3),
            ("week", 1),
            ("month", 1),
            ("month", 3),
            ("year", 1),
        ];
        assert_eq!(days.map(|(it, count)| of(it, count)), [3, 7, 29, 90, 366]);
    }
}
