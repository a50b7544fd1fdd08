//! The store's state as metrics and as lines of the page.

use std::sync::Arc;

use history::text::size;
use store::{Stats, Store};
use web::{Fact, Facts, Reading, ReadingKind};

/// A row of the table of metrics: kind, name, label, description, and how to read it.
type Row = (ReadingKind, &'static str, Option<&'static str>, &'static str, fn(&Stats) -> u64);

use ReadingKind::{Counter, Gauge};

const FAILED_WRITES: &str = "Writes that failed, by reason: the store was at its limit, the reserve of \
                             the file system was touched, the disk was full, read-only, or failed \
                             otherwise.";

/// Every metric of [`Store::stats`]. Labels are values of `reason`.
const ROWS: [Row; 22] = [
    (Gauge, "store_blobs", None, "Blobs in the store.", |it| it.blobs),
    (Gauge, "store_blob_bytes", None, "Sum of the sizes of all blobs.", |it| it.bytes),
    (Gauge, "store_cached_results", None, "Cached results in the store.", |it| it.results),
    (Gauge, "store_used_bytes", None, "Disk space that is charged to the limit.", |it| {
        it.used_bytes
    }),
    (Gauge, "store_limit_bytes", None, "The limit of the store; 0 if it has none.", |it| {
        it.limit_bytes.unwrap_or(0)
    }),
    (
        Gauge,
        "store_leased_bytes",
        None,
        "Disk space of what was used within the lease; looked at every 30 s.",
        |it| it.leased_bytes,
    ),
    (
        Gauge,
        "store_oldest_idle_seconds",
        None,
        "Idle time of the blob or result that was not used for longest; looked at every 30 s.",
        |it| it.oldest_idle_seconds,
    ),
    (Counter, "store_evicted_blobs_total", None, "Evicted blobs.", |it| it.evicted_blobs),
    (Counter, "store_evicted_bytes_total", None, "Sum of the sizes of evicted blobs.", |it| {
        it.evicted_bytes
    }),
    (
        Counter,
        "store_evicted_leased_blobs_total",
        None,
        "Blobs that were evicted before their lease ended.",
        |it| it.evicted_leased_blobs,
    ),
    (Counter, "store_evicted_results_total", None, "Evicted cached results.", |it| {
        it.evicted_results
    }),
    (
        Gauge,
        "store_evicted_idle_seconds",
        None,
        "Idle time of the blob that was evicted last; if it is short, the store is too small.",
        |it| it.evicted_idle_seconds,
    ),
    (Counter, "store_failed_writes_total", Some("limit"), FAILED_WRITES, |it| {
        it.failed_writes.over_limit
    }),
    (Counter, "store_failed_writes_total", Some("reserve"), FAILED_WRITES, |it| {
        it.failed_writes.over_reserve
    }),
    (Counter, "store_failed_writes_total", Some("disk_full"), FAILED_WRITES, |it| {
        it.failed_writes.disk_full
    }),
    (Counter, "store_failed_writes_total", Some("read_only"), FAILED_WRITES, |it| {
        it.failed_writes.read_only
    }),
    (Counter, "store_failed_writes_total", Some("other"), FAILED_WRITES, |it| {
        it.failed_writes.failed
    }),
    (Counter, "store_scrubbed_blobs_total", None, "Blobs that the scrub has read.", |it| {
        it.scrubbed_blobs
    }),
    (Counter, "store_scrubbed_bytes_total", None, "Bytes that the scrub has read.", |it| {
        it.scrubbed_bytes
    }),
    (
        Gauge,
        "store_scrub_round_parts",
        None,
        "Parts of the present round of the scrub that are done; a round has 1,536.",
        |it| it.scrubbed_parts,
    ),
    (Counter, "store_damaged_blobs_total", None, "Blobs that turned out to be damaged.", |it| {
        it.quarantined_blobs
    }),
    (Gauge, "store_quarantine_bytes", None, "Disk space of damaged blobs that are kept.", |it| {
        it.quarantine_bytes
    }),
];

/// The store's metrics.
pub(crate) fn readings(store: &Arc<Store>) -> impl Iterator<Item = Reading> {
    ROWS.into_iter().map(|(kind, name, label, help, read)| {
        let store = Arc::clone(store);
        let read = move || i64::try_from(read(&store.stats())).unwrap_or(i64::MAX);
        let label = label.map(|value| ("reason", value.into()));
        Reading { kind, name, help, label, read: Box::new(read) }
    })
}

/// The page's facts about the store.
pub(crate) fn facts(store: &Arc<Store>) -> Facts {
    let store = Arc::clone(store);
    Arc::new(move || lines(&store.stats()))
}

fn lines(stats: &Stats) -> Vec<Fact> {
    let fact = |name, value| Fact { name, value };
    let used = match stats.limit_bytes {
        Some(limit) => format!("{} of {}", size(stats.used_bytes), size(limit)),
        None => size(stats.used_bytes),
    };
    let mut facts = vec![
        fact("used", used),
        fact("blobs", format!("{} ({})", stats.blobs, size(stats.bytes))),
        fact("cached results", stats.results.to_string()),
        fact("used within the lease", size(stats.leased_bytes)),
        fact("evicted", format!("{} ({})", stats.evicted_blobs, size(stats.evicted_bytes))),
    ];
    // The rest is shown only where there is something to tell.
    let failed = stats.failed_writes;
    for (name, count) in [
        ("evicted before the lease ended", stats.evicted_leased_blobs),
        ("writes refused", failed.refused()),
        ("writes failed", failed.disk_full + failed.read_only + failed.failed),
        ("damaged blobs", stats.quarantined_blobs),
    ] {
        if count > 0 {
            facts.push(fact(name, count.to_string()));
        }
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_of_prometheus() {
        for (kind, name, ..) in ROWS {
            assert_eq!(name.ends_with("_total"), kind == Counter, "{name}");
        }
        let root = tempfile::tempdir().expect("a directory");
        let store = Store::open(&root.path().join("root"), store::StoreOptions::default());
        let store = store.expect("a store");
        let metrics = web::Metrics::new("1", readings(&store).collect()).expect("names are valid");
        let text = metrics.encode().expect("a text");
        assert!(text.contains("actiond_store_blobs 2\n"), "{text}");
        assert!(text.contains("actiond_store_failed_writes_total{reason=\"limit\"} 0\n"), "{text}");
        let facts = facts(&store)();
        assert_eq!(facts[1], Fact { name: "blobs", value: "2 (0 B)".into() });
        assert!(!facts.iter().any(|fact| fact.name == "writes failed"), "nothing failed");
    }
}
