//! What a record says of its country, whoever made the file.
//!
//! MaxMind and DB-IP write `country: {iso_code}`, and MaxMind `registered_country` where it knows of the network no
//! more than who holds it. IPinfo writes texts: `country_code`, or the code itself as `country`.

use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};

use crate::config::CountryCode;

/// The keys that matter; the others are skipped.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(super) struct Record {
    country: Named,
    country_code: Named,
    registered_country: Named,
}

impl Record {
    pub(super) fn country(self) -> Option<CountryCode> {
        self.country
            .0
            .or(self.country_code.0)
            .or(self.registered_country.0)
    }
}

/// A code, or a map that has one. Any other text is a country's name, and says nothing.
#[derive(Debug, Clone, Copy, Default)]
struct Named(Option<CountryCode>);

#[derive(Default, Deserialize)]
#[serde(default)]
struct Place {
    iso_code: Named,
}

impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Either)
    }
}

struct Either;

impl<'de> Visitor<'de> for Either {
    type Value = Named;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a country")
    }

    fn visit_str<E>(self, text: &str) -> Result<Named, E> {
        Ok(Named(CountryCode::parse(text)))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Named, A::Error> {
        let place = Place::deserialize(MapAccessDeserializer::new(map))?;
        Ok(place.iso_code)
    }
}
