//! The moment at which an action's time is over.
//!
//! Only PID 1 knows when it executed the command. It is not asked before the timeout has passed since the
//! request, so that an action which ends in time costs no message.

use std::time::{Duration, Instant};

use crate::daemon::exit::monotonic_ns;

/// The time that killed processes have to die. They die at once, unless they hang in the kernel; then their
/// sandbox is given up. A helper has as long to say when an action started.
pub(super) const DEATH: Duration = Duration::from_secs(10);

/// The longest time that the start of an action is taken to last, whatever its helper says.
const START_MAX: Duration = Duration::from_secs(60);

/// The pause before the helper is asked again whether an action has started.
const START_PAUSE: Duration = Duration::from_millis(10);

/// See the module.
#[derive(Debug)]
pub(super) struct Deadline {
    timeout: Duration,
    requested: Instant,
    /// The next moment to look.
    pub(super) at: Instant,
    asked: Asked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// The helper is yet to be asked.
    No,
    /// Its answer is awaited, until [`Deadline::at`].
    Waiting,
    /// [`Deadline::at`] is the end.
    Known,
}

/// The next act on a deadline.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    TooEarly,
    Ask,
    Passed,
}

impl Deadline {
    /// The deadline of an action that is requested now; `None` if no clock gets so far.
    pub(super) fn new(timeout: Duration) -> Option<Self> {
        let requested = Instant::now();
        let at = requested.checked_add(timeout)?;
        at.checked_add(START_MAX)?;
        Some(Self { timeout, requested, at, asked: Asked::No })
    }

    pub(super) fn look(&mut self, now: Instant) -> Look {
        match self.asked {
            _ if now < self.at => Look::TooEarly,
            Asked::No => {
                (self.asked, self.at) = (Asked::Waiting, now + DEATH);
                Look::Ask
            }
            // A helper that does not answer is as good as an action that does not end.
            Asked::Waiting | Asked::Known => Look::Passed,
        }
    }

    /// The helper's answer to [`Look::Ask`]; 0 if the action has not started.
    pub(super) fn answer(&mut self, started_ns: u64) {
        let latest = self.requested + self.timeout + START_MAX;
        let now = Instant::now();
        if started_ns == 0 {
            (self.asked, self.at) = (Asked::No, now + START_PAUSE);
            if self.at > latest {
                self.asked = Asked::Known;
            }
            return;
        }
        let ago = Duration::from_nanos(monotonic_ns().saturating_sub(started_ns));
        let started = now.checked_sub(ago).unwrap_or(self.requested).max(self.requested);
        (self.asked, self.at) = (Asked::Known, (started + self.timeout).min(latest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deadline(timeout_s: u64, requested_ago_s: u64) -> Deadline {
        let now = Instant::now();
        let requested = now - Duration::from_secs(requested_ago_s);
        let timeout = Duration::from_secs(timeout_s);
        Deadline { timeout, requested, at: requested + timeout, asked: Asked::No }
    }

    fn started_ago(seconds: u64) -> u64 {
        monotonic_ns() - seconds * 1_000_000_000
    }

    #[test]
    fn the_time_before_the_start_is_not_the_actions() {
        let mut deadline = deadline(100, 120);
        assert_eq!(deadline.look(Instant::now()), Look::Ask);
        assert_eq!(deadline.look(Instant::now()), Look::TooEarly, "the answer is awaited");
        deadline.answer(started_ago(90));
        assert_eq!(deadline.look(Instant::now()), Look::TooEarly);
        assert_eq!(deadline.look(Instant::now() + Duration::from_secs(11)), Look::Passed);
    }

    #[test]
    fn an_action_that_is_over_time_is_killed() {
        let mut deadline = deadline(100, 120);
        assert_eq!(deadline.look(Instant::now()), Look::Ask);
        deadline.answer(started_ago(101));
        assert_eq!(deadline.look(Instant::now()), Look::Passed);
    }

    #[test]
    fn an_action_that_has_not_started_is_asked_for_again() {
        let mut deadline = deadline(100, 120);
        assert_eq!(deadline.look(Instant::now()), Look::Ask);
        deadline.answer(0);
        assert_eq!(deadline.look(Instant::now() + START_PAUSE), Look::Ask);
    }

    #[test]
    fn a_helper_that_lies_or_is_silent_gains_a_minute() {
        let mut liar = deadline(100, 161);
        assert_eq!(liar.look(Instant::now()), Look::Ask);
        liar.answer(started_ago(0));
        assert_eq!(liar.look(Instant::now()), Look::Passed);
        let mut never = deadline(100, 161);
        never.look(Instant::now());
        never.answer(0);
        assert_eq!(never.look(Instant::now() + START_PAUSE), Look::Passed);
        let mut silent = deadline(100, 101);
        assert_eq!(silent.look(Instant::now()), Look::Ask);
        assert_eq!(silent.look(Instant::now() + DEATH), Look::Passed);
    }

    #[test]
    fn a_timeout_beyond_all_clocks_is_none() {
        assert!(Deadline::new(Duration::MAX).is_none());
        assert!(Deadline::new(Duration::from_secs(1)).is_some());
    }
}
