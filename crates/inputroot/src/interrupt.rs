//! The end of a presentation that takes too long, when nobody waits for it any more.

use std::fmt;

use crate::error::PresentError;

/// Tells whether presenting an input root is to end before it is done. The default never does.
#[derive(Clone, Copy)]
pub struct Interrupt<'a>(&'a dyn Fn() -> bool);

impl<'a> Interrupt<'a> {
    /// The number of entries between two questions: making them takes far longer than the answer.
    const ENTRIES: usize = 64;

    /// An interrupt that comes when `is_due` returns true.
    pub fn when(is_due: &'a dyn Fn() -> bool) -> Self {
        Self(is_due)
    }

    /// Asks if the next entry is a 64th one, `made` being those before it.
    ///
    /// # Errors
    /// [`PresentError::Interrupted`].
    pub(crate) fn check(self, made: usize) -> Result<(), PresentError> {
        let is_asked = made % Self::ENTRIES == Self::ENTRIES - 1;
        if is_asked && (self.0)() { Err(PresentError::Interrupted) } else { Ok(()) }
    }
}

impl Default for Interrupt<'_> {
    fn default() -> Self {
        Self(&|| false)
    }
}

impl fmt::Debug for Interrupt<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Interrupt")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_asked_for_every_64th_entry() {
        let is_due = || true;
        let interrupted = |made: usize| Interrupt::when(&is_due).check(made).is_err();
        let stops: Vec<_> = (0..200).filter(|made| interrupted(*made)).collect();
        assert_eq!(stops, [63, 127, 191]);
        assert!((0..200).all(|made| Interrupt::default().check(made).is_ok()));
    }
}
