//! The tier below the store: what is not here is fetched before a call says that it is missing.
//!
//! Afterwards the call looks into the store as if there were no tier. So a client is only told of blobs that
//! are here and leased, and never of one that a server of others may lose.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use model::{Digest, Directory, Entry, InstanceName};
use store::Store;
use tonic::Status;
use worker::{CacheError, Worker};

use crate::memory::Reservation;
use crate::{blocking, status};

/// Memory for a blob that is asked for: its digest in the lists of the tier and in the table of what is under
/// way.
const BLOB_MEMORY_BYTES: u64 = 400;

/// Directories of one tree that are fetched ahead.
const MAX_DIRECTORIES: usize = 100_000;

/// Fetches those of the blobs that are not here.
pub(crate) async fn fetch(
    store: &Store,
    reservation: &Reservation,
    blobs: impl IntoIterator<Item = Digest> + Send,
    caller: Bytes,
) -> Result<(), Status> {
    let Some(tier) = store.tier() else { return Ok(()) };
    let is_absent = |digest: &Digest| !store.cas().contains(digest);
    let absent: Vec<Digest> =
        blocking::presence(store, || blobs.into_iter().filter(is_absent).collect());
    if absent.is_empty() {
        return Ok(());
    }
    reservation.grow_by(BLOB_MEMORY_BYTES * absent.len() as u64)?;
    tier.fetch(absent, caller).await;
    Ok(())
}

/// Fetches the result of an action with all that it names, unless that is here.
pub(crate) async fn fetch_result(
    store: &Arc<Store>,
    worker: &Worker,
    instance: &InstanceName,
    action: Digest,
    caller: Bytes,
) -> Result<(), Status> {
    let Some(tier) = store.tier() else { return Ok(()) };
    let is_here = match worker.has_result(&store.resident(), instance, &action) {
        Err(CacheError::WouldWait) => {
            let (worker, here, instance) = (worker.clone(), Arc::clone(store), instance.clone());
            let look = move || Ok(worker.has_result(&here.blocking(), &instance, &action));
            blocking::run(look).await?
        }
        known => known,
    };
    // The next look-up reports an error.
    if matches!(is_here, Ok(false)) {
        tier.fetch_result(instance.as_str(), action, caller).await;
    }
    Ok(())
}

/// Fetches the directories of a tree that are not here, level by level.
pub(crate) async fn fetch_directories(
    store: &Arc<Store>,
    reservation: &Reservation,
    root: Digest,
    caller: &Bytes,
) -> Result<(), Status> {
    if store.tier().is_none() {
        return Ok(());
    }
    let mut seen = HashSet::from([root]);
    let mut level = vec![root];
    while !level.is_empty() && seen.len() <= MAX_DIRECTORIES {
        fetch(store, reservation, level.iter().copied(), caller.clone()).await?;
        let here = Arc::clone(store);
        (level, seen) = blocking::run(move || next_level(&here, &level, seen)).await?;
        reservation.grow_by(BLOB_MEMORY_BYTES * level.len() as u64)?;
    }
    Ok(())
}

/// The child directories of those directories that are here and were not seen before; with all that were seen. No
/// further directory is read once too many were seen.
fn next_level(
    store: &Store,
    directories: &[Digest],
    mut seen: HashSet<Digest>,
) -> Result<(Vec<Digest>, HashSet<Digest>), Status> {
    let mut children = Vec::new();
    for digest in directories {
        if seen.len() > MAX_DIRECTORIES {
            break;
        }
        if Directory::check_size(digest.size_bytes()).is_err() {
            continue;
        }
        let Some(message) = store.cas().read(digest).map_err(status::store)? else { continue };
        // The walk over the tree says what is wrong with it.
        let Ok(directory) = Directory::parse(message, digest.function()) else { continue };
        for entry in directory.entries() {
            match entry {
                Entry::Directory { digest, .. } if seen.insert(digest) => children.push(digest),
                Entry::Directory { .. } | Entry::File { .. } | Entry::Symlink { .. } => {}
            }
        }
    }
    Ok((children, seen))
}
