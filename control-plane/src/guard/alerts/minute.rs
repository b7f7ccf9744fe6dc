//! How much of something there was in the last minute. Pure.

const SECONDS: usize = 60;

/// Told once a second.
#[derive(Debug)]
pub(super) struct Minute {
    seconds: [u32; SECONDS],
    next: usize,
    is_above: bool,
}

impl Default for Minute {
    fn default() -> Self {
        Self {
            seconds: [0; SECONDS],
            next: 0,
            is_above: false,
        }
    }
}

impl Minute {
    /// Takes what the last second had. Gives what is to be told while a minute has more than `limit`: at
    /// first the whole minute, then a second at a time.
    pub(super) fn step(&mut self, count: u32, limit: u32) -> u32 {
        if let Some(oldest) = self.seconds.get_mut(self.next) {
            *oldest = count;
        }
        self.next = (self.next + 1) % SECONDS;
        let total = self
            .seconds
            .iter()
            .fold(0, |sum: u32, it| sum.saturating_add(*it));
        let was_above = std::mem::replace(&mut self.is_above, total > limit);
        match (was_above, self.is_above) {
            (_, false) => 0,
            (false, true) => total,
            (true, true) => count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_in_a_minute_is_told_as_long_as_it_is() {
        let mut minute = Minute::default();
        let mut step = |count| minute.step(count, 10);
        assert_eq!([step(4), step(6), step(0)], [0, 0, 0]);
        assert_eq!([step(1), step(5), step(0)], [11, 5, 0]);
        // The first ten leave, and what stays is not too much until more comes. By then one more has left.
        let quiet: Vec<_> = (0..55).map(|_| step(0)).collect();
        assert_eq!(quiet, [0; 55]);
        assert_eq!([step(0), step(4), step(7)], [0, 0, 16]);
    }

    #[test]
    fn any_number_fits() {
        let mut minute = Minute::default();
        assert_eq!(minute.step(u32::MAX, 10), u32::MAX);
        assert_eq!(minute.step(u32::MAX, 10), u32::MAX);
    }
}
