//! Small blobs of a result, sent inside it: saves clients a round trip each.

use bytes::Bytes;
use model::{Digest, DigestFunction, proto};
use store::Cas;
use tonic::Status;

use crate::status;

/// Bytes inlined into one result at most: the result still fits into the 4 MiB
/// that gRPC clients take by default.
const MAX_INLINED_BYTES: u64 = 1 << 20;

/// What a client would like to have inside the result.
#[derive(Default)]
pub(crate) struct Wanted {
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    pub(crate) output_files: Vec<String>,
}

impl Wanted {
    /// Whether nothing is wanted.
    pub(crate) fn is_nothing(&self) -> bool {
        !self.stdout && !self.stderr && self.output_files.is_empty()
    }

    /// Puts it there, as far as it fits. The API calls this a hint: what does
    /// not fit stays a digest.
    pub(crate) fn fill(
        &self,
        cas: &Cas,
        function: DigestFunction,
        result: &mut proto::ActionResult,
    ) -> Result<(), Status> {
        let mut inliner = Inliner { cas, function, left_bytes: MAX_INLINED_BYTES };
        if self.stdout {
            inliner.fill(result.stdout_digest.as_ref(), &mut result.stdout_raw)?;
        }
        if self.stderr {
            inliner.fill(result.stderr_digest.as_ref(), &mut result.stderr_raw)?;
        }
        for file in &mut result.output_files {
            if self.output_files.contains(&file.path) {
                inliner.fill(file.digest.as_ref(), &mut file.contents)?;
            }
        }
        Ok(())
    }
}

struct Inliner<'a> {
    cas: &'a Cas,
    function: DigestFunction,
    left_bytes: u64,
}

impl Inliner<'_> {
    /// Fills `field` with the blob, unless it is filled, too large, or no longer
    /// there.
    fn fill(&mut self, digest: Option<&proto::Digest>, field: &mut Bytes) -> Result<(), Status> {
        let digest = digest.and_then(|digest| Digest::from_proto(digest, self.function).ok());
        let Some(digest) = digest.filter(|digest| field.is_empty() && self.fits(digest)) else {
            return Ok(());
        };
        if let Some(blob) = self.cas.read(&digest).map_err(status::store)? {
            self.left_bytes -= digest.size_bytes();
            *field = blob;
        }
        Ok(())
    }

    fn fits(&self, digest: &Digest) -> bool {
        (1..=self.left_bytes).contains(&digest.size_bytes())
    }
}
