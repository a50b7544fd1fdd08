//! The use of a view: how many actions see it now, and whether others still may. What it is made of
//! stays until nothing refers to the view any more.
//!
//! ```text
//! chosen by actions ──► retired: no new action gets it; those that have it keep it ──► dropped
//! ```

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The state that all copies of a view share. It is no part of what a view is: all are equal.
#[derive(Clone, Default)]
pub(crate) struct Life(Arc<State>);

#[derive(Default)]
struct State {
    users: AtomicUsize,
    is_retired: AtomicBool,
    /// Dropped with the last copy of the view.
    _held: Option<Box<dyn Send + Sync>>,
}

impl Life {
    /// The life of a view that needs `held`.
    pub(crate) fn holding(held: impl Send + Sync + 'static) -> Self {
        Self(Arc::new(State { _held: Some(Box::new(held)), ..State::default() }))
    }

    /// Counts an action until the answer is dropped.
    pub(crate) fn enter(&self) -> InUse {
        self.0.users.fetch_add(1, Ordering::AcqRel);
        InUse(self.clone())
    }

    pub(crate) fn users(&self) -> usize {
        self.0.users.load(Ordering::Acquire)
    }

    pub(crate) fn retire(&self) {
        self.0.is_retired.store(true, Ordering::Release);
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.0.is_retired.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let State { users, is_retired, _held } = &*self.0;
        f.debug_struct("Life").field("users", users).field("is_retired", is_retired).finish()
    }
}

impl PartialEq for Life {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for Life {}

/// An action that sees a view, until this is dropped.
#[derive(Debug)]
pub struct InUse(Life);

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.0.users.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rootfs;

    #[test]
    fn what_a_view_is_made_of_goes_with_its_last_copy() {
        let held = Arc::new(());
        let view = Arc::new(Rootfs::bare().holding(Arc::clone(&held)));
        let copy = Rootfs::clone(&view);
        view.retire();
        assert!(copy.is_retired(), "copies are the same view");
        drop(view);
        assert_eq!(Arc::strong_count(&held), 2);
        drop(copy);
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[test]
    fn users_are_counted() {
        let view = Rootfs::bare();
        let (one, other) = (view.enter(), view.enter());
        assert_eq!(view.users(), 2);
        drop(one);
        assert_eq!(view.users(), 1);
        drop(other);
        assert_eq!(view.users(), 0);
    }

    #[test]
    fn the_use_of_a_view_is_no_part_of_what_it_is() {
        let (one, other) = (Rootfs::bare(), Rootfs::bare().holding(()));
        let _user = one.enter();
        other.retire();
        assert_eq!(one, other);
    }
}
