//! The interfaces of the crates below that a slot needs, as traits.
//!
//! Input roots and sandboxes need root and a recent kernel, and a store fails only on a bad disk.
//! Behind these traits the tests of `slot`, `outputs` and `capture` put others in their place,
//! without privileges and with any failure at any step.

use std::sync::Arc;

use inputroot::{
    Attachment, HostUser, NamedEntry, OutputEntry, OutputError, OutputView, PresentError,
    PresentRequest, Presented, StagedFile,
};
use model::{Digest, DigestFunction, InputTree, NodeProperties, RelPath};
use runtimes::Rootfs;
use sandbox::{Exit, Pool, RunError, Spec, StopConditions, Streams};
use store::{AdoptError, Adopted, BlobWriter, Store, StoreError};

/// Makes input trees appear; see [`inputroot::InputRoots`].
pub(crate) trait InputRoots: Send + Sync {
    fn present(
        &self,
        tree: &Arc<InputTree>,
        request: &PresentRequest<'_>,
    ) -> Result<Box<dyn InputRoot>, PresentError>;
}

/// The input root of one action.
pub(crate) trait InputRoot {
    fn attachment(&self) -> &Attachment;
    fn outputs(&self) -> Box<dyn Outputs>;
    /// Puts it away, once the answer is out.
    fn discard(self: Box<Self>);
}

/// The outputs that an action left; see [`OutputView`].
pub(crate) trait Outputs: Sync {
    fn entry(&self, path: &RelPath) -> Result<Option<OutputEntry>, OutputError>;
    fn read_dir(&self, path: &RelPath, max_entries: usize) -> Result<Vec<NamedEntry>, OutputError>;
    fn properties(&self, path: &RelPath) -> Result<NodeProperties, OutputError>;
}

/// Hands out sandboxes; see [`Pool`].
pub(crate) trait Sandboxes: Send + Sync {
    fn acquire(&self, view: &Arc<Rootfs>) -> Result<Box<dyn Sandbox>, RunError>;
    fn end_retired(&self);
}

/// A sandbox for one action.
pub(crate) trait Sandbox {
    /// The user that its input root must be presented to; see [`sandbox::Sandbox::user`].
    fn user(&self) -> Option<HostUser<'_>>;
    fn run(
        &mut self,
        spec: &Spec<'_>,
        streams: Streams<'_>,
        stop: &StopConditions<'_>,
    ) -> Result<Exit, RunError>;
    /// Hands it back, once the answer is out.
    fn release(self: Box<Self>);
}

/// Where streams, outputs and results go: the store.
pub(crate) trait Destination: Send + Sync {
    fn adopt(
        &self,
        function: DigestFunction,
        file: &StagedFile,
        max_bytes: u64,
    ) -> Result<Adopted, AdoptError>;
    fn put(&self, function: DigestFunction, content: &[u8]) -> Result<Digest, StoreError>;
    fn put_expected(&self, digest: &Digest, content: &[u8]) -> Result<(), StoreError>;
    fn writer(&self, function: DigestFunction) -> Box<dyn BlobSink>;
    fn cache(&self, instance: &str, action: &Digest, result: &[u8]) -> Result<(), StoreError>;
}

/// A blob that comes in pieces; see [`BlobWriter`].
pub(crate) trait BlobSink {
    fn write(&mut self, content: &[u8]) -> Result<(), StoreError>;
    fn written(&self) -> u64;
    fn commit(self: Box<Self>) -> Result<Digest, StoreError>;
}

impl InputRoots for Arc<dyn inputroot::InputRoots> {
    fn present(
        &self,
        tree: &Arc<InputTree>,
        request: &PresentRequest<'_>,
    ) -> Result<Box<dyn InputRoot>, PresentError> {
        Ok(Box::new((**self).present(tree, request)?))
    }
}

impl InputRoot for Presented {
    fn attachment(&self) -> &Attachment {
        self.attachment()
    }

    fn outputs(&self) -> Box<dyn Outputs> {
        Box::new(self.outputs())
    }

    fn discard(self: Box<Self>) {
        (*self).discard();
    }
}

impl Outputs for OutputView {
    fn entry(&self, path: &RelPath) -> Result<Option<OutputEntry>, OutputError> {
        self.entry(path)
    }

    fn read_dir(&self, path: &RelPath, max_entries: usize) -> Result<Vec<NamedEntry>, OutputError> {
        self.read_dir(path, max_entries)
    }

    fn properties(&self, path: &RelPath) -> Result<NodeProperties, OutputError> {
        self.properties(path)
    }
}

impl Sandboxes for Arc<Pool> {
    fn acquire(&self, view: &Arc<Rootfs>) -> Result<Box<dyn Sandbox>, RunError> {
        let sandbox = Pool::acquire(self, view)?;
        Ok(Box::new(Leased { sandbox, pool: Arc::clone(self) }))
    }

    fn end_retired(&self) {
        Pool::end_retired(self);
    }
}

/// A sandbox and the pool that it goes back to.
struct Leased {
    sandbox: sandbox::Sandbox,
    pool: Arc<Pool>,
}

impl Sandbox for Leased {
    fn user(&self) -> Option<HostUser<'_>> {
        self.sandbox.user()
    }

    fn run(
        &mut self,
        spec: &Spec<'_>,
        streams: Streams<'_>,
        stop: &StopConditions<'_>,
    ) -> Result<Exit, RunError> {
        self.sandbox.run(spec, streams, stop)
    }

    fn release(self: Box<Self>) {
        self.pool.release(self.sandbox);
    }
}

impl Destination for Store {
    fn adopt(
        &self,
        function: DigestFunction,
        file: &StagedFile,
        max_bytes: u64,
    ) -> Result<Adopted, AdoptError> {
        file.adopt(self.cas(), function, max_bytes)
    }

    fn put(&self, function: DigestFunction, content: &[u8]) -> Result<Digest, StoreError> {
        self.cas().put(function, content)
    }

    fn put_expected(&self, digest: &Digest, content: &[u8]) -> Result<(), StoreError> {
        self.cas().put_expected(digest, content)
    }

    fn writer(&self, function: DigestFunction) -> Box<dyn BlobSink> {
        Box::new(self.cas().writer(function, None))
    }

    fn cache(&self, instance: &str, action: &Digest, result: &[u8]) -> Result<(), StoreError> {
        self.action_cache().put(instance, action, result)
    }
}

impl BlobSink for BlobWriter {
    fn write(&mut self, content: &[u8]) -> Result<(), StoreError> {
        self.write(content)
    }

    fn written(&self) -> u64 {
        self.written()
    }

    fn commit(self: Box<Self>) -> Result<Digest, StoreError> {
        (*self).commit()
    }
}
