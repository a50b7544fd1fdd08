//! Blobs from the store to the upstream: only those that it lacks, small ones in batches and large ones in streams.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use model::Digest;
use store::{Cas, PinSet};

use crate::abilities::Abilities;
use crate::call_error::CallError;
use crate::fetch::on_disk;
use crate::link::Link;

/// Blobs up to this size travel in batches.
pub(crate) const SMALL_BYTES: u64 = 128 << 10;

/// Blobs in one batch.
const BATCH_BLOBS: usize = 1_000;

/// Streams of one upload at the same time.
const STREAMS: usize = 4;

/// Copies blobs. Clones copy to the same upstream.
#[derive(Clone)]
pub(crate) struct Uploader {
    pub(crate) cas: Cas,
    pub(crate) blobs: Arc<Link>,
}

/// The blobs of an upload while it is under way.
struct Needed(Vec<Digest>);

impl PinSet for Needed {
    fn contains(&self, digest: &Digest) -> bool {
        self.0.binary_search(digest).is_ok()
    }
}

/// The outcome of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Uploaded {
    /// The upstream has all of the blobs.
    All,
    /// A blob is not in the store any more, and nothing was copied.
    Gone,
}

impl Uploader {
    /// Copies those of the blobs, all of one function, that the upstream lacks.
    pub(crate) async fn upload(
        &self,
        mut blobs: Vec<Digest>,
        abilities: &Abilities,
        caller: &Bytes,
    ) -> Result<Uploaded, CallError> {
        blobs.sort_unstable();
        blobs.dedup();
        let needed = Arc::new(Needed(blobs));
        let _pin = self.cas.pin(Arc::clone(&needed) as Arc<dyn PinSet>);
        if !self.cas.missing(&needed.0).is_empty() {
            return Ok(Uploaded::Gone);
        }
        let missing = self.blobs.missing(&needed.0, caller).await?;
        self.send(missing, abilities, caller).await?;
        Ok(Uploaded::All)
    }

    async fn send(
        &self,
        missing: Vec<Digest>,
        abilities: &Abilities,
        caller: &Bytes,
    ) -> Result<(), CallError> {
        let small_max = SMALL_BYTES.min(abilities.batch_bytes);
        let (small, large): (Vec<_>, Vec<_>) =
            missing.into_iter().partition(|digest| digest.size_bytes() <= small_max);
        for batch in batches(&small, abilities.batch_bytes) {
            let (cas, digests) = (self.cas.clone(), batch.to_vec());
            let read = move || {
                let read =
                    |digest: Digest| Ok((digest, cas.read(&digest)?.ok_or(CallError::Missing)?));
                digests.into_iter().map(read).collect::<Result<Vec<_>, CallError>>()
            };
            let blobs = on_disk(read).await?;
            self.blobs.write_batch(&blobs, abilities, caller).await?;
        }
        let send = large
            .iter()
            .map(|digest| self.blobs.write(digest, abilities, &self.cas, caller).boxed());
        let mut sent =
            futures_util::stream::iter(send.collect::<Vec<_>>()).buffer_unordered(STREAMS);
        while let Some(outcome) = sent.next().await {
            outcome?;
        }
        Ok(())
    }
}

/// Groups of blobs that fit into a batch each.
fn batches(digests: &[Digest], bytes_max: u64) -> Vec<&[Digest]> {
    let mut batches = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (index, digest) in digests.iter().enumerate() {
        if index > start
            && (bytes + digest.size_bytes() > bytes_max || index - start == BATCH_BLOBS)
        {
            batches.push(&digests[start..index]);
            (start, bytes) = (index, 0);
        }
        bytes += digest.size_bytes();
    }
    if start < digests.len() {
        batches.push(&digests[start..]);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::DigestFunction;

    fn sizes(sizes: &[u64], bytes_max: u64) -> Vec<Vec<u64>> {
        let digests: Vec<_> =
            sizes.iter().map(|size| Digest::new(DigestFunction::Sha256, [7; 32], *size)).collect();
        let sizes = |batch: &&[Digest]| batch.iter().map(Digest::size_bytes).collect();
        batches(&digests, bytes_max).iter().map(sizes).collect()
    }

    #[test]
    fn batches_fit() {
        assert!(sizes(&[], 10).is_empty());
        assert_eq!(sizes(&[4, 6, 1, 10, 3, 3], 10), [vec![4, 6], vec![1], vec![10], vec![3, 3]]);
        assert_eq!(sizes(&vec![0; BATCH_BLOBS + 1], 10).len(), 2);
    }
}
