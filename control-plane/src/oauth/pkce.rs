//! Proof that who exchanges a code is who asked for it (RFC 7636, S256 alone).

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// Base64url of the SHA-256 of a verifier that the app keeps to itself.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Challenge(String);

impl Challenge {
    /// None for what no SHA-256 looks like.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        (bytes.len() == 32).then(|| Self(text.to_owned()))
    }

    /// Whether this is the verifier. What is compared is the hash of what the caller chose, which
    /// the time of the comparison tells nothing about.
    pub(super) fn is_met_by(&self, verifier: &str) -> bool {
        let is_unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        (43..=128).contains(&verifier.len())
            && verifier.bytes().all(is_unreserved)
            && BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)) == self.0
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Challenge")
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// The example of the standard's appendix B.
    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

    #[rstest]
    #[case(VERIFIER, true)]
    #[case("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXK", false)]
    #[case(CHALLENGE, false)]
    #[case("", false)]
    fn only_the_verifier_meets_the_challenge(#[case] verifier: &str, #[case] met: bool) {
        assert_eq!(
            Challenge::parse(CHALLENGE).unwrap().is_met_by(verifier),
            met
        );
    }

    #[rstest]
    #[case("")]
    #[case("short")]
    #[case(&"x".repeat(129))]
    #[case("dBjftJeZ4CVP mB92K27uhbUJU1p1r_wW1gFWFOEjXk")]
    fn a_verifier_has_its_form(#[case] verifier: &str) {
        let hash = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(verifier));
        assert!(!Challenge::parse(&hash).unwrap().is_met_by(verifier));
    }

    #[rstest]
    #[case("")]
    #[case(VERIFIER.split_at(42).0)]
    #[case("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw+cM")]
    #[case("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM=")]
    fn a_challenge_has_its_form(#[case] text: &str) {
        assert!(Challenge::parse(text).is_none());
    }
}
