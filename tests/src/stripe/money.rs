//! Charges and refunds: localstripe's books, with the bounds and the events that it lacks.

use serde_json::{Value, json};

use super::desk::{Answer, Desk};
use super::failure::Failure;
use super::list;
use super::store::{Wishes, number, text};

/// A card of localstripe's that attaches and is declined at every charge.
const DECLINING: &str = "pm_card_chargeCustomerFail";

impl Desk {
    /// Charges an intent's card once. A declined charge is in the books too.
    pub(super) async fn charge(&mut self, intent: &Value) -> Answer {
        let customer = text(intent, "customer");
        let is_declined = Wishes::take(&mut self.store.wishes.declines, customer);
        let source = if is_declined {
            DECLINING
        } else {
            text(intent, "payment_method")
        };
        let parameters = json!({
            "amount": intent["amount"], "currency": intent["currency"], "source": source,
            "customer": intent["customer"], "description": intent["description"],
            "metadata": intent["metadata"],
        });
        let made = self.behind.post("/v1/charges", &parameters).await;
        let id = match &made {
            Ok(charge) => text(charge, "id").to_owned(),
            Err(refused) => text(&refused.error, "charge").to_owned(),
        };
        if id.is_empty() {
            return made;
        }
        let receipt = format!("{}/_pay/receipt/{id}", self.base);
        for (key, value) in [
            ("payment_intent", intent["id"].clone()),
            ("payment_method", intent["payment_method"].clone()),
            ("invoice", intent["invoice"].clone()),
            ("receipt_url", receipt.into()),
            ("_idempotency_key", self.key.clone().into()),
        ] {
            self.store.note(&id, key, value);
        }
        let charge = self.retrieve(&id).await?;
        if let Err(mut refused) = made {
            self.tell("charge.failed", &charge);
            refused.error["charge"] = id.into();
            return Err(refused);
        }
        self.tell("charge.succeeded", &charge);
        Ok(charge)
    }

    /// Refuses to give back more than was taken: localstripe would.
    pub(super) async fn refund(&mut self, parameters: &Value) -> Answer {
        let names = ["charge", "payment_intent", "amount", "reason", "metadata"];
        Self::known(parameters, &names)?;
        let charge = match parameters["payment_intent"].as_str() {
            None => Self::needed(parameters, "charge")?.to_owned(),
            Some(id) => {
                let intent = self.store.get("payment_intent", id)?;
                if intent["status"] != "succeeded" {
                    let message = "This PaymentIntent does not have a successful charge to refund.";
                    return Err(Failure::invalid("payment_intent", message));
                }
                text(&intent, "latest_charge").to_owned()
            }
        };
        let charge = self.retrieve(&charge).await?;
        let left = number(&charge, "amount") - number(&charge, "amount_refunded");
        let amount = match &parameters["amount"] {
            Value::Null => left,
            _ => number(parameters, "amount"),
        };
        check_refund(&charge, parameters, amount, left)?;
        let asked = json!({"charge": charge["id"], "amount": amount,
            "metadata": parameters["metadata"]});
        let refund = self.behind.post("/v1/refunds", &asked).await?;
        let id = text(&refund, "id").to_owned();
        for (key, value) in [
            ("payment_intent", charge["payment_intent"].clone()),
            ("reason", parameters["reason"].clone()),
            ("_idempotency_key", self.key.clone().into()),
        ] {
            self.store.note(&id, key, value);
        }
        let refund = self.with_notes(refund);
        let charge = self.retrieve(text(&charge, "id")).await?;
        self.tell("refund.created", &refund);
        self.tell("charge.refunded", &charge);
        Ok(refund)
    }

    pub(super) async fn charges(&self, parameters: &Value) -> Answer {
        self.books("charge", parameters, &["customer", "payment_intent"])
            .await
    }

    pub(super) async fn refunds(&self, parameters: &Value) -> Answer {
        self.books("refund", parameters, &["charge", "payment_intent"])
            .await
    }

    async fn books(&self, kind: &str, parameters: &Value, filters: &[&str]) -> Answer {
        let paging = ["limit", "starting_after", "ending_before", "created"];
        Self::known(parameters, &[filters, &paging].concat())?;
        let mut items = self.entries(kind).await?;
        for name in filters {
            items.retain(|it| {
                parameters[*name].is_null() || list::is_equal(&it[*name], &parameters[*name])
            });
        }
        list::page(items, &format!("/v1/{kind}s"), parameters)
    }

    /// Everything of the books, the newest first.
    pub(super) async fn entries(&self, kind: &str) -> Result<Vec<Value>, Failure> {
        let items = self.behind.all(&format!("{kind}s"), "").await?;
        Ok(items.into_iter().map(|it| self.with_notes(it)).collect())
    }
}

fn check_refund(charge: &Value, parameters: &Value, amount: i64, left: i64) -> Result<(), Failure> {
    let reasons = ["duplicate", "fraudulent", "requested_by_customer"];
    if let Some(reason) = parameters["reason"].as_str()
        && !reasons.contains(&reason)
    {
        return Err(Failure::invalid("reason", "Invalid reason"));
    }
    if charge["paid"] != true {
        return Err(Failure::invalid("charge", "This charge was not paid."));
    }
    if left == 0 {
        let message = format!("Charge {} has already been refunded.", text(charge, "id"));
        return Err(Failure::coded(
            "charge",
            "charge_already_refunded",
            &message,
        ));
    }
    if amount <= 0 {
        return Err(Failure::invalid("amount", "Invalid positive integer"));
    }
    if amount > left {
        let message =
            format!("Refund amount ({amount}) is greater than unrefunded amount ({left})");
        return Err(Failure::invalid("amount", &message));
    }
    Ok(())
}
