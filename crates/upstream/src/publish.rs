//! From the store to the upstream: results with all that they name, blobs first.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use model::proto::{Action, ActionResult};
use model::result::{References, referenced_digests};
use model::{Chain, Digest, DigestFunction};
use prost::Message as _;
use store::{ActionCache, Cas, PinSet};

use crate::config::Entries;
use crate::contents::{Contents, contents};
use crate::fetch::on_disk;
use crate::journal::{Entry, Journal};
use crate::link::{Abilities, CallError, Link};

/// Results that are copied at the same time.
pub(crate) const PUBLISHERS: usize = 4;

/// Tries of a result while the upstream is up. A blob that takes too long each time is not tried for ever.
const TRIES: u32 = 4;

/// The wait between them.
const PAUSE: Duration = Duration::from_secs(2);

/// Blobs up to this size travel in batches.
const SMALL_BYTES: u64 = 128 << 10;

/// Blobs in one batch.
const BATCH_BLOBS: usize = 1_000;

/// Streams of one result at the same time.
const STREAMS: usize = 4;

/// Copies results.
pub(crate) struct Publisher {
    pub(crate) cas: Cas,
    pub(crate) action_cache: ActionCache,
    pub(crate) blobs: Arc<Link>,
    pub(crate) results: Arc<Link>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) entries: Entries,
}

/// The blobs of a result while it is copied.
struct Needed(Vec<Digest>);

impl PinSet for Needed {
    fn contains(&self, digest: &Digest) -> bool {
        self.0.binary_search(digest).is_ok()
    }
}

impl Publisher {
    /// Copies what is in the journal; never ends.
    pub(crate) async fn run(&self) {
        loop {
            let entry = self.journal.take().await;
            self.copy(entry).await;
        }
    }

    async fn copy(&self, entry: Entry) {
        for tries_left in (0..TRIES).rev() {
            self.blobs.until_up().await;
            self.results.until_up().await;
            match self.publish(&entry).await {
                Ok(()) => return self.journal.done(&entry),
                Err(CallError::Down) => return self.journal.put_back(entry),
                Err(CallError::TimedOut(_) | CallError::Failed(_)) if tries_left > 0 => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => {
                    let (error, action) = (Chain(&error).to_string(), entry.action);
                    tracing::warn!(%action, error, "the result was not copied upstream");
                    return self.journal.give_up(&entry);
                }
            }
        }
    }

    /// Copies one result and all that it names.
    pub(crate) async fn publish(&self, entry: &Entry) -> Result<(), CallError> {
        let function = entry.action.function();
        let (Some(abilities), Some(of_results)) =
            (self.blobs.abilities().await, self.results.abilities().await)
        else {
            return Err(CallError::Down);
        };
        let instance = self.results.address.instance_of(&entry.instance);
        let Some(instance) =
            instance.filter(|_| abilities.knows(function) && of_results.takes_results)
        else {
            return Ok(());
        };
        let (cas, cache, of) = (self.cas.clone(), self.action_cache.clone(), entry.clone());
        let entries = self.entries;
        let read = move || load(&cas, &cache, &of, entries);
        // Evicted meanwhile, with its blobs or without: there is nothing to copy.
        let Some((result, mut blobs)) = on_disk(read).await? else { return Ok(()) };
        blobs.sort_unstable();
        blobs.dedup();
        let needed = Arc::new(Needed(blobs));
        let _pin = self.cas.pin(Arc::clone(&needed) as Arc<dyn PinSet>);
        if !self.cas.missing(&needed.0).is_empty() {
            return Ok(());
        }
        let caller = Bytes::new();
        let missing = self.blobs.missing(&needed.0, &caller).await?;
        self.send(missing, &abilities, &caller).await?;
        self.results.update_result(&instance, &entry.action, &result, &caller).await?;
        self.results.counters.sent_bytes.add(result.encoded_len() as u64);
        Ok(())
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

/// The cached result, and the blobs that are copied with it: what it names, its Action and its Command.
fn load(
    cas: &Cas,
    cache: &ActionCache,
    entry: &Entry,
    entries: Entries,
) -> Result<Option<(ActionResult, Vec<Digest>)>, CallError> {
    let function = entry.action.function();
    let value = cache.get(&entry.instance, &entry.action)?;
    let result = value.and_then(|value| (entries.to_result)(&value));
    let Some(result) = result.filter(|result| result.exit_code == 0) else { return Ok(None) };
    let Ok(references) = referenced_digests(&result, function) else { return Ok(None) };
    let Contents::All(mut blobs) = contents_of(cas, &references)? else { return Ok(None) };
    // For people who look at the upstream; nobody needs them to use the result.
    if let Some((action, command)) = action_and_command(cas, &entry.action, function)? {
        blobs.extend(
            [Some(action), command].into_iter().flatten().filter(|digest| cas.contains(digest)),
        );
    }
    Ok(Some((result, blobs)))
}

fn contents_of(cas: &Cas, references: &References) -> Result<Contents, CallError> {
    Ok(contents(cas, references)?)
}

fn action_and_command(
    cas: &Cas,
    action: &Digest,
    function: DigestFunction,
) -> Result<Option<(Digest, Option<Digest>)>, CallError> {
    if action.size_bytes() > SMALL_BYTES {
        return Ok(None);
    }
    let Some(message) = cas.read(action)? else { return Ok(None) };
    let Ok(message) = Action::decode(message) else { return Ok(None) };
    let command =
        message.command_digest.and_then(|digest| Digest::from_proto(&digest, function).ok());
    Ok(Some((*action, command)))
}

#[cfg(test)]
mod tests {
    use super::*;

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
