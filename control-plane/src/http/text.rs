//! Texts that people write and that are shown to people.

/// A rule for garde: no control characters. Postgres takes no NUL, and nobody's name needs a newline.
/// A schema says it with the pattern `^[^\u0000-\u001f\u007f-\u009f]*$`.
pub fn plain(text: &str, (): &()) -> garde::Result {
    if text.chars().any(char::is_control) {
        return Err(garde::Error::new("must not contain control characters"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("", true)]
    #[case("Anna Example", true)]
    #[case("Zoë 👩‍🚀", true)]
    #[case("a\0b", false)]
    #[case("a\nb", false)]
    #[case("\u{7f}", false)]
    #[case("\u{85}", false)]
    fn control_characters_are_refused(#[case] text: &str, #[case] accepted: bool) {
        assert_eq!(plain(text, &()).is_ok(), accepted);
    }
}
