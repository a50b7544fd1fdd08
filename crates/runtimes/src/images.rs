//! The views of images, by the names that actions use. They change while actions run.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::Rootfs;

/// The views; clones are the same ones.
#[derive(Debug, Clone, Default)]
pub(crate) struct ImageViews(Arc<RwLock<BTreeMap<String, Arc<Rootfs>>>>);

impl ImageViews {
    /// Adds a view, and retires the one that had the name.
    pub(crate) fn set(&self, name: String, view: Rootfs) {
        let old = self.0.write().insert(name, Arc::new(view));
        retire(old);
    }

    /// Retires the view of that name.
    pub(crate) fn remove(&self, name: &str) {
        let old = self.0.write().remove(name);
        retire(old);
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<Rootfs>> {
        self.0.read().get(name).cloned()
    }

    /// The first names, sorted.
    pub(crate) fn names(&self, max: usize) -> Vec<String> {
        self.0.read().keys().take(max).cloned().collect()
    }
}

/// Retires a view. Called without the lock: it may be the last copy, whose end takes a mount down.
fn retire(view: Option<Arc<Rootfs>>) {
    if let Some(view) = view {
        view.retire();
    }
}
