//! Rates as people read them.

const UNITS: [&str; 4] = ["KB/s", "MB/s", "GB/s", "TB/s"];

/// Bytes a second in decimal units, such as `1.2 MB/s`.
#[must_use]
pub fn rate(bytes_per_second: f64) -> String {
    if bytes_per_second.is_nan() || bytes_per_second < 999.5 {
        return format!("{:.0} B/s", bytes_per_second.max(0.0));
    }
    let mut value = bytes_per_second / 1000.0;
    let mut units = UNITS.iter();
    let mut unit = units.next();
    // 999.95 would be printed as 1000.0.
    while value >= 999.95 && units.len() > 0 {
        value /= 1000.0;
        unit = units.next();
    }
    format!("{value:.1} {}", unit.copied().unwrap_or_default())
}

/// Bytes a second as megabits a second, to three digits behind the point.
#[must_use]
pub fn megabits(bytes_per_second: f64) -> f64 {
    (bytes_per_second * 8.0 / 1000.0).round() / 1000.0
}

/// Bytes a second as whole bits a second.
#[must_use]
#[expect(
    clippy::as_conversions,
    reason = "such a conversion rounds to the nearest bound, as is wanted"
)]
pub fn bits(bytes_per_second: f64) -> u64 {
    (bytes_per_second * 8.0).round() as u64
}

/// A count as a number for arithmetic; exact up to 2⁵³.
#[must_use]
#[expect(
    clippy::as_conversions,
    reason = "u64 has no lossless way to f64, and a rate needs none"
)]
pub const fn real(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(0.0, "0 B/s")]
    #[case(-3.0, "0 B/s")]
    #[case(f64::NAN, "0 B/s")]
    #[case(999.4, "999 B/s")]
    #[case(999.6, "1.0 KB/s")]
    #[case(1_234_567.0, "1.2 MB/s")]
    #[case(999_960.0, "1.0 MB/s")]
    #[case(3.5e9, "3.5 GB/s")]
    #[case(1e18, "1000000.0 TB/s")]
    fn rates_are_short(#[case] bytes: f64, #[case] text: &str) {
        assert_eq!(rate(bytes), text);
    }

    #[test]
    fn bits_are_whole_and_never_negative() {
        assert_eq!(bits(125.06), 1000);
        assert_eq!(bits(-1.0), 0);
        assert_eq!(bits(f64::NAN), 0);
        assert_eq!(bits(f64::INFINITY), u64::MAX);
    }

    #[test]
    fn megabits_are_decimal() {
        assert!((megabits(125_000.0) - 1.0).abs() < f64::EPSILON);
        assert!((megabits(1_234.5) - 0.01).abs() < f64::EPSILON);
    }
}
