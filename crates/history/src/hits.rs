//! Hits on their way into the database: many requests, few rows.
//!
//! A row costs some 10 µs and 500 bytes of disk. Clients can ask for tens of thousands of cached results in a
//! second, many of them the same ones, so hits of one action for the same caller share a row, and the number of
//! rows in a period is bounded. Hits beyond it are in the sums of their build and hour only.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use events::{Caller, LookedUp, Origin};
use model::{Digest, InstanceName};

use crate::record::Record;

/// The time for which hits are collected. A reader that asks has them written at once.
const PERIOD: Duration = Duration::from_secs(2);

/// Rows of a period: all hits of usual builds, and some 2 % of one core at most. They take 2 MiB, or 18 MiB with
/// the largest metadata.
const ROWS_MAX: usize = 4096;

/// Groups of hits without a row in a period: builds times mnemonics.
const GROUPS_MAX: usize = 256;

/// Hits that wait to be written.
#[derive(Debug, Default)]
pub(crate) struct Hits {
    rows: HashMap<Key, Row>,
    groups: HashMap<Group, Row>,
    first_came: Option<Instant>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    action: Digest,
    instance: InstanceName,
    caller: Caller,
}

/// The key of a sum.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Group {
    instance: InstanceName,
    /// Without a target and a configuration.
    origin: Origin,
}

#[derive(Debug)]
struct Row {
    action: Digest,
    at: SystemTime,
    times: u64,
}

/// Hits as records.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// Records with a row each.
    pub(crate) rows: Vec<Record>,
    /// Records that only the sums have.
    pub(crate) only_sums: Vec<Record>,
}

impl Hits {
    /// Takes a hit. Returns whether it is in a row or a group; if not, it is lost.
    pub(crate) fn add(&mut self, hit: &Arc<LookedUp>) -> bool {
        let LookedUp { instance, action, caller, at, miss: _ } = &**hit;
        self.first_came.get_or_insert_with(Instant::now);
        let key = Key { action: *action, instance: instance.clone(), caller: caller.clone() };
        let new = || Row { action: *action, at: *at, times: 0 };
        let has_room = self.rows.len() < ROWS_MAX;
        if has_room || self.rows.contains_key(&key) {
            self.rows.entry(key).or_insert_with(new).times += 1;
            return true;
        }
        let group = Group { instance: instance.clone(), origin: of_build(caller.origin()) };
        let has_room = self.groups.len() < GROUPS_MAX;
        if has_room || self.groups.contains_key(&group) {
            self.groups.entry(group).or_insert_with(new).times += 1;
            return true;
        }
        false
    }

    /// When they are to be written, if there are any.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.first_came.map(|first| first + PERIOD)
    }

    /// Takes all of them, the first ones first.
    pub(crate) fn take(&mut self) -> Written {
        let Self { rows, groups, first_came: _ } = mem::take(self);
        let mut rows: Vec<(Key, Row)> = rows.into_iter().collect();
        rows.sort_by_key(|(_, row)| row.at);
        let row = |(key, row): (Key, Row)| {
            Record::of_hits(&key.instance, row.action, key.caller.origin(), row.at, row.times)
        };
        let group = |(group, row): (Group, Row)| {
            Record::of_hits(&group.instance, row.action, group.origin, row.at, row.times)
        };
        Written {
            rows: rows.into_iter().map(row).collect(),
            only_sums: groups.into_iter().map(group).collect(),
        }
    }
}

fn of_build(origin: Origin) -> Origin {
    Origin { target: "".into(), configuration: "".into(), ..origin }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use model::DigestFunction;
    use model::proto::{Message as _, RequestMetadata};

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

    #[test]
    fn equal_hits_share_a_row() {
        let mut hits = Hits::default();
        assert_eq!(hits.due(), None);
        for (number, invocation) in [(2, "a"), (1, "a"), (2, "a"), (2, "b")] {
            assert!(hits.add(&hit(number, invocation)));
        }
        assert!(hits.due().is_some());
        let Written { rows, only_sums } = hits.take();
        let mut seen: Vec<_> = rows
            .iter()
            .map(|it| (it.at_us / 1_000_000, it.origin.invocation.as_str(), it.times))
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, [(1, "a", 1), (2, "a", 2), (2, "b", 1)]);
        assert!(rows.is_sorted_by_key(|it| it.at_us), "the first ones are first");
        assert!(only_sums.is_empty());
        assert!(hits.due().is_none() && hits.take().rows.is_empty());
    }

    #[test]
    fn a_flood_is_counted_and_takes_bounded_room() {
        let mut hits = Hits::default();
        for number in 0..ROWS_MAX + 100 {
            assert!(hits.add(&hit(number, "flood")));
        }
        assert!(hits.add(&hit(0, "flood")), "known ones still share their row");
        let builds = (0..2 * GROUPS_MAX).filter(|build| hits.add(&hit(9999, &build.to_string())));
        assert_eq!(builds.count(), GROUPS_MAX - 1);
        let Written { rows, only_sums } = hits.take();
        assert_eq!(rows.len(), ROWS_MAX);
        assert_eq!(rows.iter().map(|it| it.times).sum::<u64>(), ROWS_MAX as u64 + 1);
        assert_eq!(only_sums.len(), GROUPS_MAX);
        let flood = only_sums.iter().find(|it| it.origin.invocation.as_str() == "flood").unwrap();
        assert_eq!((flood.times, flood.origin.target.as_str()), (100, ""));
    }
}
