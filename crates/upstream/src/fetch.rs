//! From the upstream into the store.
//!
//! A blob is downloaded once at a time, however many ask for it. The download goes on when those who asked
//! have left, and what it brings is verified before anybody sees it.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use model::proto::ActionResult;
use model::result::referenced_digests;
use model::{Chain, Digest, DigestFunction, foreign_result};
use store::{ActionCache, Cas};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::abilities::Abilities;
use crate::call_error::CallError;
use crate::config::Entries;
use crate::contents::{Contents, contents};
use crate::flights::{Claim, Flight, Flights};
use crate::link::Link;

/// Blobs up to this size travel in batches: a stream for each would cost more than its content.
const SMALL_BYTES: u64 = 128 << 10;

/// Blobs in one batch: what a server may add to each stays small beside the message.
const BATCH_BLOBS: usize = 1_000;

/// Batches at the same time, which are in memory as a whole: 32 MiB.
const BATCHES: usize = 8;

/// Streams at the same time: enough to fill a connection of 100 ms and 1 Gbit/s.
const STREAMS: usize = 16;

/// Blobs that are asked for without asking first which of them are there: one answer says both.
const FEW: usize = 4;

/// Rounds in which the directories of a result are fetched, each a level deeper: the depth of an output.
const LEVELS: usize = 128;

/// Brings blobs and results into the store.
pub(crate) struct Fetcher {
    pub(crate) cas: Cas,
    pub(crate) action_cache: ActionCache,
    pub(crate) blobs: Arc<Link>,
    pub(crate) results: Option<Results>,
    pub(crate) flights: Flights<Digest>,
    pub(crate) result_flights: Flights<(String, Digest)>,
    pub(crate) batches: Semaphore,
    pub(crate) streams: Semaphore,
}

/// Cached results upstream.
#[derive(Clone)]
pub(crate) struct Results {
    pub(crate) link: Arc<Link>,
    pub(crate) entries: Entries,
}

impl Fetcher {
    pub(crate) fn new(
        cas: Cas,
        action_cache: ActionCache,
        blobs: Arc<Link>,
        results: Option<Results>,
    ) -> Self {
        Self {
            cas,
            action_cache,
            blobs,
            results,
            flights: Flights::default(),
            result_flights: Flights::default(),
            batches: Semaphore::new(BATCHES),
            streams: Semaphore::new(STREAMS),
        }
    }

    /// Stores those of the blobs that are not in the store and that the upstream has.
    pub(crate) async fn fetch(&self, blobs: Vec<Digest>, caller: &Bytes) {
        let mut absent = self.cas.missing(&blobs);
        drop(blobs);
        absent.sort_unstable();
        absent.dedup();
        if absent.is_empty() {
            return;
        }
        let Some(abilities) = self.blobs.abilities().await else {
            self.blobs.counters.skipped.add(absent.len() as u64);
            return;
        };
        let (mut mine, mut others) = (Vec::new(), Vec::new());
        for digest in absent.into_iter().filter(|digest| abilities.knows(digest.function())) {
            match self.flights.board(digest) {
                Flight::Mine(claim) => mine.push(claim),
                Flight::Others(landing) => others.push(landing),
            }
        }
        for function in DigestFunction::ALL {
            let (of_it, rest) =
                mine.into_iter().partition(|claim| claim.key.function() == function);
            mine = rest;
            self.fetch_mine(of_it, &abilities, caller).await;
        }
        for landing in others {
            landing.wait().await;
        }
    }

