//! What the server knows itself: objects in Stripe's shape, and what was asked of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chrono::Utc;
use rand::Rng;
use rand::distr::Alphanumeric;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::failure::Failure;

/// A field whose name begins so is ours alone and never shown.
const OURS: char = '_';

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Store {
    objects: BTreeMap<String, Value>,
    /// Ids in the order of their making.
    order: Vec<String>,
    /// What is known here of objects that localstripe keeps, by their ids.
    pub(super) notes: BTreeMap<String, Map<String, Value>>,
    /// Customers that were deleted: Stripe still names them.
    pub(super) deleted: BTreeMap<String, Value>,
    /// Answers by idempotency key.
    pub(super) answers: BTreeMap<String, KeptAnswer>,
    /// What a customer has left from prorations, in minor units.
    pub(super) credit: BTreeMap<String, i64>,
    pub(super) wishes: Wishes,
    #[serde(skip)]
    file: Option<PathBuf>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct KeptAnswer {
    pub(super) fingerprint: String,
    pub(super) status: u16,
    pub(super) body: Value,
}

/// What a test wants to happen, once each.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(super) struct Wishes {
    /// How many of the next charges of a customer the bank declines.
    pub(super) declines: BTreeMap<String, u32>,
    /// How many of the next payments of a customer need 3-D Secure.
    pub(super) authentications: BTreeMap<String, u32>,
    /// Statuses with which the next requests are refused before they do anything.
    pub(super) refusals: Vec<u16>,
    /// How many of the next requests are done, and their answer is lost.
    pub(super) lost_answers: u32,
    /// Hundredths of a percent that automatic tax adds.
    pub(super) tax_basis_points: i64,
}

impl Wishes {
    /// Takes one from a customer's count.
    pub(super) fn take(counts: &mut BTreeMap<String, u32>, customer: &str) -> bool {
        match counts.get_mut(customer) {
            Some(count) if *count > 0 => {
                *count -= 1;
                true
            }
            _ => false,
        }
    }
}

impl Store {
    /// Kept in this folder, and read from it when there is something.
    pub(super) fn open(folder: Option<&Path>) -> anyhow::Result<Self> {
        let Some(folder) = folder else {
            return Ok(Self::default());
        };
        std::fs::create_dir_all(folder)?;
        let file = folder.join("stripe.json");
        let mut store = match std::fs::read(&file) {
            Ok(kept) => serde_json::from_slice(&kept)?,
            Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => Self::default(),
            Err(other) => return Err(other.into()),
        };
        store.file = Some(file);
        Ok(store)
    }

    pub(super) fn keep(&self) -> anyhow::Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let new = file.with_extension("new");
        std::fs::write(&new, serde_json::to_vec(self)?)?;
        Ok(std::fs::rename(new, file)?)
    }

    pub(super) fn put(&mut self, object: &Value) {
        let id = text(object, "id").to_owned();
        if self.objects.insert(id.clone(), object.clone()).is_none() {
            self.order.push(id);
        }
    }

    pub(super) fn remove(&mut self, id: &str) {
        self.objects.remove(id);
        self.order.retain(|it| it != id);
    }

    #[must_use]
    pub(super) fn find(&self, id: &str) -> Option<&Value> {
        self.objects.get(id)
    }

    pub(super) fn get(&self, kind: &str, id: &str) -> Result<Value, Failure> {
        let found = self.objects.get(id).filter(|it| it["object"] == kind);
        found.cloned().ok_or_else(|| Failure::missing(kind, id))
    }

    /// All of a kind, the newest first.
    #[must_use]
    pub(super) fn all(&self, kind: &str) -> Vec<Value> {
        let newest_first = self.order.iter().rev();
        newest_first
            .filter_map(|id| self.objects.get(id))
            .filter(|it| it["object"] == kind)
            .cloned()
            .collect()
    }

    pub(super) fn note(&mut self, id: &str, key: &str, value: impl Into<Value>) {
        let notes = self.notes.entry(id.to_owned()).or_default();
        notes.insert(key.to_owned(), value.into());
    }

    #[must_use]
    pub(super) fn noted(&self, id: &str, key: &str) -> Option<&Value> {
        self.notes.get(id)?.get(key)
    }
}

/// Without what is ours alone, at any depth.
#[must_use]
pub(super) fn shown(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let shown = fields.iter().filter(|(key, _)| !key.starts_with(OURS));
            Value::Object(
                shown
                    .map(|(key, it)| (key.clone(), self::shown(it)))
                    .collect(),
            )
        }
        Value::Array(items) => items.iter().map(shown).collect(),
        other => other.clone(),
    }
}

#[must_use]
pub(super) fn new_id(prefix: &str) -> String {
    format!("{prefix}_{}", random(24))
}

#[must_use]
pub(super) fn random(length: usize) -> String {
    let letters = rand::rng().sample_iter(Alphanumeric).take(length);
    letters.map(char::from).collect()
}

#[must_use]
pub(super) fn now() -> i64 {
    Utc::now().timestamp()
}

/// A text field, empty where there is none.
#[must_use]
pub(super) fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object[key].as_str().unwrap_or_default()
}

/// A number, which in parameters is a text; zero where there is none.
#[must_use]
pub(super) fn number(object: &Value, key: &str) -> i64 {
    let value = &object[key];
    let parsed = value.as_str().and_then(|text| text.parse().ok());
    value.as_i64().or(parsed).unwrap_or_default()
}

#[must_use]
pub(super) fn flag(object: &Value, key: &str) -> bool {
    let value = &object[key];
    value == true || value == "true"
}
