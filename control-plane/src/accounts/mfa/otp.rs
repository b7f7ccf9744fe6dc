//! What somebody gives as `otp`: a code of their authenticator, or a recovery code.

use std::fmt;

use rand::RngCore;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};

use super::code::DIGITS;
use crate::secrets::TokenHash;

/// Crockford's: without letters that are read as others. 32 of them, so that a letter is five bits.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// 80 bits: too many to guess, so that a plain hash of them is enough.
const LETTERS: usize = 16;
const GROUP: usize = 4;

/// One way into the account when the authenticator is lost, such as `7h2k-0qzr-m4xa-9bce`.
#[derive(Clone)]
pub(super) struct RecoveryCode(SecretString);

impl RecoveryCode {
    pub(super) fn generate() -> Self {
        let mut bytes = [0; LETTERS];
        rand::rng().fill_bytes(&mut bytes);
        let letters = bytes.iter().enumerate().flat_map(|(place, byte)| {
            let dash = (place > 0 && place % GROUP == 0).then_some('-');
            let letter = ALPHABET.get(usize::from(byte % 32)).copied();
            dash.into_iter().chain(letter.map(char::from))
        });
        Self(letters.collect::<String>().into())
    }

    pub(super) fn hash(&self) -> TokenHash {
        TokenHash::of(&normalised(self.0.expose_secret()))
    }
}

impl ExposeSecret<str> for RecoveryCode {
    fn expose_secret(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for RecoveryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryCode([redacted])")
    }
}

/// What was given, as far as its form tells.
pub(super) enum Otp {
    Code(SecretString),
    Recovery(TokenHash),
}

impl Otp {
    /// None where it has neither form. Case, spaces and dashes do not matter.
    pub(super) fn parse(given: &str) -> Option<Self> {
        let text = normalised(given);
        if text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Some(Self::Code(text.as_str().into()));
        }
        let is_recovery =
            text.len() == LETTERS && text.bytes().all(|byte| ALPHABET.contains(&byte));
        is_recovery.then(|| Self::Recovery(TokenHash::of(&text)))
    }
}

/// Lower case without separators; a letter that looks like a digit is that digit.
fn normalised(text: &str) -> Zeroizing<String> {
    let letters = text
        .chars()
        .filter(|letter| !letter.is_whitespace() && *letter != '-')
        .map(|letter| match letter.to_ascii_lowercase() {
            'o' => '0',
            'i' | 'l' => '1',
            letter => letter,
        });
    Zeroizing::new(letters.collect())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn hash(text: &str) -> Option<TokenHash> {
        match Otp::parse(text)? {
            Otp::Recovery(hash) => Some(hash),
            Otp::Code(_) => None,
        }
    }

    #[test]
    fn recovery_codes_differ_and_have_their_form() {
        let codes: Vec<_> = (0..100).map(|_| RecoveryCode::generate()).collect();
        let texts: HashSet<_> = codes.iter().map(|code| code.expose_secret()).collect();
        assert_eq!(texts.len(), codes.len());
        for code in &codes {
            let text = code.expose_secret();
            let groups: Vec<_> = text.split('-').map(str::len).collect();
            assert_eq!(groups, [4; 4], "{text}");
            assert!(!format!("{code:?}").contains(text));
            assert!(hash(text) == Some(code.hash()));
        }
    }

    #[rstest]
    #[case("7h2k0qzrm4xa1bce")]
    #[case("7H2K-OQZR-M4XA-IBCE")]
    #[case(" 7h2k oqzr m4xa lbce ")]
    fn a_recovery_code_is_read_however_it_is_typed(#[case] typed: &str) {
        assert!(hash(typed) == hash("7h2k-0qzr-m4xa-1bce") && hash(typed).is_some());
    }

    #[rstest]
    #[case("123456")]
    #[case("123 456")]
    #[case(" 123-456 ")]
    fn six_digits_are_a_code(#[case] typed: &str) {
        match Otp::parse(typed) {
            Some(Otp::Code(code)) => assert_eq!(code.expose_secret(), "123456"),
            _ => panic!("{typed} is a code"),
        }
    }

    #[rstest]
    #[case("")]
    #[case("12345")]
    #[case("1234567")]
    #[case("7h2k-0qzr-m4xa-1bc")]
    #[case("7h2k-0qzr-m4xa-1bcu")]
    #[case("7h2k-0qzr-m4xa-1bcé")]
    #[case("\0")]
    fn anything_else_is_neither(#[case] typed: &str) {
        assert!(Otp::parse(typed).is_none());
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "\\PC*") {
            let _ = Otp::parse(&text);
        }
    }
}
