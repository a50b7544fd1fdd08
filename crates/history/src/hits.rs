//! Hits on their way into the database: many requests, few rows.
//!
//! A row costs some 10 µs and 500 bytes of disk. Clients can ask for tens of thousands of cached results in a
//! second, many of them the same ones, so hits of one action for the same caller share a row, and the number of
//! rows in a period is bounded. Hits beyond it are in the sums of their build and hour only.
//!
//! The thread that answers a hit counts it, in some tens of nanoseconds: to hand each to the history's thread cost
//! that thread as much as the answer's own bookkeeping, and a hit that is freed by another thread than the one that
//! made it costs both of them a lock of the C library. The hits are divided over shards, each with a lock of its
//! own, so that threads hardly ever meet.
//!
//! ```text
//!  add() ──hash──► shard: rows ─┬─ known, or there is room: counted
//!                               └─ ROWS_MAX: shard of the build's hash: groups ─┬─ known, or room: counted
//!                                                                               └─ GROUPS_MAX: lost
//!  take() ◄─ every PERIOD, the history's thread empties each shard
//! ```

use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use events::{EncodedBuild, LookedUp, Origin};
use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};
use model::InstanceName;
use parking_lot::Mutex;

use crate::record::Record;

/// The time for which hits are collected. A reader that asks has them written at once.
pub(crate) const PERIOD: Duration = Duration::from_secs(2);

/// Rows of a period: all hits of usual builds, and some 2 % of one core at most. They take 2 MiB, or 18 MiB with
/// the largest metadata.
const ROWS_MAX: usize = 4096;

/// Groups of hits without a row in a period: builds times mnemonics. They take 1 MiB with the largest metadata.
const GROUPS_MAX: usize = 256;

/// The number of shards: with a thread on each of 64 cores, few find theirs locked. They take 8 KiB.
const SHARDS: usize = 64;

/// Hits that wait to be written.
#[derive(Debug)]
pub(crate) struct Hits {
    shards: [Shard; SHARDS],
    /// Seeded at random: a client does not know which of its hits meet in a shard or a bucket. The bounds hold
    /// even if it did.
    hashers: [DefaultHashBuilder; 2],
    /// The number of rows in all shards.
    rows: AtomicUsize,
    /// The number of groups in all shards.
    groups: AtomicUsize,
    /// Whether a hit came since the last [`Hits::take`].
    are_waiting: AtomicBool,
}

/// The hits with some hashes, on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard(Mutex<Tables>);

#[derive(Debug, Default)]
struct Tables {
    rows: HashTable<Row>,
    groups: HashTable<Group>,
}

/// Hits of one action for the same caller.
#[derive(Debug)]
struct Row {
    id: RowId,
    first: Arc<LookedUp>,
    times: u64,
}

/// Two hashes of a row's action, instance and caller, with secret seeds. They stand for these: to compare the names
/// themselves would read memory that is cold, and took more time than all the rest.
type RowId = [u64; 2];

/// Hits of one build and mnemonic that have no row.
#[derive(Debug)]
struct Group {
    build: EncodedBuild,
    first: Arc<LookedUp>,
    times: u64,
}

type GroupKey<'a> = (&'a InstanceName, &'a EncodedBuild);

impl Group {
    fn key(&self) -> GroupKey<'_> {
        (&self.first.instance, &self.build)
    }
}

/// The fate of a hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Added {
    /// Whether it is in a row or a group; if not, it is lost.
    pub(crate) is_kept: bool,
    /// Whether it is the first one since the last [`Hits::take`].
    pub(crate) is_first: bool,
}

/// Hits as records.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// Records with a row each.
    pub(crate) rows: Vec<Record>,
    /// Records that only the sums have.
    pub(crate) only_sums: Vec<Record>,
}

impl Default for Hits {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Shard::default()),
            hashers: Default::default(),
            rows: AtomicUsize::new(0),
            groups: AtomicUsize::new(0),
            are_waiting: AtomicBool::new(false),
        }
    }
}

