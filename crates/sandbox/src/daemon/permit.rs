//! The bound on the number of sandboxes.

use std::sync::Arc;

use parking_lot::Mutex;

/// The numbers of the sandboxes that exist.
#[derive(Debug, Default)]
pub(crate) struct Permits {
    /// Whether each number is taken.
    taken: Mutex<Vec<bool>>,
}

/// A sandbox's number, which no other sandbox has as long as this exists.
#[derive(Debug)]
pub(crate) struct Permit {
    number: u32,
    permits: Arc<Permits>,
}

impl Permits {
    /// A permit with the lowest number that is free, if fewer than `most` are taken.
    pub(crate) fn take(self: &Arc<Self>, most: usize) -> Option<Permit> {
        let mut taken = self.taken.lock();
        let index = taken.iter().position(|is_taken| !is_taken).unwrap_or(taken.len());
        let number = u32::try_from(index).ok().filter(|_| index < most)?;
        match taken.get_mut(index) {
            Some(is_taken) => *is_taken = true,
            None => taken.push(true),
        }
        Some(Permit { number, permits: Arc::clone(self) })
    }
}

impl Permit {
    /// The number, below the bound.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(is_taken) = self.permits.taken.lock().get_mut(self.number as usize) {
            *is_taken = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_taken_once_and_given_again() {
        let permits = Arc::new(Permits::default());
        let all: Vec<_> = (0..3).filter_map(|_| permits.take(3)).collect();
        assert_eq!(all.iter().map(Permit::number).collect::<Vec<_>>(), [0, 1, 2]);
        assert!(permits.take(3).is_none());
        let mut all = all;
        drop(all.remove(1));
        assert_eq!(permits.take(3).map(|permit| permit.number()), Some(1));
        drop(all);
        assert_eq!(permits.take(3).map(|permit| permit.number()), Some(0));
    }
}
