//! The pause before the guest is booted again.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

/// Waits in a row before giving up: half a minute of trying.
const MAX_ATTEMPTS: u32 = 10;

/// A guest that lived this long had a reason of its own to end: counting begins anew.
const LIVED: Duration = Duration::from_secs(60);

/// Counts guests that ended soon.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    in_a_row: u32,
}

impl Backoff {
    /// The wait after a guest that lived for `lived`, or the number of those in a row when there
    /// were too many.
    pub(super) fn next(&mut self, lived: Duration) -> Result<Duration, u32> {
        if lived >= LIVED {
            self.in_a_row = 0;
        }
        self.in_a_row += 1;
        if self.in_a_row > MAX_ATTEMPTS {
            return Err(self.in_a_row);
        }
        Ok(LONGEST.min(FIRST * 2_u32.pow(self.in_a_row - 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_then_end() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..MAX_ATTEMPTS).map(|_| backoff.next(Duration::ZERO)).collect();
        let millis = |wait: &Result<Duration, u32>| wait.as_ref().unwrap().as_millis();
        let millis: Vec<_> = waits.iter().map(millis).collect();
        assert_eq!(millis, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000]);
        assert_eq!(backoff.next(Duration::ZERO), Err(11));
    }

    #[test]
    fn a_guest_that_lived_begins_anew() {
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            backoff.next(Duration::ZERO).unwrap();
        }
        assert_eq!(backoff.next(LIVED), Ok(FIRST));
    }
}
