//! Values that are only touched on one serial dispatch queue.
//!
//! "Every operation on the virtual machine must be done on that queue", says the framework of the
//! queue that a machine is made with. [`OnQueue`] makes that a property of a type: its value is made,
//! used and dropped by closures that the queue runs, and can't be reached in any other way.

use std::mem::ManuallyDrop;
use std::sync::Arc;

use dispatch2::{DispatchQueue, DispatchQueueAttr, DispatchRetained};
use objc2::rc::autoreleasepool;

/// A value on a queue of its own.
pub(crate) struct OnQueue<T: 'static> {
    queue: DispatchRetained<DispatchQueue>,
    value: ManuallyDrop<T>,
}

// SAFETY: `value` is reachable only through `new`, `run` and `drop`, which touch it in closures on
// `queue` alone. The queue is serial: these closures run one after the other, each seeing what those
// before it did. The thread may be another each time, which `T` must bear; Objective-C objects
// without thread affinity do, and those of Virtualization.framework are bound to a queue, not to a
// thread.
unsafe impl<T> Send for OnQueue<T> {}
// SAFETY: as above; a shared `OnQueue` gives no access to the value but through its queue.
unsafe impl<T> Sync for OnQueue<T> {}

impl<T: 'static> OnQueue<T> {
    /// Makes a value with `make` on a new queue, and waits for it. Must not be called on a queue.
    ///
    /// # Errors
    /// Those of `make`; the value that it did not make leaves nothing behind.
    pub(crate) fn new<E: Send>(
        label: &str,
        make: impl FnOnce(&DispatchQueue) -> Result<T, E> + Send,
    ) -> Result<Self, Option<E>> {
        let queue = DispatchQueue::new(label, DispatchQueueAttr::SERIAL);
        let mut made = Carried(None);
        // Borrowed as a whole: the closure must be `Send`, and only the wrapper is.
        let slot = &mut made;
        queue.exec_sync(|| slot.set(autoreleasepool(|_| make(&queue))));
        match made.0 {
            Some(Ok(value)) => Ok(Self { queue: queue.clone(), value: ManuallyDrop::new(value) }),
            Some(Err(error)) => Err(Some(error)),
            None => Err(None),
        }
    }

    /// Has the queue run `work` when it is its turn. The value lives until then.
    pub(crate) fn run(self: &Arc<Self>, work: impl FnOnce(&T) + Send + 'static) {
        let this = Arc::clone(self);
        // Framework calls leave temporary objects behind, and a queue's own pool is emptied at no
        // particular time.
        self.queue.exec_async(move || autoreleasepool(|_| work(&this.value)));
    }
}

impl<T: 'static> Drop for OnQueue<T> {
    fn drop(&mut self) {
        // SAFETY: taken once, here, and `self` is never used again. No closure on the queue uses it
        // any more: each holds an `Arc` of `self`.
        let value = Carried(unsafe { ManuallyDrop::take(&mut self.value) });
        // Asynchronous, as this may itself be running on the queue.
        self.queue.exec_async(move || autoreleasepool(|_| value.end()));
    }
}

/// Carries a value to its queue, or a new one from there.
struct Carried<T>(T);

// SAFETY: only used above, where the value is touched on its queue alone, or, for one just made,
// moved without being looked into while the queue waits for nothing.
unsafe impl<T> Send for Carried<T> {}

impl<T> Carried<T> {
    /// Drops what was carried.
    fn end(self) {}
}

impl<T> Carried<Option<T>> {
    fn set(&mut self, value: T) {
        self.0 = Some(value);
    }
}
