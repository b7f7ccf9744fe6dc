//! What an event is about: all that is taken from it. What has become of that is read from Stripe. Pure.

use serde::Deserialize;

use crate::billing::reference::{CustomerId, SubscriptionId};
use crate::billing::stripe::Expandable;
use crate::billing::stripe::events::Event;
use crate::billing::stripe::invoices::Invoice;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum About {
    /// With whose it is, where that is said.
    Subscription(SubscriptionId, Option<CustomerId>),
    /// Nothing that we keep.
    Nothing,
}

#[derive(Debug, thiserror::Error)]
#[error("what it is about cannot be read")]
pub(super) struct Unreadable(#[from] serde_json::Error);

/// What the things that events are about have in common.
#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    customer: Option<Expandable<CustomerId>>,
    #[serde(default)]
    subscription: Option<Expandable<SubscriptionId>>,
}

#[derive(Deserialize)]
struct Named {
    id: SubscriptionId,
}

impl About {
    pub(super) fn of(event: &Event) -> Result<Self, Unreadable> {
        let object = &event.data.object;
        let group = event.kind.rsplit_once('.').map_or("", |(group, _)| group);
        let subscription = match group {
            "customer.subscription" => Some(Named::deserialize(object)?.id),
            // One that is only foreseen has no id, and nothing has become of it.
            "invoice" if event.kind == "invoice.upcoming" => None,
            "invoice" => Invoice::deserialize(object)?.subscription().cloned(),
            "checkout.session" => Object::deserialize(object)?.subscription.map(|it| it.id),
            _ => None,
        };
        let Some(subscription) = subscription else {
            return Ok(Self::Nothing);
        };
        let customer = Object::deserialize(object)?.customer.map(|it| it.id);
        Ok(Self::Subscription(subscription, customer))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn event(kind: &str, object: &Value) -> Event {
        let event = json!({ "id": "evt_1", "type": kind, "data": { "object": object } });
        serde_json::from_value(event).unwrap()
    }

    #[rstest]
    #[case("customer.subscription.updated", json!({ "id": "sub_1" }), Some("sub_1"))]
    #[case("customer.subscription.trial_will_end", json!({ "id": "sub_1" }), Some("sub_1"))]
    #[case("invoice.paid", json!({ "id": "in_1", "subscription": "sub_1" }), Some("sub_1"))]
    #[case("invoice.paid", json!({ "id": "in_1", "subscription": { "id": "sub_1" } }), Some("sub_1"))]
    #[case(
        "invoice.payment_failed",
        json!({ "id": "in_1", "parent": { "subscription_details": { "subscription": "sub_1" } } }),
        Some("sub_1")
    )]
    #[case("invoice.paid", json!({ "id": "in_1" }), None)]
    #[case("checkout.session.completed", json!({ "subscription": "sub_1" }), Some("sub_1"))]
    #[case("checkout.session.completed", json!({ "subscription": null }), None)]
    #[case("customer.updated", json!({ "id": "cus_1" }), None)]
    #[case("payment_intent.succeeded", json!({ "id": "pi_1" }), None)]
    #[case("charge.refunded", json!({ "id": "ch_1", "customer": "cus_1" }), None)]
    #[case("invoice.upcoming", json!({ "subscription": "sub_1" }), None)]
    #[case("product.created", json!({}), None)]
    #[case("", json!(null), None)]
    fn it_names_a_subscription(
        #[case] kind: &str,
        #[case] object: Value,
        #[case] subscription: Option<&str>,
    ) {
        let about = About::of(&event(kind, &object)).unwrap();
        let expected = subscription.map_or(About::Nothing, |id| {
            About::Subscription(id.to_owned().try_into().unwrap(), None)
        });
        assert_eq!(about, expected);
    }

    #[rstest]
    #[case("customer.subscription.updated", json!({ "id": "sub_1", "customer": "cus_1" }))]
    #[case("invoice.paid", json!({ "id": "in_1", "subscription": "sub_1", "customer": { "id": "cus_1" } }))]
    fn and_whose_it_is(#[case] kind: &str, #[case] object: Value) {
        let subscription = "sub_1".to_owned().try_into().unwrap();
        let customer = "cus_1".to_owned().try_into().unwrap();
        let about = About::of(&event(kind, &object)).unwrap();
        assert_eq!(about, About::Subscription(subscription, Some(customer)));
    }

    #[rstest]
    #[case("customer.subscription.updated", json!({ "id": "../customers" }))]
    #[case("customer.subscription.updated", json!({}))]
    #[case("invoice.paid", json!("in_1"))]
    fn what_cannot_be_read_is_no_news(#[case] kind: &str, #[case] object: Value) {
        assert!(About::of(&event(kind, &object)).is_err());
    }
}
