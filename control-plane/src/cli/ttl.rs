//! Times on the command line.

use std::time::Duration;

/// Reads a number with a unit, such as 90s, 10m, 24h or 30d.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || "takes a number with a unit, such as 90s, 10m, 24h or 30d".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text.trim_end_matches(unit).parse().map_err(|_| wrong())?;
    number
        .checked_mul(seconds)
        .filter(|seconds| *seconds > 0)
        .map(Duration::from_secs)
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("90s", Some(90))]
    #[case("10m", Some(600))]
    #[case("24h", Some(86_400))]
    #[case("30d", Some(2_592_000))]
    #[case("0m", None)]
    #[case("10", None)]
    #[case("", None)]
    #[case("m", None)]
    #[case("-1m", None)]
    #[case("99999999999999999999h", None)]
    fn reads_ttls(#[case] text: &str, #[case] seconds: Option<u64>) {
        assert_eq!(parse(text).ok().map(|ttl| ttl.as_secs()), seconds);
    }
}
