//! What happened at Stripe, as its webhook tells it.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::Value;

use super::{Form, Listed, Pages, Stripe, moment, or_default};
use crate::billing::reference::EventId;

const PATH: &str = "events";

#[derive(Debug, Clone, Deserialize)]
pub struct Event {
    pub id: EventId,
    /// Such as `customer.subscription.updated`.
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    created: Option<i64>,
    #[serde(default, deserialize_with = "or_default")]
    pub data: Data,
}

#[derive(Clone, Default, Deserialize)]
pub struct Data {
    /// As it was at that moment, in the shape of whichever version the webhook is set to.
    #[serde(default, deserialize_with = "or_default")]
    pub object: Value,
}

impl std::fmt::Debug for Data {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Data").finish_non_exhaustive()
    }
}

impl Event {
    #[must_use]
    pub fn created_at(&self) -> Option<DateTime<Utc>> {
        moment(self.created?)
    }
}

impl Listed for Event {
    fn id(&self) -> &str {
        self.id.as_str()
    }
}

impl Stripe {
    /// Of a kind, or all, since a time; the newest first. Stripe knows those of thirty days.
    pub fn events(&self, kind: Option<&str>, since: DateTime<Utc>) -> Pages<'_, Event> {
        let query = Form::new()
            .put("created[gte]", since.timestamp())
            .maybe("type", kind);
        Pages::new(self, &[PATH], query)
    }
}
