//! The end of a machine, as the framework reports it.

use std::sync::Arc;

use objc2::rc::Retained;
use objc2::runtime::NSObjectProtocol;
use objc2::{AllocAnyThread, DefinedClass, define_class, msg_send};
use objc2_foundation::{NSError, NSObject};
use objc2_virtualization::{VZVirtualMachine, VZVirtualMachineDelegate};
use tokio::sync::watch;
use vm::Ended;

/// A machine's end. The first report counts.
pub(crate) struct End(watch::Sender<Option<Ended>>);

impl End {
    /// Not yet.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(watch::Sender::new(None)))
    }

    /// To wait for it, or to look.
    pub(crate) fn watch(&self) -> watch::Receiver<Option<Ended>> {
        self.0.subscribe()
    }

    /// The machine has ended.
    pub(crate) fn tell(&self, description: impl Into<String>) {
        let description = description.into();
        self.0.send_if_modified(|end| match end {
            Some(_) => false,
            None => end.replace(Ended { description }).is_none(),
        });
    }
}

define_class!(
    // SAFETY:
    // - The superclass NSObject has no requirements on its subclasses.
    // - `Delegate` does not implement `Drop`.
    // - The instance variable is `Send + Sync`, and so is therefore the class, whatever the thread
    //   that the machine's queue runs on.
    #[unsafe(super(NSObject))]
    #[ivars = Arc<End>]
    pub(crate) struct Delegate;

    // SAFETY: NSObjectProtocol has no requirements.
    unsafe impl NSObjectProtocol for Delegate {}

    // SAFETY: the signatures are those of the protocol's methods: both arguments are objects that
    // live for the call, and nothing is returned. Neither panics, so that nothing unwinds into the
    // framework.
    unsafe impl VZVirtualMachineDelegate for Delegate {
        #[unsafe(method(guestDidStopVirtualMachine:))]
        fn guest_did_stop(&self, _machine: &VZVirtualMachine) {
            self.ivars().tell("the guest switched itself off");
        }

        #[unsafe(method(virtualMachine:didStopWithError:))]
        fn did_stop_with_error(&self, _machine: &VZVirtualMachine, error: &NSError) {
            self.ivars().tell(describe(error));
        }
    }
);

impl Delegate {
    /// A delegate that tells `end`.
    pub(crate) fn new(end: Arc<End>) -> Retained<Self> {
        let this = Self::alloc().set_ivars(end);
        // SAFETY: NSObject's `init` has this signature, may be called once on what was allocated,
        // and never returns nil.
        unsafe { msg_send![super(this), init] }
    }
}

/// An error in words: what failed, and why if the framework knows.
pub(crate) fn describe(error: &NSError) -> String {
    let what = error.localizedDescription();
    match error.localizedFailureReason() {
        Some(why) => format!("{what} {why} ({} {})", error.domain(), error.code()),
        None => format!("{what} ({} {})", error.domain(), error.code()),
    }
}
