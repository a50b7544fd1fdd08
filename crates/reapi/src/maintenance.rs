//! The maintenance of a store as messages: for the service `actiond.internal.v1.Store`, and for
//! `linux-actiond store` where no server runs. Everything here waits for the disk.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use model::Digest;
use proto::actiond::internal::v1::list_blobs_response::Blob;
use proto::actiond::internal::v1::usage::Share;
use proto::actiond::internal::v1::{
    CollectGarbageProgress, CollectGarbageRequest, ListBlobsRequest, ListBlobsResponse, Usage,
    VerifyProgress,
};
use store::{Collected, Goals, Item, Store, StoreError, Verified};

/// Blobs in one [`ListBlobsResponse`]: some 100 KiB.
const BLOBS_PER_RESPONSE: usize = 1000;

/// The least time between two reports of progress.
const REPORT_PERIOD: Duration = Duration::from_millis(200);

/// The name of the kind of all blobs.
pub(crate) const BLOBS: &str = "blobs";

const HOUR: u64 = 3600;

/// The groups by age: a name, and the idle time in seconds up to which files belong to the group.
const AGES: [(&str, u64); 5] = [
    ("up to 1 hour", HOUR),
    ("up to 1 day", 24 * HOUR),
    ("up to 7 days", 7 * 24 * HOUR),
    ("up to 30 days", 30 * 24 * HOUR),
    ("older", u64::MAX),
];

/// The groups by size: a name, and the size in bytes up to which blobs belong to the group.
const SIZES: [(&str, u64); 5] = [
    ("up to 4 KiB", 4 << 10),
    ("up to 64 KiB", 64 << 10),
    ("up to 1 MiB", 1 << 20),
    ("up to 64 MiB", 64 << 20),
    ("larger", u64::MAX),
];

fn groups<const N: usize>(names: [(&str, u64); N]) -> Vec<Share> {
    names.iter().map(|(name, _)| share(name)).collect()
}

pub(crate) fn share(name: &str) -> Share {
    Share { name: name.to_owned(), ..Share::default() }
}

pub(crate) fn add(share: &mut Share, bytes: u64) {
    share.files += 1;
    share.bytes += bytes;
}

fn group<'a>(shares: &'a mut [Share], bounds: &[(&str, u64)], value: u64) -> &'a mut Share {
    let at = bounds.iter().position(|(_, bound)| value <= *bound);
    &mut shares[at.unwrap_or(bounds.len() - 1)]
}

/// Adds up what is in the store.
#[must_use]
pub fn usage(store: &Store) -> Usage {
    let (mut blobs, mut results) = (share(BLOBS), share("cached results"));
    let (mut ages, mut sizes) = (groups(AGES), groups(SIZES));
    store.each_item(|Item { blob, size_bytes, cost_bytes, idle }| {
        add(group(&mut ages, &AGES, idle.as_secs()), cost_bytes);
        match blob {
            Some(_) => {
                add(&mut blobs, cost_bytes);
                add(group(&mut sizes, &SIZES, size_bytes), cost_bytes);
            }
            None => add(&mut results, cost_bytes),
        }
        ControlFlow::Continue(())
    });
    let stats = store.stats();
    let quarantine = Share {
        name: "quarantine".to_owned(),
        files: stats.quarantine_files,
        bytes: stats.quarantine_bytes,
    };
    let mut kinds = vec![blobs, results, quarantine];
    for directory in ["history", "work", "embedded", "images"] {
        let mut found = share(directory);
        add_up(&store.path().join(directory), &mut found, DEPTH_MAX);
        kinds.push(found);
    }
    Usage {
        used_bytes: stats.used_bytes,
        limit_bytes: stats.limit_bytes.unwrap_or(0),
        kinds,
        ages,
        sizes,
        targets: None,
    }
}

/// How deep directories are entered: actions nest theirs without bound.
const DEPTH_MAX: usize = 64;

/// Adds the blocks of all files below a directory. Leaves out files that can't be read or go away.
fn add_up(directory: &Path, found: &mut Share, depth: usize) {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            if depth > 0 {
                add_up(&entry.path(), found, depth - 1);
            }
        } else {
            add(found, metadata.blocks() * 512);
        }
    }
}

/// Gives the blobs that are asked for to `send`, until that breaks.
pub fn list(
    store: &Store,
    request: &ListBlobsRequest,
    mut send: impl FnMut(ListBlobsResponse) -> ControlFlow<()>,
) {
    let mut blobs = Vec::new();
    let mut is_wanted = true;
    store.each_item(|item| {
        let idle_seconds = item.idle.as_secs();
        let is_asked_for =
            idle_seconds >= request.idle_seconds_min && item.size_bytes >= request.size_bytes_min;
        let Some(digest) = item.blob.filter(|_| is_asked_for) else {
            return ControlFlow::Continue(());
        };
        blobs.push(Blob {
            digest: Some(digest.to_proto()),
            digest_function: digest.function().to_proto(),
            idle_seconds,
        });
        if blobs.len() < BLOBS_PER_RESPONSE {
            return ControlFlow::Continue(());
        }
        let sent = send(ListBlobsResponse { blobs: std::mem::take(&mut blobs) });
        is_wanted = sent.is_continue();
        sent
    });
    if is_wanted && !blobs.is_empty() {
        let _ = send(ListBlobsResponse { blobs });
    }
}

/// Lets something through at most once in [`REPORT_PERIOD`].
struct Paced(Option<Instant>);

impl Paced {
    fn is_time(&mut self) -> bool {
        let is_time = self.0.is_none_or(|last| last.elapsed() >= REPORT_PERIOD);
        if is_time {
            self.0 = Some(Instant::now());
        }
        is_time
    }
}

/// Evicts until the goals are reached, and reports to `send`, until that breaks.
///
/// # Errors
/// When a file can't be removed.
pub fn collect_garbage(
    store: &Store,
    request: &CollectGarbageRequest,
    mut send: impl FnMut(CollectGarbageProgress) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    let goals = Goals {
        used_bytes_max: request.used_bytes_max,
        idle_min: request.idle_seconds_min.map(Duration::from_secs),
    };
    let progress = |Collected { files, bytes, used_bytes }, done| CollectGarbageProgress {
        evicted_files: files,
        evicted_bytes: bytes,
        used_bytes,
        done,
    };
    let mut paced = Paced(None);
    let collected = store.collect_garbage(goals, |so_far| {
        if paced.is_time() { send(progress(so_far, false)) } else { ControlFlow::Continue(()) }
    })?;
    let _ = send(progress(collected, true));
    Ok(())
}

/// Verifies all blobs, and reports to `send`, until that breaks.
///
/// # Errors
/// When blobs can't be read for a reason that is not their own.
pub fn verify(
    store: &Store,
    mut send: impl FnMut(VerifyProgress) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    let stats = store.stats();
    let progress = |verified: &mut Verified, done| VerifyProgress {
        verified_blobs: verified.blobs,
        verified_bytes: verified.bytes,
        blobs: stats.blobs,
        bytes: stats.bytes,
        damaged: std::mem::take(&mut verified.damaged).iter().map(name).collect(),
        done,
    };
    let mut paced = Paced(None);
    let mut verified = store.verify_all(|so_far| {
        if paced.is_time() { send(progress(so_far, false)) } else { ControlFlow::Continue(()) }
    })?;
    let _ = send(progress(&mut verified, true));
    Ok(())
}

/// `function:hash/size`.
fn name(digest: &Digest) -> String {
    format!("{}:{digest}", digest.function())
}
