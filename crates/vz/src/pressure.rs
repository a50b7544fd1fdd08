//! The host's memory pressure, as macOS tells it.

use block2::RcBlock;
use dispatch2::{
    _dispatch_source_type_memorypressure, DispatchObject as _, DispatchQueue, DispatchQueueAttr,
    DispatchRetained, DispatchSource, dispatch_source_memorypressure_flags_t,
};
use tokio::sync::watch;

use crate::balloon::Pressure;

/// Tells of changes until it is dropped.
pub(crate) struct PressureSource(DispatchRetained<DispatchSource>);

impl PressureSource {
    /// A source, and where it tells.
    pub(crate) fn new() -> (Self, watch::Receiver<Pressure>) {
        let normal = dispatch_source_memorypressure_flags_t::DISPATCH_MEMORYPRESSURE_NORMAL.0;
        let warn = dispatch_source_memorypressure_flags_t::DISPATCH_MEMORYPRESSURE_WARN.0;
        let critical = dispatch_source_memorypressure_flags_t::DISPATCH_MEMORYPRESSURE_CRITICAL.0;
        let mask = (normal | warn | critical) as usize;
        let queue = DispatchQueue::new("dev.actiond.memory-pressure", DispatchQueueAttr::SERIAL);
        let source_type = (&raw const _dispatch_source_type_memorypressure).cast_mut();
        // SAFETY: the type is one of the system's constants, which nothing writes to; sources of
        // this type have no handle; the mask has its flags only; the source retains the queue.
        let source = unsafe { DispatchSource::new(source_type, 0, mask, Some(&queue)) };
        let (tell, told) = watch::channel(Pressure::Normal);
        let asked = source.clone();
        let handler = RcBlock::new(move || {
            let short = asked.data() & (warn | critical) as usize != 0;
            tell.send_replace(if short { Pressure::Short } else { Pressure::Normal });
        });
        // SAFETY: the block is copied and held by the source, and takes no arguments. It holds the
        // source in turn until that is cancelled (below). Its captures are `Send + Sync`, because the
        // queue may run it on any thread.
        unsafe { source.set_event_handler_with_block(RcBlock::as_ptr(&handler)) };
        // A source is made inactive, and must not be released before this.
        source.activate();
        (Self(source), told)
    }
}

impl Drop for PressureSource {
    fn drop(&mut self) {
        // The source lets go of its handler when it is cancelled, and with that of itself.
        self.0.cancel();
    }
}
