//! Which payment an event is about: all that is taken from it, as `about` does of subscriptions. Pure.

use serde::Deserialize;

use super::about::Unreadable;
use crate::billing::reference::{CustomerId, IntentId, InvoiceId};
use crate::billing::stripe::Expandable;
use crate::billing::stripe::events::Event;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Payment {
    /// With whose it is, where that is said.
    Invoice(InvoiceId, Option<CustomerId>),
    /// What paid an invoice, if it did.
    Intent(IntentId),
}

/// What the things that events about money are about have in common.
#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    customer: Option<Expandable<CustomerId>>,
    #[serde(default)]
    invoice: Option<Expandable<InvoiceId>>,
    #[serde(default)]
    payment_intent: Option<Expandable<IntentId>>,
}

#[derive(Deserialize)]
struct Named<I> {
    id: I,
}

impl Payment {
    pub(super) fn of(event: &Event) -> Result<Option<Self>, Unreadable> {
        let object = &event.data.object;
        let group = event.kind.rsplit_once('.').map_or("", |(group, _)| group);
        let is_about_money = matches!(
            group,
            "invoice"
                | "checkout.session"
                | "payment_intent"
                | "charge"
                | "charge.refund"
                | "charge.dispute"
                | "refund"
        );
        // An invoice that is only foreseen has no id.
        if !is_about_money || event.kind == "invoice.upcoming" {
            return Ok(None);
        }
        let read = Object::deserialize(object)?;
        let customer = read.customer.map(|it| it.id);
        let invoice = match group {
            "invoice" => Some(Named::<InvoiceId>::deserialize(object)?.id),
            _ => read.invoice.map(|it| it.id),
        };
        if let Some(invoice) = invoice {
            return Ok(Some(Self::Invoice(invoice, customer)));
        }
        let intent = match group {
            "payment_intent" => Some(Named::<IntentId>::deserialize(object)?.id),
            // A session's invoice has its intent.
            "checkout.session" => None,
            _ => read.payment_intent.map(|it| it.id),
        };
        Ok(intent.map(Self::Intent))
    }
}

/// Whether somebody takes a payment back through their bank.
pub(super) fn is_new_dispute(event: &Event) -> bool {
    event.kind == "charge.dispute.created"
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn payment(kind: &str, object: &Value) -> Result<Option<Payment>, Unreadable> {
        let event = json!({ "id": "evt_1", "type": kind, "data": { "object": object } });
        Payment::of(&serde_json::from_value(event).unwrap())
    }

    #[rstest]
    #[case("invoice.paid", json!({ "id": "in_1", "payment_intent": "pi_1" }), "in_1")]
    #[case("payment_intent.succeeded", json!({ "id": "pi_1", "invoice": "in_1" }), "in_1")]
    #[case("payment_intent.succeeded", json!({ "id": "pi_1", "invoice": null }), "pi_1")]
    #[case("charge.refunded", json!({ "id": "ch_1", "invoice": { "id": "in_1" } }), "in_1")]
    #[case("charge.refunded", json!({ "id": "ch_1", "payment_intent": "pi_1" }), "pi_1")]
    #[case("charge.refund.updated", json!({ "id": "re_1", "payment_intent": "pi_1" }), "pi_1")]
    #[case("charge.dispute.created", json!({ "id": "dp_1", "payment_intent": "pi_1" }), "pi_1")]
    #[case("refund.failed", json!({ "id": "re_1", "payment_intent": { "id": "pi_1" } }), "pi_1")]
    #[case("checkout.session.completed", json!({ "id": "cs_1", "invoice": "in_1" }), "in_1")]
    fn it_names_an_invoice_or_what_pays_it(
        #[case] kind: &str,
        #[case] object: Value,
        #[case] named: &str,
    ) {
        let id = match payment(kind, &object).unwrap().unwrap() {
            Payment::Invoice(id, _) => id.as_str().to_owned(),
            Payment::Intent(id) => id.as_str().to_owned(),
        };
        assert_eq!(id, named);
    }

    #[rstest]
    #[case("invoice.upcoming", json!({ "customer": "cus_1", "subscription": "sub_1" }))]
    #[case("checkout.session.expired", json!({ "id": "cs_1", "payment_intent": "pi_1" }))]
    #[case("charge.succeeded", json!({ "id": "ch_1" }))]
    #[case("customer.subscription.updated", json!({ "id": "sub_1" }))]
    #[case("product.created", json!(null))]
    fn or_nothing(#[case] kind: &str, #[case] object: Value) {
        assert_eq!(payment(kind, &object).unwrap(), None);
    }

    #[test]
    fn what_cannot_be_read_is_no_news() {
        assert!(payment("invoice.paid", &json!({})).is_err());
        assert!(payment("payment_intent.succeeded", &json!({ "id": "../customers" })).is_err());
    }
}
