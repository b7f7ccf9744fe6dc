//! Whether Stripe sent what came: `Stripe-Signature: t=<seconds>,v1=<HMAC-SHA256 of "<seconds>.<body>">`. Pure.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::hmac;
use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};

/// Stripe signs with each secret that the endpoint has at the time.
const MOST: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error("there is no signature")]
    Missing,
    #[error("the signature cannot be read")]
    Malformed,
    #[error("the signature is not of these bytes, or of nobody we know")]
    Forged,
    #[error("the signature is of another time")]
    Stale,
}

impl SignatureError {
    /// Whether it was made to be believed. What shows no signature, or none that can be read, is a scanner.
    pub(super) const fn is_somebodys_doing(self) -> bool {
        matches!(self, Self::Forged | Self::Stale)
    }
}

/// What the webhook's events are signed with.
pub struct Verifier {
    keys: Vec<hmac::Key>,
    tolerance: Duration,
}

impl Verifier {
    #[must_use]
    pub fn new(secrets: &[SecretString], tolerance: Duration) -> Self {
        let key = |secret: &SecretString| {
            hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes())
        };
        Self {
            keys: secrets.iter().map(key).collect(),
            tolerance,
        }
    }

    /// Whether one of the secrets signed exactly these bytes, and about now. Each comparison takes the same time
    /// whatever differs.
    pub fn verify(
        &self,
        header: Option<&str>,
        body: &[u8],
        now: DateTime<Utc>,
    ) -> Result<(), SignatureError> {
        let header = header.ok_or(SignatureError::Missing)?;
        let Signed { time, signatures } = parse(header).ok_or(SignatureError::Malformed)?;
        let message = [time.as_bytes(), b".", body].concat();
        let is_by = |key: &hmac::Key| {
            let is_it = |signature: &Vec<u8>| hmac::verify(key, &message, signature).is_ok();
            signatures.iter().any(is_it)
        };
        if !self.keys.iter().any(is_by) {
            return Err(SignatureError::Forged);
        }
        let seconds: i64 = time.parse().map_err(|_| SignatureError::Malformed)?;
        let apart = now.timestamp().abs_diff(seconds);
        if apart > self.tolerance.as_secs() {
            return Err(SignatureError::Stale);
        }
        Ok(())
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("keys", &self.keys.len())
            .field("tolerance", &self.tolerance)
            .finish()
    }
}

struct Signed<'a> {
    /// As it is written: it is part of what is signed.
    time: &'a str,
    signatures: Vec<Vec<u8>>,
}

/// Other schemes than `v1` are passed over: `v0` is for tests, and was never meant to prove anything.
fn parse(header: &str) -> Option<Signed<'_>> {
    let mut time = None;
    let mut signatures = Vec::new();
    for part in header.split(',') {
        let (name, value) = part.trim().split_once('=')?;
        match name {
            "t" if time.is_none() => time = Some(value),
            "t" => return None,
            "v1" if signatures.len() < MOST => signatures.push(hex::decode(value).ok()?),
            "v1" => return None,
            _ => {}
        }
    }
    let time = time.filter(|it| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_digit()))?;
    (!signatures.is_empty()).then_some(Signed { time, signatures })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    const BODY: &[u8] = br#"{"id":"evt_1","type":"invoice.paid"}"#;
    const NOW: i64 = 1_800_000_000;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(NOW, 0).unwrap()
    }

    fn verifier(secrets: &[&str]) -> Verifier {
        let secrets: Vec<_> = secrets.iter().map(|it| SecretString::from(*it)).collect();
        Verifier::new(&secrets, Duration::from_secs(300))
    }

    fn sign(secret: &str, time: i64, body: &[u8]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let message = [time.to_string().as_bytes(), b".", body].concat();
        hex::encode(hmac::sign(&key, &message))
    }

    fn header(secret: &str, time: i64) -> String {
        format!("t={time},v1={}", sign(secret, time, BODY))
    }

    #[rstest]
    #[case(&["new"], Ok(()))]
    #[case(&["old", "new"], Ok(()))]
    #[case(&["old"], Err(SignatureError::Forged))]
    #[case(&[], Err(SignatureError::Forged))]
    fn any_of_our_secrets_will_do(
        #[case] secrets: &[&str],
        #[case] expected: Result<(), SignatureError>,
    ) {
        let header = header("new", NOW);
        assert_eq!(
            verifier(secrets).verify(Some(&header), BODY, now()),
            expected
        );
    }

    #[test]
    fn any_of_its_signatures_will_do() {
        let (ours, other) = (sign("ours", NOW, BODY), sign("other", NOW, BODY));
        let header = format!("t={NOW}, v1={other}, v1={ours}, v0=none");
        assert_eq!(
            verifier(&["ours"]).verify(Some(&header), BODY, now()),
            Ok(())
        );
    }

    #[rstest]
    #[case(-300, Ok(()))]
    #[case(300, Ok(()))]
    #[case(-301, Err(SignatureError::Stale))]
    #[case(301, Err(SignatureError::Stale))]
    fn it_is_of_about_now(#[case] seconds: i64, #[case] expected: Result<(), SignatureError>) {
        let header = header("ours", NOW + seconds);
        assert_eq!(
            verifier(&["ours"]).verify(Some(&header), BODY, now()),
            expected
        );
    }

    #[rstest]
    #[case("")]
    #[case("t=1")]
    #[case("v1=00")]
    #[case("t=,v1=00")]
    #[case("t=-1,v1=00")]
    #[case("t=+1,v1=00")]
    #[case("t=1,t=2,v1=00")]
    #[case("t=1,v1=xy")]
    #[case("t=1,v0=00")]
    #[case("nothing")]
    #[case("t=1,v1=00,v1=00,v1=00,v1=00,v1=00,v1=00,v1=00,v1=00,v1=00")]
    fn what_is_none_is_malformed(#[case] header: &str) {
        let verified = verifier(&["ours"]).verify(Some(header), BODY, now());
        assert_eq!(verified, Err(SignatureError::Malformed));
    }

    #[test]
    fn a_signature_of_another_time_or_scheme_is_no_signature() {
        let signature = sign("ours", NOW - 1, BODY);
        for header in [
            format!("t={NOW},v1={signature}"),
            format!("t={NOW},v1={}", &signature[..62]),
            format!("t=0{NOW},v1={}", sign("ours", NOW, BODY)),
            format!("t=99999999999999999999,v1={signature}"),
        ] {
            let verified = verifier(&["ours"]).verify(Some(&header), BODY, now());
            assert_eq!(verified, Err(SignatureError::Forged), "{header}");
        }
        let none = verifier(&["ours"]).verify(None, BODY, now());
        assert_eq!(none, Err(SignatureError::Missing));
    }

    proptest! {
        #[test]
        fn a_changed_body_is_not_what_was_signed(at in 0..BODY.len(), bit in 0_u8..8, cut in 0..BODY.len()) {
            let header = header("ours", NOW);
            let mut changed = BODY.to_vec();
            changed[at] ^= 1 << bit;
            for body in [&changed[..], &BODY[..cut], b""] {
                let verified = verifier(&["ours"]).verify(Some(&header), body, now());
                prop_assert_eq!(verified, Err(SignatureError::Forged));
            }
        }

        #[test]
        fn no_header_is_too_strange(header in "\\PC*") {
            prop_assert!(verifier(&["ours"]).verify(Some(&header), BODY, now()).is_err());
        }
    }
}
