//! Numbers as JSON means them: `3.0` is the integer 3, and some clients write it so.

use std::fmt;

use serde::Deserializer;
use serde::de::{self, Visitor};

/// For `#[serde(default, deserialize_with = "whole")]` on an optional count.
pub fn whole<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    from.deserialize_any(Whole)
}

/// The same for a smaller type.
pub fn whole_as<'de, D, T>(from: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    whole(from)?
        .map(T::try_from)
        .transpose()
        .map_err(|_| de::Error::custom("is out of range"))
}

struct Whole;

impl<'de> Visitor<'de> for Whole {
    type Value = Option<u64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number from 0")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Some(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
        // Through text, which neither rounds nor overflows; adding zero makes -0 a plain one.
        let whole = format!("{}", value + 0.0).parse();
        whole
            .map(Some)
            .map_err(|_| E::invalid_type(de::Unexpected::Float(value), &self))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Body {
        #[serde(default, deserialize_with = "whole")]
        count: Option<u64>,
    }

    #[rstest]
    #[case("{}", Some(None))]
    #[case(r#"{"count":null}"#, Some(None))]
    #[case(r#"{"count":3}"#, Some(Some(3)))]
    #[case(r#"{"count":3.0}"#, Some(Some(3)))]
    #[case(r#"{"count":3e2}"#, Some(Some(300)))]
    #[case(r#"{"count":-0.0}"#, Some(Some(0)))]
    #[case(r#"{"count":18446744073709551615}"#, Some(Some(u64::MAX)))]
    #[case(r#"{"count":3.5}"#, None)]
    #[case(r#"{"count":-1}"#, None)]
    #[case(r#"{"count":-1.0}"#, None)]
    #[case(r#"{"count":1e30}"#, None)]
    #[case(r#"{"count":"3"}"#, None)]
    fn a_whole_number_is_one_however_it_is_written(
        #[case] json: &str,
        #[case] count: Option<Option<u64>>,
    ) {
        let body = serde_json::from_str::<Body>(json);
        assert_eq!(body.ok().map(|body| body.count), count);
    }
}
