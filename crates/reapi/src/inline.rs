//! Small blobs of a result, sent inside it: saves clients a round trip each.

use bytes::Bytes;
use model::{Digest, DigestFunction, EncodedResult, Part, ResultError};
use store::Cas;
use tonic::{Code, Status};

use crate::blocking::Caller;
use crate::status;

/// Bytes inlined into one result at most: the result still fits into the 4 MiB
/// that gRPC clients take by default.
pub(crate) const MAX_INLINED_BYTES: u64 = 1 << 20;

/// The files that a client wants inline in the result.
#[derive(Default)]
pub(crate) struct Wanted {
    stdout: bool,
    stderr: bool,
    /// Sorted.
    output_files: Vec<String>,
}

/// Why a result could not be filled.
enum FillError {
    Result(ResultError),
    Status(Status),
}

impl From<ResultError> for FillError {
    fn from(error: ResultError) -> Self {
        Self::Result(error)
    }
}

impl From<FillError> for Status {
    fn from(error: FillError) -> Self {
        match error {
            FillError::Result(error) => status::of(Code::Internal, &error),
            FillError::Status(status) => status,
        }
    }
}

impl Wanted {
    pub(crate) fn new(stdout: bool, stderr: bool, mut output_files: Vec<String>) -> Self {
        // In place: the list was reserved for when it was decoded.
        output_files.sort_unstable();
        Self { stdout, stderr, output_files }
    }

    /// Whether nothing is wanted.
    pub(crate) fn is_nothing(&self) -> bool {
        !self.stdout && !self.stderr && self.output_files.is_empty()
    }

    /// The result with what is wanted inside, as far as it fits, while `caller` waits for it. The
    /// API calls this a hint: what does not fit stays a digest.
    pub(crate) fn fill(
        &self,
        cas: &Cas,
        function: DigestFunction,
        result: &EncodedResult,
        caller: &Caller,
    ) -> Result<EncodedResult, Status> {
        let mut left_bytes = MAX_INLINED_BYTES;
        let filled = result.with_contents(function, |part, digest| {
            let fits = (1..=left_bytes).contains(&digest.size_bytes());
            if !fits || !self.wants(part) {
                return Ok(None);
            }
            let blob = read(cas, digest, caller).map_err(FillError::Status)?;
            if blob.is_some() {
                left_bytes -= digest.size_bytes();
            }
            Ok(blob)
        });
        filled.map_err(|error: FillError| error.into())
    }

    fn wants(&self, part: Part<'_>) -> bool {
        match part {
            Part::Stdout => self.stdout,
            Part::Stderr => self.stderr,
            Part::File(path) => {
                self.output_files.binary_search_by(|wanted| wanted.as_str().cmp(path)).is_ok()
            }
        }
    }
}

/// The blob; `None` if it is no longer there.
fn read(cas: &Cas, digest: &Digest, caller: &Caller) -> Result<Option<Bytes>, Status> {
    if caller.is_gone() {
        return Err(Status::cancelled("the client left"));
    }
    cas.read(digest).map_err(status::store)
}