    async fn fetch_mine(
        &self,
        mut mine: Vec<Claim<Digest>>,
        abilities: &Abilities,
        caller: &Bytes,
    ) {
        // Another flight may have landed between the first look and the boarding.
        mine.retain(|claim| !self.cas.contains(&claim.key));
        if mine.len() > FEW && self.blobs.server.has_bulk_questions() {
            let digests: Vec<Digest> = mine.iter().map(|claim| claim.key).collect();
            match self.blobs.missing(&digests, caller).await {
                Ok(mut missing) => {
                    missing.sort_unstable();
                    self.blobs.counters.misses.add(missing.len() as u64);
                    mine.retain(|claim| missing.binary_search(&claim.key).is_err());
                }
                Err(error) => return tell(&error, "asking for blobs"),
            }
        }
        let small_max = SMALL_BYTES.min(abilities.batch_bytes);
        let (small, large): (Vec<_>, Vec<_>) =
            mine.into_iter().partition(|claim| claim.key.size_bytes() <= small_max);
        let batches = batches(small, abilities.batch_bytes);
        let batches =
            batches.into_iter().map(|batch| self.fetch_batch(batch, abilities, caller).boxed());
        let streams =
            large.into_iter().map(|claim| self.fetch_stream(claim, abilities, caller).boxed());
        let (batches, streams): (Vec<_>, Vec<_>) = (batches.collect(), streams.collect());
        tokio::join!(at_once(batches, BATCHES), at_once(streams, STREAMS));
    }

    async fn fetch_batch(&self, batch: Vec<Claim<Digest>>, abilities: &Abilities, caller: &Bytes) {
        let Ok(_turn) = self.batches.acquire().await else { return };
        let digests: Vec<Digest> = batch.iter().map(|claim| claim.key).collect();
        if let Err(error) = self.blobs.read_batch(&digests, abilities, &self.cas, caller).await {
            return tell(&error, "fetching blobs");
        }
        if digests.len() <= FEW || !self.blobs.server.has_bulk_questions() {
            self.blobs.counters.misses.add(self.cas.missing(&digests).len() as u64);
        }
    }

    async fn fetch_stream(&self, claim: Claim<Digest>, abilities: &Abilities, caller: &Bytes) {
        let Ok(_turn) = self.streams.acquire().await else { return };
        match self.blobs.read(&claim.key, abilities, &self.cas, caller).await {
            Ok(()) => {}
            Err(CallError::Missing) => self.blobs.counters.misses.add(1),
            Err(error) => tell(&error, "fetching a blob"),
        }
    }

    /// Stores the upstream's result of an action and all that it names.
    pub(crate) async fn fetch_result(&self, instance: &str, action: Digest, caller: &Bytes) {
        let Some(Results { link, entries }) = &self.results else { return };
        let claim = match self.result_flights.board((instance.to_owned(), action)) {
            Flight::Mine(claim) => claim,
            Flight::Others(landing) => return landing.wait().await,
        };
        match link.abilities().await {
            Some(abilities) if abilities.knows(action.function()) => {}
            Some(_) => return,
            None => return link.counters.skipped.add(1),
        }
        let Some(theirs) = link.server.instance_of(instance) else { return };
        match link.result(&theirs, &action, caller).await {
            Ok(found) => match self.take(entries, instance, &action, found, caller).await {
                Ok(bytes) => {
                    link.counters.hits.add(1);
                    link.counters.received_bytes.add(bytes);
                }
                Err(CallError::Damaged) => {
                    link.counters.damaged.add(1);
                    let address = &link.place;
                    tracing::warn!(%address, %action, "the upstream's result of it can't be used");
                }
                Err(CallError::Missing) => link.counters.misses.add(1),
                Err(error) => tell(&error, "fetching what a result names"),
            },
            Err(CallError::Missing) => link.counters.misses.add(1),
            Err(error) => tell(&error, "fetching a result"),
        }
        drop(claim);
    }

    /// Stores a result once all that it names is here. Returns its size.
    async fn take(
        &self,
        entries: &Entries,
        instance: &str,
        action: &Digest,
        found: ActionResult,
        caller: &Bytes,
    ) -> Result<u64, CallError> {
        if found.exit_code != 0 {
            return Err(CallError::Damaged);
        }
        let kept = self.bring(action.function(), found, caller).await?;
        let (cache, value) = (self.action_cache.clone(), (entries.of_result)(kept));
        let (instance, action, bytes) = (instance.to_owned(), *action, value.len() as u64);
        on_disk(move || Ok(cache.put(&instance, &action, &value)?)).await?;
        Ok(bytes)
    }

