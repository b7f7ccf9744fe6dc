//! E-mail addresses in the one form in which they are stored and compared.

use std::fmt;

use garde::rules::email::parse_email;

use crate::error::ApiError;

/// RFC 5321's limit of a path, less its brackets.
const MAX_LENGTH: usize = 254;

/// A valid address, trimmed and in lower case. Never logged: `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Email(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Must be a valid email address")]
pub struct InvalidEmail;

impl Email {
    pub fn parse(text: &str) -> Result<Self, InvalidEmail> {
        let text = normalised(text);
        if text.len() > MAX_LENGTH {
            return Err(InvalidEmail);
        }
        parse_email(&text).map_err(|_| InvalidEmail)?;
        Ok(Self(text))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The form in which addresses are compared, of whatever somebody typed.
pub(super) fn normalised(text: &str) -> String {
    text.trim().to_lowercase()
}

/// A rule for garde.
pub(super) fn is_email(text: &str, (): &()) -> garde::Result {
    Email::parse(text).map(drop).map_err(garde::Error::new)
}

impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Email([redacted])")
    }
}

impl From<InvalidEmail> for ApiError {
    fn from(error: InvalidEmail) -> Self {
        Self::invalid("email", error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("anna@example.org", "anna@example.org")]
    #[case("  Anna.B+vpn@Example.ORG ", "anna.b+vpn@example.org")]
    fn an_address_is_normalised(#[case] given: &str, #[case] stored: &str) {
        assert_eq!(Email::parse(given).unwrap().as_str(), stored);
    }

    #[rstest]
    #[case("")]
    #[case("anna")]
    #[case("anna@")]
    #[case("@example.org")]
    #[case("anna@exam ple.org")]
    #[case("anna\0@example.org")]
    #[case("anna@example.org\r\nBcc: x@example.org")]
    #[case(&format!("a@{}.org", "x".repeat(250)))]
    fn anything_else_is_refused(#[case] given: &str) {
        assert_eq!(Email::parse(given), Err(InvalidEmail));
    }

    #[test]
    fn an_address_is_not_shown() {
        assert!(!format!("{:?}", Email::parse("anna@example.org")).contains("anna"));
    }
}
