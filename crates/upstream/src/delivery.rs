//! A result and all that it names on the way to the upstream, while somebody waits for it and is told of errors.
//!
//! A worker of a cluster needs this: others read the result right after it was announced. The journal is for results
//! that nobody waits for.

use std::sync::Arc;

use bytes::Bytes;
use model::proto::ActionResult;
use model::result::referenced_digests;
use model::{Chain, Digest};
use prost::Message as _;

use crate::call_error::CallError;
use crate::contents::{Contents, contents};
use crate::fetch::on_disk;
use crate::link::Link;
use crate::upload::{Uploaded, Uploader};

/// Why something was not copied upstream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// The upstream is down or failed. Another try can succeed.
    #[error("the upstream failed: {0}")]
    Failed(String),
    /// The upstream refused, and would refuse again.
    #[error("the upstream refused: {0}")]
    Refused(String),
    /// The upstream does not know digests of that function.
    #[error("the upstream does not know digests of that function")]
    UnknownFunction,
    /// The result is malformed, or names too much.
    #[error("the result can't be copied")]
    Unusable,
    /// A blob is not in the store any more.
    #[error("a blob of the result is not in the store any more")]
    Gone,
    /// The store could not be read.
    #[error("reading the store: {0}")]
    Store(String),
}

impl From<CallError> for DeliveryError {
    fn from(error: CallError) -> Self {
        let text = Chain(&error).to_string();
        match error {
            CallError::Down
            | CallError::TimedOut(_)
            | CallError::Failed(_)
            | CallError::Damaged => Self::Failed(text),
            CallError::Refused(_) | CallError::Missing => Self::Refused(text),
            CallError::Unreadable(_) | CallError::Store(_) => Self::Store(text),
        }
    }
}

/// A result on its way.
pub(crate) struct Delivery {
    pub(crate) uploader: Uploader,
    /// Where the result itself goes; `None` if it is not kept.
    pub(crate) results: Option<Arc<Link>>,
    pub(crate) instance: String,
    pub(crate) action: Digest,
    pub(crate) result: ActionResult,
}

impl Delivery {
    /// Copies the blobs, and then the result.
    pub(crate) async fn run(self) -> Result<(), DeliveryError> {
        let references = referenced_digests(&self.result, self.action.function())
            .map_err(|_| DeliveryError::Unusable)?;
        let cas = self.uploader.cas.clone();
        let blobs = match on_disk(move || Ok(contents(&cas, &references)?)).await? {
            Contents::All(blobs) => blobs,
            Contents::Wanted(_) => return Err(DeliveryError::Gone),
            Contents::Unusable => return Err(DeliveryError::Unusable),
        };
        send(&self.uploader, blobs).await?;
        let Some(link) = self.results else { return Ok(()) };
        let abilities = link.abilities().await.ok_or(CallError::Down)?;
        let instance = link.server.instance_of(&self.instance);
        let Some(instance) = instance.filter(|_| abilities.takes_results) else { return Ok(()) };
        link.update_result(&instance, &self.action, &self.result, &Bytes::new()).await?;
        link.counters.sent_bytes.add(self.result.encoded_len() as u64);
        Ok(())
    }
}

/// Copies blobs.
pub(crate) async fn send(uploader: &Uploader, blobs: Vec<Digest>) -> Result<(), DeliveryError> {
    let Some(function) = blobs.first().map(Digest::function) else { return Ok(()) };
    let abilities = uploader.blobs.abilities().await.ok_or(CallError::Down)?;
    if !abilities.knows(function) {
        return Err(DeliveryError::UnknownFunction);
    }
    match uploader.upload(blobs, &abilities, &Bytes::new()).await? {
        Uploaded::All => Ok(()),
        Uploaded::Gone => Err(DeliveryError::Gone),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::{Code, Status};

    #[test]
    fn what_another_try_can_mend_is_told_from_the_rest() {
        for (error, can_be_mended) in [
            (CallError::Down, true),
            (CallError::TimedOut(std::time::Duration::from_secs(1)), true),
            (CallError::of(Status::new(Code::Unavailable, "")), true),
            (CallError::Damaged, true),
            (CallError::of(Status::new(Code::PermissionDenied, "")), false),
            (CallError::of(Status::new(Code::NotFound, "")), false),
            (CallError::Unreadable(Arc::new(std::io::Error::other("disk"))), false),
        ] {
            let text = error.to_string();
            let is_failure = matches!(DeliveryError::from(error), DeliveryError::Failed(_));
            assert_eq!(is_failure, can_be_mended, "{text}");
        }
    }
}