    /// Stores all that a result names. Returns it without what is in blobs.
    pub(crate) async fn bring(
        &self,
        function: DigestFunction,
        found: ActionResult,
        caller: &Bytes,
    ) -> Result<ActionResult, CallError> {
        // Clients write to the paths in it, so it is checked as those that clients upload are.
        if foreign_result::check(&found, function).is_err() {
            return Err(CallError::Damaged);
        }
        let (kept, data) = foreign_result::without_data(found, function);
        let references = referenced_digests(&kept, function).map_err(|_| CallError::Damaged)?;
        let cas = self.cas.clone();
        on_disk(move || Ok(data.iter().try_for_each(|data| cas.put(function, data).map(drop))?))
            .await?;
        let references = Arc::new(references);
        for _ in 0..LEVELS {
            let (cas, of) = (self.cas.clone(), Arc::clone(&references));
            match on_disk(move || Ok(contents(&cas, &of)?)).await? {
                Contents::Unusable => return Err(CallError::Damaged),
                Contents::Wanted(digests) => {
                    self.fetch(digests.clone(), caller).await;
                    if !self.cas.missing(&digests).is_empty() {
                        return Err(CallError::Missing);
                    }
                }
                Contents::All(digests) => {
                    self.fetch(digests.clone(), caller).await;
                    if !self.cas.missing(&digests).is_empty() {
                        return Err(CallError::Missing);
                    }
                    return Ok(kept);
                }
            }
        }
        Err(CallError::Damaged)
    }
}

/// Does so many of the works at the same time.
async fn at_once(works: Vec<BoxFuture<'_, ()>>, limit: usize) {
    futures_util::stream::iter(works)
        .buffer_unordered(limit)
        .for_each(|()| std::future::ready(()))
        .await;
}

/// Groups of blobs that fit into a batch each.
fn batches(claims: Vec<Claim<Digest>>, bytes_max: u64) -> Vec<Vec<Claim<Digest>>> {
    let mut batches: Vec<Vec<Claim<Digest>>> = Vec::new();
    let mut bytes = 0;
    for claim in claims {
        let size = claim.key.size_bytes();
        match batches.last_mut() {
            Some(batch) if batch.len() < BATCH_BLOBS && bytes + size <= bytes_max => {
                bytes += size;
                batch.push(claim);
            }
            _ => {
                bytes = size;
                batches.push(vec![claim]);
            }
        }
    }
    batches
}

/// Work that may wait for the disk.
pub(crate) async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CallError> + Send + 'static,
) -> Result<T, CallError> {
    spawn_blocking(work).await.unwrap_or(Err(CallError::Down))
}

/// Tells of an error that costs a build time and nothing else.
fn tell(error: &CallError, step: &'static str) {
    match error {
        CallError::Down | CallError::Missing => {}
        error => tracing::debug!(error = %Chain(error), step, "the upstream was of no use"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(sizes: &[u64], bytes_max: u64) -> Vec<Vec<u64>> {
        let flights = Flights::default();
        let claim = |(number, size): (usize, &u64)| {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&number.to_le_bytes());
            match flights.board(Digest::new(DigestFunction::Sha256, hash, *size)) {
                Flight::Mine(claim) => claim,
                Flight::Others(_) => panic!("each number is one blob"),
            }
        };
        let claims = sizes.iter().enumerate().map(claim).collect();
        let sizes =
            |batch: &Vec<Claim<Digest>>| batch.iter().map(|claim| claim.key.size_bytes()).collect();
        batches(claims, bytes_max).iter().map(sizes).collect()
    }

    #[test]
    fn batches_fit() {
        assert!(sizes(&[], 10).is_empty());
        assert_eq!(sizes(&[4, 6, 1, 10, 3, 3], 10), [vec![4, 6], vec![1], vec![10], vec![3, 3]]);
        assert_eq!(sizes(&vec![0; BATCH_BLOBS + 1], 10).len(), 2);
    }
}
