//! Outputs of an action that are missing in its result, and the reasons.
//!
//! Nothing here ends an action's life: its exit code, its streams and every output that could be
//! stored are in the result, whatever else could not. Where the action itself failed, clients are
//! told of that; the losses are in `ExecuteResponse.message`. Where it succeeded, the first loss is
//! the status of the answer, and the message names what the status does not.

use std::fmt::Write as _;

use crate::error::ActionError;

/// The losses that are told one by one. More would only push each other off a terminal, and a
/// hostile action can make millions.
const MAX_TOLD: usize = 20;

/// The outputs of one action that could not be stored, in the order in which they were met.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    told: Vec<Loss>,
    /// Those beyond [`MAX_TOLD`].
    untold: u64,
}

/// One output, a part of one, or a stream that could not be stored.
#[derive(Debug)]
struct Loss {
    what: String,
    why: ActionError,
}

impl Losses {
    /// One more: `what` is a path, or the name of a stream; `why` names it too.
    pub(crate) fn push(&mut self, what: &str, why: ActionError) {
        if self.told.len() < MAX_TOLD {
            self.told.push(Loss { what: what.to_owned(), why });
        } else {
            self.untold += 1;
        }
    }

    /// All of `others`, after those that are here.
    pub(crate) fn append(&mut self, others: Self) {
        let room = MAX_TOLD - self.told.len();
        self.untold += others.untold + others.told.len().saturating_sub(room) as u64;
        self.told.extend(others.told.into_iter().take(room));
    }

    /// The error that the status of an otherwise good action tells.
    pub(crate) fn first(&self) -> Option<&ActionError> {
        self.told.first().map(|loss| &loss.why)
    }

    /// Words for `ExecuteResponse.message`; empty if nothing was lost. `status_has_first` says that
    /// the status gives the reason of the first one.
    pub(crate) fn message(&self, status_has_first: bool) -> String {
        let mut message = String::new();
        for (index, Loss { what, why }) in self.told.iter().enumerate() {
            message += if index == 0 { "not in the result: " } else { "; " };
            // Writing to a string does not fail.
            let _ = if index == 0 && status_has_first {
                write!(message, "{}", quoted(what))
            } else {
                write!(message, "{why}")
            };
        }
        if self.untold > 0 {
            let _ = write!(message, "; and {} more", self.untold);
        }
        message
    }
}

/// A name that an action chose, in quotes and without what a terminal would obey.
pub(crate) fn quoted(what: &str) -> String {
    format!("`{}`", what.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn losses(count: usize) -> Losses {
        let mut losses = Losses::default();
        for number in 0..count {
            let why = ActionError::Unsupported(format!("`out{number}` is a pipe"));
            losses.push(&format!("out{number}"), why);
        }
        losses
    }

    #[test]
    fn the_message_says_what_the_status_does_not() {
        let check = |count, status_has_first, expected| {
            assert_eq!(losses(count).message(status_has_first), expected);
        };
        check(0, true, "");
        check(0, false, "");
        check(1, true, "not in the result: `out0`");
        check(1, false, "not in the result: `out0` is a pipe");
        check(2, true, "not in the result: `out0`; `out1` is a pipe");
        check(2, false, "not in the result: `out0` is a pipe; `out1` is a pipe");
    }

    #[test]
    fn a_million_losses_are_counted() {
        let message = losses(1_000_000).message(false);
        assert!(message.ends_with("`out19` is a pipe; and 999980 more"), "{message}");
    }

    #[test]
    fn appended_losses_come_after_and_are_bounded_too() {
        for (one, other) in [(0, 3), (3, 0), (19, 3), (25, 25)] {
            let mut all = losses(one);
            all.append(losses(other));
            assert_eq!(all.told.len() + all.untold as usize, one + other);
            assert_eq!(all.told.len(), (one + other).min(MAX_TOLD));
        }
    }

    #[test]
    fn names_cannot_command_a_terminal() {
        let mut losses = Losses::default();
        losses.push("a\x1b[2Jb\n", ActionError::Cancelled);
        assert_eq!(losses.message(true), r"not in the result: `a\u{1b}[2Jb\n`");
    }
}
