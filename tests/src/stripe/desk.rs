//! The one place where requests are served, one at a time, so that no two of them interleave.

use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedSender;

use super::behind::Behind;
use super::failure::Failure;
use super::list;
use super::store::{Store, flag, new_id, now, shown, text};

pub(super) type Answer = Result<Value, Failure>;

#[derive(Debug)]
pub(super) struct Desk {
    pub(super) store: Store,
    pub(super) behind: Behind,
    /// Where people reach this server, for the pages it shows.
    pub(super) base: String,
    /// Ids of events to be delivered.
    pub(super) post: UnboundedSender<String>,
    /// Whether events are delivered by themselves.
    pub(super) is_delivering: bool,
    /// The idempotency key and the id of the request that is served.
    pub(super) key: Option<String>,
    pub(super) request: String,
}

impl Desk {
    /// Refuses a parameter that this server would ignore, as Stripe refuses what it does not know.
    pub(super) fn known(parameters: &Value, names: &[&str]) -> Result<(), Failure> {
        let mut given = parameters.as_object().into_iter().flatten();
        match given.find(|(name, _)| *name != "expand" && !names.contains(&name.as_str())) {
            None => Ok(()),
            Some((name, _)) => Err(Failure::coded(
                name,
                "parameter_unknown",
                &format!("Received unknown parameter: {name}"),
            )),
        }
    }

    /// Writes an event with the object as it is now, and sends it on its way.
    pub(super) fn tell(&mut self, kind: &str, object: &Value) {
        let id = new_id("evt");
        let event = json!({
            "id": id, "object": "event", "api_version": API_VERSION, "created": now(),
            "data": {"object": shown(object)}, "livemode": false, "pending_webhooks": 1,
            "request": {"id": self.request, "idempotency_key": self.key}, "type": kind,
            "_deliveries": [],
        });
        self.store.put(&event);
        if self.is_delivering {
            // The worker ends only with the server.
            let _ = self.post.send(id);
        }
    }

    /// One object whoever keeps it; what is noted of it laid over.
    pub(super) async fn retrieve(&self, id: &str) -> Answer {
        if let Some(object) = self.store.find(id).or(self.store.deleted.get(id)) {
            return Ok(object.clone());
        }
        let kind = match id.split('_').next().unwrap_or_default() {
            "cus" => "customers",
            "pm" => "payment_methods",
            "ch" => "charges",
            "re" => "refunds",
            "prod" => "products",
            "txn" => "balance_transactions",
            _ => return Err(Failure::missing("object", id)),
        };
        let object = self.behind.get(&format!("/v1/{kind}/{id}")).await?;
        Ok(self.with_notes(object))
    }

    /// An object of localstripe in Stripe's present shape.
    #[must_use]
    pub(super) fn with_notes(&self, mut object: Value) -> Value {
        if object["object"] == "customer" {
            let balance = -self.store.credit.get(text(&object, "id")).unwrap_or(&0);
            if let Some(fields) = object.as_object_mut() {
                // Shown on request only, since 2020, or not at all any more.
                for gone in ["sources", "subscriptions", "tax_ids", "account_balance"] {
                    fields.remove(gone);
                }
                fields.insert("balance".into(), balance.into());
            }
        }
        let notes = self.store.notes.get(text(&object, "id"));
        for (key, value) in notes.into_iter().flatten() {
            object[key.as_str()] = value.clone();
        }
        object
    }

    /// An answer as the caller wants it: expanded, without what is ours.
    pub(super) async fn present(&self, object: &Value, parameters: &Value) -> Answer {
        let mut object = shown(object);
        for path in parameters["expand"].as_array().into_iter().flatten() {
            let path: Vec<&str> = path.as_str().unwrap_or_default().split('.').collect();
            if path.len() > 4 {
                let message = "You cannot expand more than 4 levels of a property.";
                return Err(Failure::invalid("expand", message));
            }
            self.expand(&mut object, &path).await?;
        }
        Ok(object)
    }

    async fn expand(&self, object: &mut Value, path: &[&str]) -> Result<(), Failure> {
        let Some((key, rest)) = path.split_first() else {
            return Ok(());
        };
        if let Value::Array(items) = object {
            for item in items {
                Box::pin(self.expand(item, path)).await?;
            }
            return Ok(());
        }
        if *key == "data" || object[*key].is_object() || object[*key].is_array() {
            return Box::pin(self.expand(&mut object[*key], rest)).await;
        }
        if let Some(id) = object[*key].as_str() {
            object[*key] = shown(&self.retrieve(id).await?);
            return Box::pin(self.expand(&mut object[*key], rest)).await;
        }
        if object.get(*key).is_none() {
            let message = format!("This property cannot be expanded ({key}).");
            return Err(Failure::invalid("expand", &message));
        }
        Ok(())
    }

    /// A page of what this server keeps itself.
    pub(super) fn page(
        &self,
        kind: &str,
        url: &str,
        parameters: &Value,
        filters: &[&str],
    ) -> Answer {
        let paging = ["limit", "starting_after", "ending_before", "created"];
        Self::known(parameters, &[filters, &paging].concat())?;
        let matches = |it: &Value| {
            let mut wanted = filters.iter().filter(|name| !parameters[**name].is_null());
            wanted.all(|name| list::is_equal(&it[*name], &parameters[*name]))
        };
        let items = self.store.all(kind).into_iter().filter(matches).collect();
        list::page(items, url, parameters)
    }

    /// Sets metadata as Stripe does: an empty value takes its key away.
    pub(super) fn merge_metadata(object: &mut Value, parameters: &Value) {
        if object["metadata"].is_null() {
            object["metadata"] = json!({});
        }
        let Some(kept) = object["metadata"].as_object_mut() else {
            return;
        };
        for (key, value) in parameters["metadata"].as_object().into_iter().flatten() {
            if value == "" {
                kept.remove(key);
            } else {
                kept.insert(key.clone(), value.clone());
            }
        }
    }

    /// A parameter that must be there.
    pub(super) fn needed<'a>(parameters: &'a Value, name: &str) -> Result<&'a str, Failure> {
        let value = parameters[name].as_str().filter(|value| !value.is_empty());
        value.ok_or_else(|| Failure::required(name))
    }

    /// Tax of an amount, where the caller asks for automatic tax.
    #[must_use]
    pub(super) fn tax(&self, amount: i64, automatic_tax: &Value) -> i64 {
        if !flag(automatic_tax, "enabled") {
            return 0;
        }
        (amount * self.store.wishes.tax_basis_points + 5_000).div_euclid(10_000)
    }
}

/// The version whose shape the answers have; fields of the one before stay beside it.
pub(super) const API_VERSION: &str = "2025-03-31.basil";
