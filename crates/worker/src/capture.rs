//! Standard output and error on their way into the store.
//!
//! Output that fits the inline bound stays in memory and becomes a blob at the end; more goes to a blob as
//! it comes. A stream over its bound stops the action.

use std::ops::ControlFlow;

use model::{Digest, DigestFunction};
use sandbox::OutputSink;
use store::StoreError;

use crate::boundary::{BlobSink, Destination};

/// One stream of one action.
pub(crate) struct Capture<'a> {
    destination: &'a dyn Destination,
    function: DigestFunction,
    inline_bytes: usize,
    limit_bytes: u64,
    head: Vec<u8>,
    spilled: Option<Box<dyn BlobSink>>,
    refused: Option<Refusal>,
}

/// The reason why a stream took no more.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// More bytes came than the bound allows.
    OverLimit,
    /// The store failed.
    Store(StoreError),
}

/// A stream that has ended.
#[derive(Debug, Default)]
pub(crate) struct Captured {
    /// The whole stream, when it is within the inline bound.
    pub(crate) inline: Vec<u8>,
    /// Its blob; none for an empty stream.
    pub(crate) digest: Option<Digest>,
}

impl<'a> Capture<'a> {
    /// A stream of which `inline_bytes` stay in memory and `limit_bytes` are taken.
    pub(crate) fn new(
        destination: &'a dyn Destination,
        function: DigestFunction,
        inline_bytes: usize,
        limit_bytes: u64,
    ) -> Self {
        Self {
            destination,
            function,
            inline_bytes,
            limit_bytes,
            head: Vec::new(),
            spilled: None,
            refused: None,
        }
    }

    /// The reason why the stream took no more, if it did not.
    pub(crate) fn refusal(&self) -> Option<&Refusal> {
        self.refused.as_ref()
    }

    /// Stores the output. Output within the inline bound is kept even if the store refuses it.
    pub(crate) fn finish(self) -> (Captured, Result<(), StoreError>) {
        let stored = match self.spilled {
            // Of a stream that broke off in the middle nobody knows how much was written.
            Some(_) if matches!(self.refused, Some(Refusal::Store(_))) => Ok(None),
            Some(writer) => writer.commit().map(Some),
            None if self.head.is_empty() => Ok(None),
            None => self.destination.put(self.function, &self.head).map(Some),
        };
        match stored {
            Ok(digest) => (Captured { inline: self.head, digest }, Ok(())),
            Err(error) => (Captured { inline: self.head, digest: None }, Err(error)),
        }
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if let Some(writer) = &mut self.spilled {
            return writer.write(bytes);
        }
        if self.head.len() + bytes.len() <= self.inline_bytes {
            self.head.extend_from_slice(bytes);
            return Ok(());
        }
        let mut writer = self.destination.writer(self.function);
        writer.write(&self.head)?;
        writer.write(bytes)?;
        self.head = Vec::new();
        self.spilled = Some(writer);
        Ok(())
    }

    fn taken(&self) -> u64 {
        self.spilled.as_ref().map_or(self.head.len() as u64, |writer| writer.written())
    }
}

impl OutputSink for Capture<'_> {
    fn write(&mut self, bytes: &[u8]) -> ControlFlow<()> {
        if self.refused.is_some() {
            return ControlFlow::Break(());
        }
        let room = self.limit_bytes - self.taken();
        let fits = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        let appended = self.append(&bytes[..fits]);
        self.refused = match appended {
            Err(error) => Some(Refusal::Store(error)),
            Ok(()) if fits < bytes.len() => Some(Refusal::OverLimit),
            Ok(()) => return ControlFlow::Continue(()),
        };
        ControlFlow::Break(())
    }
}
