//! What came back of what was sent through one tunnel. Pure.

/// One stretch of numbered packets, each of which an echo answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trail {
    answered: Vec<bool>,
}

impl Trail {
    /// The number of the next packet.
    pub fn send(&mut self) -> usize {
        self.answered.push(false);
        self.answered.len() - 1
    }

    /// An answer came. A number that was never sent is somebody else's.
    pub fn answer(&mut self, number: usize) {
        if let Some(answered) = self.answered.get_mut(number) {
            *answered = true;
        }
    }

    #[must_use]
    pub fn sent(&self) -> usize {
        self.answered.len()
    }

    /// Whether anything came back at all.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.answered.contains(&true)
    }

    /// Whether nothing is on its way any more.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        !self.answered.contains(&false)
    }

    /// The newest number that was answered.
    #[must_use]
    pub fn newest(&self) -> Option<usize> {
        self.answered.iter().rposition(|answered| *answered)
    }

    /// The trail without what was lost after the last answer.
    #[must_use]
    pub fn until_the_last_answer(mut self) -> Self {
        let length = self.newest().map_or(0, |newest| newest + 1);
        self.answered.truncate(length);
        self
    }

    /// Packets that were lost since the tunnel first answered, and the most of them in a row.
    #[must_use]
    pub fn lost(&self) -> (usize, usize) {
        let first = self.answered.iter().position(|answered| *answered);
        let since = first.and_then(|first| self.answered.get(first..));
        let (mut lost, mut row, mut longest) = (0, 0, 0);
        for answered in since.unwrap_or_default() {
            if *answered {
                row = 0;
            } else {
                row += 1;
                lost += 1;
                longest = longest.max(row);
            }
        }
        (lost, longest)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::nothing("", (0, 0))]
    #[case::never_open("---", (0, 0))]
    #[case::whole("++++", (0, 0))]
    #[case::before_the_handshake("--+++", (0, 0))]
    #[case::single("+-+-+", (2, 1))]
    #[case::cut("+---+-", (4, 3))]
    #[case::dead_at_the_end("++--", (2, 2))]
    fn counts_what_is_lost_since_the_first_answer(
        #[case] history: &str,
        #[case] lost: (usize, usize),
    ) {
        let mut trail = Trail::default();
        for answered in history.chars() {
            let number = trail.send();
            if answered == '+' {
                trail.answer(number);
            }
        }
        trail.answer(99);
        assert_eq!(trail.lost(), lost);
        assert_eq!(trail.is_open(), history.contains('+'));
        assert_eq!(trail.is_quiet(), !history.contains('-'));
        assert_eq!(trail.newest(), history.rfind('+'));
        let whole = trail.until_the_last_answer();
        assert_eq!(whole.sent(), history.rfind('+').map_or(0, |last| last + 1));
    }
}
