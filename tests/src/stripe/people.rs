//! Customers, their cards, and products: localstripe's objects, passed on.

use serde_json::{Value, json};

use super::desk::{Answer, Desk};
use super::failure::Failure;
use super::list;
use super::store::{number, text};

impl Desk {
    pub(super) async fn create_customer(&mut self, parameters: &Value) -> Answer {
        let parameters = without_expand(parameters);
        let made = self.behind.post("/v1/customers", &parameters).await?;
        let customer = self.with_notes(made);
        self.tell("customer.created", &customer);
        Ok(customer)
    }

    pub(super) async fn update_customer(&mut self, id: &str, parameters: &Value) -> Answer {
        let mut parameters = without_expand(parameters);
        let default = &parameters["invoice_settings"]["default_payment_method"];
        if let Some(method) = default.as_str().filter(|it| !it.is_empty()) {
            let method = self.retrieve(method).await?;
            if method["customer"] != id {
                let message = "The customer does not have that payment method.";
                return Err(Failure::coded(
                    "invoice_settings[default_payment_method]",
                    "resource_missing",
                    message,
                ));
            }
        }
        if parameters.get("metadata").is_some() {
            // localstripe cannot take a key away: ours are laid over its own.
            let mut customer = self.retrieve(id).await?;
            Self::merge_metadata(&mut customer, &parameters);
            self.store
                .note(id, "metadata", customer["metadata"].clone());
            if let Some(fields) = parameters.as_object_mut() {
                fields.remove("metadata");
            }
        }
        let path = format!("/v1/customers/{id}");
        let changed = if parameters.as_object().is_some_and(|it| it.is_empty()) {
            self.behind.get(&path).await?
        } else {
            self.behind.post(&path, &parameters).await?
        };
        let customer = self.with_notes(changed);
        self.tell("customer.updated", &customer);
        Ok(customer)
    }

    /// Its subscriptions end with it.
    pub(super) async fn delete_customer(&mut self, id: &str) -> Answer {
        let customer = self.retrieve(id).await?;
        for subscription in self.store.all("subscription") {
            if subscription["customer"] == id && subscription["ended_at"].is_null() {
                self.end_subscription(subscription, "canceled");
            }
        }
        self.behind.delete(&format!("/v1/customers/{id}")).await?;
        let gone = json!({"id": id, "object": "customer", "deleted": true});
        self.store.deleted.insert(id.to_owned(), gone.clone());
        self.tell("customer.deleted", &customer);
        Ok(gone)
    }

    pub(super) async fn customers(&self, parameters: &Value) -> Answer {
        let names = [
            "email",
            "limit",
            "starting_after",
            "ending_before",
            "created",
        ];
        Self::known(parameters, &names)?;
        let mut items = self.behind.all("customers", "").await?;
        items.retain(|it| parameters["email"].is_null() || it["email"] == parameters["email"]);
        let items = items.into_iter().map(|it| self.with_notes(it)).collect();
        list::page(items, "/v1/customers", parameters)
    }

    pub(super) async fn create_method(&mut self, parameters: &Value) -> Answer {
        let path = "/v1/payment_methods";
        self.behind.post(path, &without_expand(parameters)).await
    }

    pub(super) async fn attach(&mut self, method: &str, parameters: &Value) -> Answer {
        Self::known(parameters, &["customer"])?;
        let customer = Self::needed(parameters, "customer")?;
        let owner = self.retrieve(method).await?;
        if !owner["customer"].is_null() && owner["customer"] != customer {
            let message =
                "The payment method you provided has already been attached to a customer.";
            return Err(Failure::invalid("payment_method", message));
        }
        // A test card's name gives a new card at every reading.
        let id = text(&owner, "id").to_owned();
        let path = format!("/v1/payment_methods/{id}/attach");
        let attached = self
            .behind
            .post(&path, &json!({"customer": customer}))
            .await?;
        let attached = self.with_notes(attached);
        self.tell("payment_method.attached", &attached);
        Ok(attached)
    }

    /// It is nobody's default afterwards.
    pub(super) async fn detach(&mut self, method: &str) -> Answer {
        let owner = self.retrieve(method).await?;
        let Some(customer) = owner["customer"].as_str() else {
            let message = "The payment method you provided is not attached to a customer.";
            return Err(Failure::invalid("payment_method", message));
        };
        let path = format!("/v1/payment_methods/{method}/detach");
        let detached = self.behind.post(&path, &Value::Null).await?;
        let detached = self.with_notes(detached);
        let holder = self.retrieve(customer).await?;
        if holder["invoice_settings"]["default_payment_method"] == method {
            let nothing = json!({"invoice_settings": {"default_payment_method": ""}});
            self.update_customer(customer, &nothing).await?;
        }
        for mut subscription in self.store.all("subscription") {
            if subscription["default_payment_method"] == method {
                subscription["default_payment_method"] = Value::Null;
                self.store.put(&subscription);
            }
        }
        self.tell("payment_method.detached", &detached);
        Ok(detached)
    }

    pub(super) async fn methods(&self, customer: &str, parameters: &Value) -> Answer {
        let names = [
            "customer",
            "type",
            "limit",
            "starting_after",
            "ending_before",
        ];
        Self::known(parameters, &names)?;
        let filter = format!("&type=card&customer={customer}");
        let items = self.behind.all("payment_methods", &filter).await?;
        let items = items.into_iter().map(|it| self.with_notes(it)).collect();
        list::page(items, "/v1/payment_methods", parameters)
    }

    pub(super) async fn create_product(&mut self, parameters: &Value) -> Answer {
        let product = self
            .behind
            .post("/v1/products", &without_expand(parameters))
            .await?;
        self.tell("product.created", &product);
        Ok(product)
    }

    pub(super) async fn products(&self, parameters: &Value) -> Answer {
        let items = self.behind.all("products", "").await?;
        list::page(items, "/v1/products", parameters)
    }

    /// The card that pays when nothing else is said.
    pub(super) async fn default_method(&self, customer: &str) -> Result<Option<String>, Failure> {
        let customer = self.retrieve(customer).await?;
        let default = &customer["invoice_settings"]["default_payment_method"];
        Ok(default.as_str().map(str::to_owned))
    }

    /// What is owed after a customer's credit, and the credit that is left.
    pub(super) fn spend_credit(&mut self, customer: &str, total: i64) -> i64 {
        let credit = self.store.credit.entry(customer.to_owned()).or_default();
        let due = (total - *credit).max(0);
        *credit = (*credit - total).max(0);
        due
    }

    pub(super) fn check_amount(parameters: &Value) -> Result<i64, Failure> {
        Self::needed(parameters, "amount")?;
        let amount = number(parameters, "amount");
        if (1..=99_999_999).contains(&amount) {
            return Ok(amount);
        }
        Err(Failure::invalid("amount", "Invalid positive integer"))
    }
}

fn without_expand(parameters: &Value) -> Value {
    let mut parameters = parameters.clone();
    if let Some(fields) = parameters.as_object_mut() {
        fields.remove("expand");
    }
    parameters
}
