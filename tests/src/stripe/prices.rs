//! Prices, which localstripe knows only as plans of the API of 2018.

use serde_json::{Value, json};

use super::desk::{Answer, Desk};
use super::failure::Failure;
use super::store::{flag, new_id, now, number, text};

impl Desk {
    pub(super) async fn create_price(&mut self, parameters: &Value) -> Answer {
        let names = [
            "currency",
            "unit_amount",
            "recurring",
            "product",
            "product_data",
            "nickname",
            "lookup_key",
            "metadata",
            "active",
            "tax_behavior",
        ];
        Self::known(parameters, &names)?;
        let price = self.price_of(parameters).await?;
        self.store.put(&price);
        self.tell("price.created", &price);
        Ok(price)
    }

    /// A price from parameters, not yet kept: `price_data` of other objects has the same fields.
    pub(super) async fn price_of(&mut self, parameters: &Value) -> Answer {
        let currency = Self::needed(parameters, "currency")?.to_lowercase();
        Self::needed(parameters, "unit_amount")?;
        let amount = number(parameters, "unit_amount");
        if !(0..=99_999_999).contains(&amount) {
            return Err(Failure::invalid("unit_amount", "Invalid integer"));
        }
        let product = match parameters["product"].as_str() {
            Some(product) => self.retrieve(product).await?,
            None => {
                let data = &parameters["product_data"];
                Self::needed(data, "name")?;
                self.create_product(data).await?
            }
        };
        let recurring = match &parameters["recurring"] {
            Value::Null => Value::Null,
            recurring => recurring_of(recurring)?,
        };
        let kind = if recurring.is_null() {
            "one_time"
        } else {
            "recurring"
        };
        let mut price = json!({
            "id": new_id("price"), "object": "price", "active": parameters["active"] != "false",
            "billing_scheme": "per_unit", "created": now(), "currency": currency,
            "livemode": false, "lookup_key": parameters["lookup_key"], "metadata": {},
            "nickname": parameters["nickname"], "product": product["id"], "recurring": recurring,
            "tax_behavior": parameters["tax_behavior"].as_str().unwrap_or("unspecified"),
            "type": kind, "unit_amount": amount, "unit_amount_decimal": amount.to_string(),
        });
        Self::merge_metadata(&mut price, parameters);
        Ok(price)
    }

    /// What a price is of cannot change, as at Stripe.
    pub(super) fn update_price(&mut self, id: &str, parameters: &Value) -> Answer {
        Self::known(
            parameters,
            &["active", "metadata", "nickname", "lookup_key"],
        )?;
        let mut price = self.store.get("price", id)?;
        for name in ["nickname", "lookup_key"] {
            if !parameters[name].is_null() {
                price[name] = parameters[name].clone();
            }
        }
        if !parameters["active"].is_null() {
            price["active"] = flag(parameters, "active").into();
        }
        Self::merge_metadata(&mut price, parameters);
        self.store.put(&price);
        self.tell("price.updated", &price);
        Ok(price)
    }

    /// The price that a line names or describes; one that is described is kept too.
    pub(super) async fn line_price(&mut self, line: &Value) -> Answer {
        let Some(id) = line["price"].as_str() else {
            let data = &line["price_data"];
            if data.is_null() {
                return Err(Failure::required("price"));
            }
            let mut price = self.price_of(data).await?;
            price["active"] = false.into();
            self.store.put(&price);
            return Ok(price);
        };
        let price = self.store.get("price", id)?;
        if price["active"] != true {
            let message = format!("The price specified is inactive. ({})", text(&price, "id"));
            return Err(Failure::invalid("price", &message));
        }
        Ok(price)
    }
}

fn recurring_of(parameters: &Value) -> Answer {
    let interval = Desk::needed(parameters, "interval")?;
    if !["day", "week", "month", "year"].contains(&interval) {
        return Err(Failure::invalid("recurring[interval]", "Invalid interval"));
    }
    let count = number(parameters, "interval_count").max(1);
    Ok(
        json!({"interval": interval, "interval_count": count, "usage_type": "licensed",
        "trial_period_days": null, "meter": null}),
    )
}