impl Hits {
    /// Counts a hit.
    pub(crate) fn add(&self, hit: &Arc<LookedUp>) -> Added {
        let is_kept = self.add_to_row(hit) || self.add_to_group(hit);
        // After the hit is in: `take` clears it before it looks for hits.
        let is_first = !self.are_waiting.load(Ordering::Relaxed)
            && !self.are_waiting.swap(true, Ordering::AcqRel);
        Added { is_kept, is_first }
    }

    fn add_to_row(&self, hit: &Arc<LookedUp>) -> bool {
        let id = self.row_id(hit);
        let mut tables = self.shard(id[0]).lock();
        match tables.rows.entry(id[0], |row| row.id == id, |row| row.id[0]) {
            Entry::Occupied(mut row) => row.get_mut().times += 1,
            Entry::Vacant(row) if is_taken(&self.rows, ROWS_MAX) => {
                row.insert(Row { id, first: Arc::clone(hit), times: 1 });
            }
            Entry::Vacant(_) => return false,
        }
        true
    }

    fn row_id(&self, hit: &LookedUp) -> RowId {
        let LookedUp { instance, action, caller, at: _, miss: _ } = hit;
        self.hashers.each_ref().map(|hasher| hasher.hash_one((action, instance, caller)))
    }

    fn add_to_group(&self, hit: &Arc<LookedUp>) -> bool {
        let build = hit.caller.encoded_build();
        let key = (&hit.instance, &build);
        let [hasher, _] = &self.hashers;
        let hash = hasher.hash_one(key);
        let mut tables = self.shard(hash).lock();
        let is_same = |group: &Group| group.key() == key;
        match tables.groups.entry(hash, is_same, |group| hasher.hash_one(group.key())) {
            Entry::Occupied(mut group) => group.get_mut().times += 1,
            Entry::Vacant(group) if is_taken(&self.groups, GROUPS_MAX) => {
                group.insert(Group { build, first: Arc::clone(hit), times: 1 });
            }
            Entry::Vacant(_) => return false,
        }
        true
    }

    /// The shard of a hash: by bits that the table inside it does not use.
    fn shard(&self, hash: u64) -> &Mutex<Tables> {
        &self.shards[(hash >> 32) as usize % SHARDS].0
    }

    /// Whether there are hits to take.
    pub(crate) fn are_waiting(&self) -> bool {
        self.are_waiting.load(Ordering::Acquire)
    }

    /// Takes all of them as records, the first ones first.
    pub(crate) fn take(&self) -> Written {
        self.are_waiting.store(false, Ordering::Release);
        let (mut rows, mut groups) = (Vec::new(), Vec::new());
        for Shard(tables) in &self.shards {
            let mut tables = tables.lock();
            // The tables keep their memory, so that they need not grow anew in each period.
            rows.extend(tables.rows.drain());
            groups.extend(tables.groups.drain());
        }
        self.rows.fetch_sub(rows.len(), Ordering::Relaxed);
        self.groups.fetch_sub(groups.len(), Ordering::Relaxed);
        rows.sort_by_key(|row| row.first.at);
        Written {
            rows: rows.iter().map(|row| record(&row.first, row.times, |origin| origin)).collect(),
            only_sums: groups
                .iter()
                .map(|group| record(&group.first, group.times, of_build))
                .collect(),
        }
    }
}

/// Takes one of `max` places. Returns whether there was one.
fn is_taken(places: &AtomicUsize, max: usize) -> bool {
    places
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
            (taken < max).then_some(taken + 1)
        })
        .is_ok()
}

fn record(first: &LookedUp, times: u64, names: impl FnOnce(Origin) -> Origin) -> Record {
    let LookedUp { instance, action, caller, at, miss: _ } = first;
    Record::of_hits(instance, *action, names(caller.origin()), *at, times)
}

