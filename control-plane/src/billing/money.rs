//! Money as whole minor units with their currency.
//!
//! How many decimals a currency has is Stripe's word, not the standard's: an amount goes there as it is
//! stored. Outside it is a decimal number beside the currency's code.

use std::fmt;
use std::str::FromStr;

/// The largest amount that Stripe takes has eight digits.
const MAX_MINOR: i64 = 99_999_999;

/// Currencies without decimals.
const WHOLE: [&str; 15] = [
    "BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF",
    "XOF", "XPF",
];
/// Currencies with three decimals, of which the last is always zero.
const THOUSANDTHS: [&str; 5] = ["BHD", "JOD", "KWD", "OMR", "TND"];
/// Currencies without decimals that are nevertheless told with two, which are zero.
const WHOLE_IN_HUNDREDTHS: [&str; 2] = ["ISK", "UGX"];

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    #[error("must be the code of a currency, such as USD")]
    Currency,
    #[error("must be an amount of at least zero, with no more decimals than its currency has")]
    Amount,
    #[error("must not have more than eight digits")]
    TooLarge,
}

impl MoneyError {
    /// The sentence that a caller reads.
    #[must_use]
    pub fn sentence(self) -> String {
        let text = self.to_string();
        text.strip_prefix('m')
            .map_or(text.clone(), |rest| format!("M{rest}"))
    }
}

/// The three letters of a currency, in upper case.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Currency([u8; 3]);

impl Currency {
    pub const USD: Self = Self(*b"USD");

    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// How many of the amount's last digits are decimals.
    #[must_use]
    pub fn decimals(self) -> u8 {
        let code = self.as_str();
        if WHOLE.contains(&code) {
            0
        } else if THOUSANDTHS.contains(&code) {
            3
        } else {
            2
        }
    }

    /// What every amount is a multiple of.
    fn step(self) -> i64 {
        let code = self.as_str();
        if THOUSANDTHS.contains(&code) {
            10
        } else if WHOLE_IN_HUNDREDTHS.contains(&code) {
            100
        } else {
            1
        }
    }
}

