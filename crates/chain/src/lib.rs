//! Text for one line of the log: an error with its causes, and words from outside.
//!
//! The rule of the house: a `Display` describes its own failure and never prints its source; the
//! edges that show an error to a person (a status message, a log line, a command's last words)
//! print the chain once, with [`Chain`]. Words that clients and actions choose go into messages and the log
//! as [`Printable`], escaped and cut.

mod printable;
mod shell;

use std::error::Error;
use std::fmt;

pub use printable::{Printable, is_deceptive};
pub use shell::{shell_word, visible};

/// Displays an error and all of its sources, separated by `: `.
///
/// ```
/// let error = std::io::Error::other("the disk is gone");
/// assert_eq!(chain::Chain(&error).to_string(), "the disk is gone");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Link {
        text: &'static str,
        source: Option<Box<Link>>,
    }

    #[test]
    fn every_cause_is_printed_once() {
        let link = |text, source: Option<Link>| Link { text, source: source.map(Box::new) };
        let check = |error: Link, expected| assert_eq!(Chain(&error).to_string(), expected);
        check(link("a", None), "a");
        check(link("a", Some(link("b", Some(link("c", None))))), "a: b: c");
    }
}
