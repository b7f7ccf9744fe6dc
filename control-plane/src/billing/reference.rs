//! Stripe's names of things. In the database each is kept twice: as a fingerprint to be found by, and sealed, to
//! be called by. No plain one is stored or logged.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::secrets::{KeyRing, Place, SealError};

/// What no id of Stripe's is longer than.
const LONGEST: usize = 255;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no id of Stripe's")]
pub struct NotAnId;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
            #[serde(try_from = "String")]
            pub struct $name(String);

            impl $name {
                #[must_use]
                pub fn as_str(&self) -> &str {
                    &self.0
                }
            }

            impl TryFrom<String> for $name {
                type Error = NotAnId;

                fn try_from(text: String) -> Result<Self, NotAnId> {
                    if is_id(&text) { Ok(Self(text)) } else { Err(NotAnId) }
                }
            }

            impl AsRef<str> for $name {
                fn as_ref(&self) -> &str {
                    &self.0
                }
            }

            impl fmt::Debug for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str(stringify!($name))
                }
            }
        )*
    };
}

ids! {
    CustomerId;
    SubscriptionId;
    /// Of a subscription: the price that it is for.
    ItemId;
    PriceId;
    InvoiceId;
    IntentId;
    /// A saved way to pay.
    MethodId;
    ChargeId;
    RefundId;
    CheckoutId;
    PortalId;
    EventId;
}

/// Ids become parts of paths, and those of old prices are what somebody called them.
fn is_id(text: &str) -> bool {
    let is_of_one = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    (1..=LONGEST).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(is_of_one)
}

/// An id as a row keeps it.
#[derive(Clone, PartialEq, Eq)]
pub struct Kept {
    pub fingerprint: Vec<u8>,
    pub sealed: Vec<u8>,
}

impl Kept {
    /// For the column and row that it will stand in.
    pub fn new(keys: &KeyRing, place: Place, id: impl AsRef<str>) -> Result<Self, SealError> {
        let plain = id.as_ref().as_bytes();
        Ok(Self {
            fingerprint: keys.fingerprint(plain),
            sealed: keys.seal(place, plain)?,
        })
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}

/// What the rows that may keep this id are found by.
#[must_use]
pub fn fingerprints(keys: &KeyRing, id: impl AsRef<str>) -> Vec<Vec<u8>> {
    keys.fingerprints(id.as_ref().as_bytes())
}

/// The id that a row keeps sealed.
pub fn open<T>(
    keys: &KeyRing,
    column: &'static str,
    row: Uuid,
    sealed: &[u8],
) -> Result<T, SealError>
where
    T: TryFrom<String>,
{
    let plain = keys.open(Place { column, row }, sealed)?;
    let text = std::str::from_utf8(&plain).map_err(|_| SealError::Malformed)?;
    T::try_from(text.to_owned()).map_err(|_| SealError::Malformed)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("sub_1Nabc", true)]
    #[case("premium-monthly_2.0", true)]
    #[case("", false)]
    #[case("..", false)]
    #[case("sub_1/cancel", false)]
    #[case("sub_1?expand=customer", false)]
    #[case("sub_1%2f", false)]
    #[case("sub 1", false)]
    #[case(&"a".repeat(256), false)]
    fn an_id_is_one_part_of_a_path(#[case] text: &str, #[case] is_one: bool) {
        assert_eq!(SubscriptionId::try_from(text.to_owned()).is_ok(), is_one);
        let json = serde_json::to_string(text).unwrap();
        assert_eq!(
            serde_json::from_str::<SubscriptionId>(&json).is_ok(),
            is_one
        );
    }

    #[test]
    fn an_id_does_not_show_itself() {
        let id = CustomerId::try_from("cus_hunter2".to_owned()).unwrap();
        assert_eq!(format!("{id:?}"), "CustomerId");
        assert_eq!(serde_json::to_string(&id).unwrap(), r#""cus_hunter2""#);
    }
}