impl FromStr for Currency {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let letters: [u8; 3] = text
            .as_bytes()
            .try_into()
            .map_err(|_| MoneyError::Currency)?;
        if !letters.iter().all(u8::is_ascii_alphabetic) {
            return Err(MoneyError::Currency);
        }
        Ok(Self(letters.map(|letter| letter.to_ascii_uppercase())))
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Money {
    pub minor: i64,
    pub currency: Currency,
}

impl Money {
    /// From a decimal number as it is written, such as `9.99`.
    pub fn parse(decimal: &str, currency: Currency) -> Result<Self, MoneyError> {
        let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal, ""));
        let decimals = usize::from(currency.decimals());
        let fraction = fraction.trim_end_matches('0');
        let is_number = !whole.is_empty()
            && [whole, fraction]
                .iter()
                .all(|part| part.bytes().all(|digit| digit.is_ascii_digit()));
        if !is_number || fraction.len() > decimals {
            return Err(MoneyError::Amount);
        }
        let whole = whole.trim_start_matches('0');
        let minor = match format!("{whole}{fraction:0<decimals$}") {
            digits if digits.is_empty() => 0,
            digits => digits.parse().map_err(|_| MoneyError::TooLarge)?,
        };
        Self { minor, currency }.checked()
    }

    /// The amount itself if it can be charged in its currency.
    pub fn checked(self) -> Result<Self, MoneyError> {
        if self.minor > MAX_MINOR {
            return Err(MoneyError::TooLarge);
        }
        if self.minor < 0 || self.minor % self.currency.step() != 0 {
            return Err(MoneyError::Amount);
        }
        Ok(self)
    }

    /// The decimal number, with the decimals of its currency.
    #[must_use]
    pub fn decimal(self) -> String {
        let decimals = usize::from(self.currency.decimals());
        let sign = if self.minor < 0 { "-" } else { "" };
        let digits = format!(
            "{:0>width$}",
            self.minor.unsigned_abs(),
            width = decimals + 1
        );
        let (whole, fraction) = digits.split_at(digits.len().saturating_sub(decimals));
        if fraction.is_empty() {
            format!("{sign}{whole}")
        } else {
            format!("{sign}{whole}.{fraction}")
        }
    }

    /// The same for JSON: the nearest number, which is written as the decimal is.
    #[must_use]
    pub fn number(self) -> f64 {
        self.decimal().parse().unwrap_or_default()
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.decimal(), self.currency)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn currency(code: &str) -> Currency {
        code.parse().expect("a currency")
    }

    #[rstest]
    #[case("USD", "9.99", 999)]
    #[case("usd", "9.9", 990)]
    #[case("EUR", "0", 0)]
    #[case("EUR", "0.01", 1)]
    #[case("USD", "100", 10_000)]
    #[case("USD", "007.50", 750)]
    #[case("USD", "9.990000", 999)]
    #[case("JPY", "500", 500)]
    #[case("JPY", "500.0", 500)]
    #[case("KWD", "5.12", 5120)]
    #[case("ISK", "5", 500)]
    #[case("UGX", "5", 500)]
    #[case("USD", "999999.99", 99_999_999)]
    fn an_amount_becomes_minor_units(#[case] code: &str, #[case] text: &str, #[case] minor: i64) {
        let money = Money::parse(text, currency(code)).expect("an amount");
        assert_eq!((money.minor, money.currency), (minor, currency(code)));
    }

    #[rstest]
    #[case("USD", "9.999", MoneyError::Amount)]
    #[case("JPY", "0.5", MoneyError::Amount)]
    #[case("KWD", "5.124", MoneyError::Amount)]
    #[case("UGX", "5.5", MoneyError::Amount)]
    #[case("USD", "-1", MoneyError::Amount)]
    #[case("USD", "", MoneyError::Amount)]
    #[case("USD", ".5", MoneyError::Amount)]
    #[case("USD", "1e3", MoneyError::Amount)]
    #[case("USD", "NaN", MoneyError::Amount)]
    #[case("USD", "1.2.3", MoneyError::Amount)]
    #[case("USD", "1000000", MoneyError::TooLarge)]
    #[case("USD", "99999999999999999999999", MoneyError::TooLarge)]
    fn what_cannot_be_charged_is_refused(
        #[case] code: &str,
        #[case] text: &str,
        #[case] error: MoneyError,
    ) {
        assert_eq!(Money::parse(text, currency(code)), Err(error));
    }

    #[rstest]
    #[case("US")]
    #[case("USDT")]
    #[case("U5D")]
    #[case("€")]
    fn a_currency_is_three_letters(#[case] text: &str) {
        assert_eq!(text.parse::<Currency>(), Err(MoneyError::Currency));
    }

    #[rstest]
    #[case("USD", 999, "9.99", 9.99)]
    #[case("USD", 5, "0.05", 0.05)]
    #[case("USD", -250, "-2.50", -2.5)]
    #[case("JPY", 500, "500", 500.0)]
    #[case("KWD", 5120, "5.120", 5.12)]
    fn minor_units_become_a_decimal(
        #[case] code: &str,
        #[case] minor: i64,
        #[case] text: &str,
        #[case] number: f64,
    ) {
        let money = Money {
            minor,
            currency: currency(code),
        };
        assert_eq!(money.decimal(), text);
        assert!((money.number() - number).abs() < f64::EPSILON);
        assert_eq!(money.to_string(), format!("{text} {code}"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(minor in 0..MAX_MINOR, code in "(USD|JPY|KWD|UGX|XAF)") {
            let currency = currency(&code);
            let money = Money { minor: minor - minor % currency.step(), currency };
            prop_assert_eq!(Money::parse(&money.decimal(), currency), Ok(money));
            // As JSON has it, whatever its number of decimals.
            prop_assert_eq!(Money::parse(&money.number().to_string(), currency), Ok(money));
        }
    }
}
