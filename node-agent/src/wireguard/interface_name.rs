//! A network interface's name, checked once where it enters.

use std::fmt;
use std::str::FromStr;

/// Longest name that the kernel takes (`IFNAMSIZ` less the terminating zero).
const MAX_BYTES: usize = 15;

/// Why a text is not an interface name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an interface name is 1 to 15 letters, digits, `_`, `-` or `.`, and begins with a letter")]
pub struct InvalidInterfaceName;

/// A name that is safe in paths, in nftables identifiers and in netlink attributes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct InterfaceName(String);

impl InterfaceName {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for InterfaceName {
    type Err = InvalidInterfaceName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        let valid = text.len() <= MAX_BYTES
            && text.starts_with(|first: char| first.is_ascii_alphabetic())
            && text.bytes().all(allowed);
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidInterfaceName)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("wg0", true)]
    #[case("prime-vpn.0_a", true)]
    #[case("a23456789012345", true)]
    #[case("a234567890123456", false)]
    #[case("", false)]
    #[case(".", false)]
    #[case("..", false)]
    #[case("0wg", false)]
    #[case("wg/0", false)]
    #[case("wg 0", false)]
    #[case("wg\"", false)]
    #[case("wgé", false)]
    fn takes_only_safe_names(#[case] text: &str, #[case] valid: bool) {
        assert_eq!(text.parse::<InterfaceName>().is_ok(), valid);
    }
}
