//! Codes of an authenticator app: RFC 6238 with SHA-1, six digits and steps of 30 seconds, which is
//! what every app can do. Pure: the time is passed in.

use std::fmt;

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use totp_rs::{Builder, Secret, Totp, TotpError};

pub(super) const DIGITS: usize = 6;

/// How many steps a phone's clock may be off.
const SKEW: u16 = 1;

/// A secret that an authenticator app and we share.
pub(super) struct Authenticator(Totp);

impl Authenticator {
    pub(super) fn generate() -> Result<Self, TotpError> {
        Self::with(Secret::generate())
    }

    pub(super) fn from_bytes(secret: &[u8]) -> Result<Self, TotpError> {
        Self::with(Secret::from(secret))
    }

    fn with(secret: Secret) -> Result<Self, TotpError> {
        let totp = Builder::new().with_secret(secret).with_skew(SKEW).build();
        totp.map(Self)
    }

    pub(super) fn secret(&self) -> &[u8] {
        self.0.secret().as_bytes()
    }

    /// The secret as people type it into an app.
    pub(super) fn as_base32(&self) -> SecretString {
        self.0.secret().to_base32().into()
    }

    /// The secret as an app scans it. Neither name may have a colon in the format's label.
    pub(super) fn as_url(&self, issuer: &str, account: &str) -> Result<SecretString, TotpError> {
        let labelled = Builder::new()
            .with_secret(Secret::from(self.secret()))
            .with_issuer(Some(issuer.replace(':', " ")))
            .with_account_name(account.replace(':', " "))
            .build()?;
        labelled.to_url().map(SecretString::from)
    }

    /// The step whose code this is, if it is one of those around `now`. Compares in constant time.
    pub(super) fn step_of(&self, code: &str, now: DateTime<Utc>) -> Option<i64> {
        let seconds = u64::try_from(now.timestamp()).ok()?;
        let step = self.0.check(code, seconds)?;
        i64::try_from(step).ok()
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authenticator([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use secrecy::ExposeSecret;

    use super::*;

    /// The secret of RFC 6238's own table.
    const SECRET: &[u8] = b"12345678901234567890";

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    fn step(code: &str, seconds: i64) -> Option<i64> {
        let authenticator = Authenticator::from_bytes(SECRET).unwrap();
        authenticator.step_of(code, at(seconds))
    }

    #[rstest]
    #[case(59, "287082")]
    #[case(1_111_111_109, "081804")]
    #[case(1_234_567_890, "005924")]
    #[case(2_000_000_000, "279037")]
    fn the_codes_are_those_of_the_standard(#[case] seconds: i64, #[case] code: &str) {
        assert_eq!(step(code, seconds), Some(seconds / 30));
    }

    #[rstest]
    #[case::two_steps_early(-60, false)]
    #[case::a_step_early(-30, true)]
    #[case::a_step_late(30, true)]
    #[case::two_steps_late(60, false)]
    fn a_clock_may_be_one_step_off(#[case] off: i64, #[case] accepted: bool) {
        let time = 1_111_111_109;
        let found = step("081804", time + off);
        assert_eq!(found, accepted.then_some(time / 30));
    }

    #[rstest]
    #[case("")]
    #[case("28708")]
    #[case("2870820")]
    #[case("28708x")]
    #[case("٢٨٧٠٨٢")]
    fn what_is_no_code_is_none(#[case] code: &str) {
        assert_eq!(step(code, 59), None);
    }

    #[test]
    fn secrets_differ_and_are_not_shown() {
        let [one, two] = [(); 2].map(|()| Authenticator::generate().unwrap());
        assert_ne!(one.secret(), two.secret());
        assert_eq!(one.secret().len(), 20);
        assert_eq!(format!("{one:?}"), "Authenticator([redacted])");
    }

    #[test]
    fn an_app_reads_the_same_secret_from_the_url() {
        let made = Authenticator::generate().unwrap();
        let url = made.as_url("Prime: VPN", "a:b@example.org").unwrap();
        let read = Totp::from_url(url.expose_secret()).unwrap();
        assert_eq!(read.secret().as_bytes(), made.secret());
        assert_eq!(read.issuer(), Some("Prime  VPN"));
        assert_eq!(read.account_name(), "a b@example.org");
        let typed = Secret::try_from_base32(made.as_base32().expose_secret()).unwrap();
        assert_eq!(typed.as_bytes(), made.secret());
    }

    proptest! {
        #[test]
        fn any_text_is_at_most_wrong(text in "\\PC{0,12}", seconds in i64::MIN / 2000..i64::MAX / 2000) {
            if let Some(now) = DateTime::from_timestamp(seconds, 0) {
                let authenticator = Authenticator::from_bytes(SECRET).unwrap();
                if let Some(step) = authenticator.step_of(&text, now) {
                    prop_assert!((step - seconds / 30).abs() <= 1);
                }
            }
        }
    }
}
