//! Lists, a page at a time.

use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Form, Stripe, StripeError};

/// As many as Stripe gives at once.
const PAGE: u32 = 100;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct List<T> {
    #[serde(default = "Vec::new")]
    pub data: Vec<T>,
    #[serde(default)]
    pub has_more: bool,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self {
            data: Vec::new(),
            has_more: false,
        }
    }
}

/// What comes in lists.
pub trait Listed: DeserializeOwned {
    fn id(&self) -> &str;
}

/// A list from its beginning. While it is read it may change: what is new comes before what was read, and
/// nothing is left out.
#[derive(Debug)]
#[must_use = "nothing is read until it is asked for"]
pub struct Pages<'a, T> {
    stripe: &'a Stripe,
    path: &'a [&'a str],
    query: Form,
    last: Option<String>,
    is_over: bool,
    things: PhantomData<fn() -> T>,
}

impl<'a, T: Listed> Pages<'a, T> {
    pub(super) fn new(stripe: &'a Stripe, path: &'a [&'a str], query: Form) -> Self {
        Self {
            stripe,
            path,
            query: query.put("limit", PAGE),
            last: None,
            is_over: false,
            things: PhantomData,
        }
    }

    /// The next page; none after the last one.
    pub async fn next(&mut self) -> Result<Option<Vec<T>>, StripeError> {
        if self.is_over {
            return Ok(None);
        }
        let query = self.query.clone();
        let query = query.maybe("starting_after", self.last.as_deref());
        let List { data, has_more } = self.stripe.get::<List<T>>(self.path, &query).await?;
        let last = data.last().map(|it| it.id().to_owned());
        // A page that ends like the one before it would come for ever.
        self.is_over = !has_more || last.is_none() || last == self.last;
        self.last = last;
        Ok(Some(data))
    }

    /// All of it, for a list that is short by its nature.
    pub async fn all(mut self) -> Result<Vec<T>, StripeError> {
        let mut all = Vec::new();
        while let Some(page) = self.next().await? {
            all.extend(page);
        }
        Ok(all)
    }
}
