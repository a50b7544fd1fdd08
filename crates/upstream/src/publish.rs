//! From the store to the upstream: results with all that they name, blobs first.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::proto::{Action, ActionResult};
use model::result::{References, referenced_digests};
use model::{Chain, Digest, DigestFunction};
use prost::Message as _;
use store::{ActionCache, Cas};

use crate::call_error::CallError;
use crate::config::Entries;
use crate::contents::{Contents, contents};
use crate::fetch::{Results, on_disk};
use crate::journal::{Entry, Journal};
use crate::upload::{SMALL_BYTES, Uploaded, Uploader};

/// Results that are copied at the same time.
pub(crate) const PUBLISHERS: usize = 4;

/// Tries of a result while the upstream is up. A blob that takes too long each time is not tried for ever.
const TRIES: u32 = 4;

/// The wait between them.
const PAUSE: Duration = Duration::from_secs(2);

/// Copies results.
pub(crate) struct Publisher {
    pub(crate) uploader: Uploader,
    pub(crate) action_cache: ActionCache,
    pub(crate) results: Results,
    pub(crate) journal: Arc<Journal>,
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
            self.uploader.blobs.until_up().await;
            self.results.link.until_up().await;
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
            (self.uploader.blobs.abilities().await, self.results.link.abilities().await)
        else {
            return Err(CallError::Down);
        };
        let instance = self.results.link.server.instance_of(&entry.instance);
        let Some(instance) =
            instance.filter(|_| abilities.knows(function) && of_results.takes_results)
        else {
            return Ok(());
        };
        let (cas, cache, of) =
            (self.uploader.cas.clone(), self.action_cache.clone(), entry.clone());
        let entries = self.results.entries;
        let read = move || load(&cas, &cache, &of, entries);
        // Evicted meanwhile, with its blobs or without: there is nothing to copy.
        let Some((result, blobs)) = on_disk(read).await? else { return Ok(()) };
        let caller = Bytes::new();
        if self.uploader.upload(blobs, &abilities, &caller).await? == Uploaded::Gone {
            return Ok(());
        }
        self.results.link.update_result(&instance, &entry.action, &result, &caller).await?;
        self.results.link.counters.sent_bytes.add(result.encoded_len() as u64);
        Ok(())
    }
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