/// The names without a target and a configuration.
fn of_build(origin: Origin) -> Origin {
    Origin { target: "".into(), configuration: "".into(), ..origin }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use bytes::Bytes;
    use events::Caller;
    use model::proto::{Message as _, RequestMetadata};
    use model::{Digest, DigestFunction};

    use super::*;

    fn hit(number: usize, invocation: &str) -> Arc<LookedUp> {
        let metadata = RequestMetadata {
            tool_invocation_id: invocation.into(),
            target_id: format!("//a:{number}"),
            ..RequestMetadata::default()
        };
        Arc::new(LookedUp {
            instance: InstanceName::default(),
            action: Digest::of(DigestFunction::Sha256, &number.to_le_bytes()),
            caller: Caller::new("".into(), Bytes::from(metadata.encode_to_vec())),
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(number as u64),
            miss: None,
        })
    }

    fn keep(hits: &Hits, hit: &Arc<LookedUp>) -> bool {
        hits.add(hit).is_kept
    }

    #[test]
    fn equal_hits_share_a_row() {
        let hits = Hits::default();
        assert!(!hits.are_waiting());
        let first: Vec<bool> = [(2, "a"), (1, "a"), (2, "a"), (2, "b")]
            .map(|(number, invocation)| hits.add(&hit(number, invocation)))
            .iter()
            .map(|added| added.is_kept && added.is_first)
            .collect();
        assert_eq!(first, [true, false, false, false]);
        assert!(hits.are_waiting());
        let Written { rows, only_sums } = hits.take();
        let mut seen: Vec<_> = rows
            .iter()
            .map(|it| (it.at_us / 1_000_000, it.origin.invocation.as_str(), it.times))
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, [(1, "a", 1), (2, "a", 2), (2, "b", 1)]);
        assert!(rows.is_sorted_by_key(|it| it.at_us), "the first ones are first");
        assert!(only_sums.is_empty());
        assert!(!hits.are_waiting() && hits.take().rows.is_empty());
        assert!(hits.add(&hit(1, "a")).is_first, "the next period begins");
    }

    #[test]
    fn a_flood_is_counted_and_takes_bounded_room() {
        let hits = Hits::default();
        for _ in 0..2 {
            for number in 0..ROWS_MAX + 100 {
                assert!(keep(&hits, &hit(number, "flood")));
            }
            assert!(keep(&hits, &hit(0, "flood")), "known ones still share their row");
            let builds =
                (0..2 * GROUPS_MAX).filter(|build| keep(&hits, &hit(9999, &build.to_string())));
            assert_eq!(builds.count(), GROUPS_MAX - 1);
            let Written { rows, only_sums } = hits.take();
            assert_eq!(rows.len(), ROWS_MAX);
            assert_eq!(rows.iter().map(|it| it.times).sum::<u64>(), ROWS_MAX as u64 + 1);
            assert_eq!(only_sums.len(), GROUPS_MAX);
            let flood =
                only_sums.iter().find(|it| it.origin.invocation.as_str() == "flood").unwrap();
            assert_eq!((flood.times, flood.origin.target.as_str()), (100, ""));
        }
    }

    #[test]
    fn hits_of_many_threads_are_counted_once_while_they_are_taken() {
        const THREADS: usize = 4;
        const EACH: usize = 20_000;
        let hits = Hits::default();
        let told = AtomicUsize::new(0);
        let mut counted = 0;
        let count = |written: Written| {
            written.rows.iter().chain(&written.only_sums).map(|it| it.times).sum::<u64>()
        };
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (hits, told) = (&hits, &told);
                scope.spawn(move || {
                    let known: Vec<_> = (0..50).map(|number| hit(number + thread, "a")).collect();
                    for number in 0..EACH {
                        assert!(keep(hits, &known[number % known.len()]));
                        told.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            while told.load(Ordering::Relaxed) < THREADS * EACH {
                counted += count(hits.take());
            }
        });
        let are_waiting = hits.are_waiting();
        let rest = count(hits.take());
        assert!(rest == 0 || are_waiting, "hits that are left are told of");
        counted += rest;
        assert_eq!(counted, (THREADS * EACH) as u64);
    }
}
