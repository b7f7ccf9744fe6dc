//! What comes as an id or as the whole thing.

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Another thing that a thing names: its id, and all of it where it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expandable<I, T = ()> {
    pub id: I,
    pub object: Option<T>,
}

impl<'de, I, T> Deserialize<'de> for Expandable<I, T>
where
    I: DeserializeOwned,
    T: Whole,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let (id, object) = match value {
            Value::Object(mut fields) => {
                let id = fields.get("id").cloned().unwrap_or_default();
                // What was deleted comes as a stub.
                let is_stub = fields.remove("deleted") == Some(Value::Bool(true));
                let whole = (!is_stub).then(|| T::read(Value::Object(fields)));
                (id, whole.transpose().map_err(D::Error::custom)?.flatten())
            }
            id => (id, None),
        };
        let id = serde_json::from_value(id).map_err(D::Error::custom)?;
        Ok(Self { id, object })
    }
}

/// How the whole thing is read; `()` is for what is asked for by its id alone.
pub trait Whole: Sized {
    fn read(value: Value) -> serde_json::Result<Option<Self>>;
}

impl Whole for () {
    fn read(_: Value) -> serde_json::Result<Option<Self>> {
        Ok(None)
    }
}

/// Says that a type is read as a whole wherever it is named.
macro_rules! whole {
    ($($name:ty),*) => {
        $(
            impl $crate::billing::stripe::Whole for $name {
                fn read(value: ::serde_json::Value) -> ::serde_json::Result<Option<Self>> {
                    ::serde_json::from_value(value).map(Some)
                }
            }
        )*
    };
}
pub(super) use whole;

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Thing {
        name: String,
    }
    whole!(Thing);

    #[rstest]
    #[case(r#""x_1""#, None)]
    #[case(r#"{"id":"x_1","name":"one","more":[]}"#, Some("one"))]
    #[case(r#"{"id":"x_1","deleted":true}"#, None)]
    fn either_has_the_id(#[case] json: &str, #[case] name: Option<&str>) {
        let read: Expandable<String, Thing> = serde_json::from_str(json).unwrap();
        assert_eq!(read.id, "x_1");
        assert_eq!(read.object.map(|thing| thing.name).as_deref(), name);
        let bare: Expandable<String> = serde_json::from_str(json).unwrap();
        assert_eq!((bare.id.as_str(), bare.object), ("x_1", None));
    }

    #[rstest]
    #[case("7")]
    #[case("{}")]
    #[case("null")]
    fn without_an_id_it_is_neither(#[case] json: &str) {
        assert!(serde_json::from_str::<Expandable<String>>(json).is_err());
    }
}
