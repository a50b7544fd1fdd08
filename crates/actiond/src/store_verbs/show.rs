//! The output of the verbs. Pure.

use history::text::size;
use model::Digest;
use proto::actiond::internal::v1::list_blobs_response::Blob;
use proto::actiond::internal::v1::usage::{Share, Targets};
use proto::actiond::internal::v1::{CollectGarbageProgress, Usage, VerifyProgress};
use serde_json::{Value, json};

use super::access::Removed;
use super::{Grouping, Order};

/// All groupings that are there, or only `by`.
pub(crate) fn usage(usage: &Usage, by: Option<Grouping>) -> String {
    let limit = match usage.limit_bytes {
        0 => "no limit is in force".to_owned(),
        bytes => format!("of {}", size(bytes)),
    };
    let mut text = format!("{} charged to the limit, {limit}\n", size(usage.used_bytes));
    let groups = [
        (Grouping::Kind, "by kind", &usage.kinds),
        (Grouping::Age, "by last use", &usage.ages),
        (Grouping::Size, "blobs by size", &usage.sizes),
    ];
    for (grouping, title, shares) in groups {
        if by.is_some_and(|by| by != grouping) {
            continue;
        }
        text += &format!("\n{title}\n");
        for Share { name, files, bytes } in shares {
            text += &format!("  {name:16} {:>10} {files:>10} files\n", size(*bytes));
        }
    }
    if let Some(targets) = &usage.targets {
        text += "\nblobs by target\n";
        for (name, files, bytes) in rows(targets) {
            text += &format!("  {:>10} {files:>10} files  {name}\n", size(bytes));
        }
    }
    text
}

/// The rows of the grouping by target: a name, the number of files, and their bytes.
fn rows(targets: &Targets) -> Vec<(String, u64, u64)> {
    let mut rows: Vec<_> =
        targets.largest.iter().map(|it| (it.name.clone(), it.files, it.bytes)).collect();
    let others = targets.others.clone().unwrap_or_default();
    if targets.others_count > 0 {
        rows.push((
            format!("({} other targets)", targets.others_count),
            others.files,
            others.bytes,
        ));
    }
    let unknown = targets.unknown.clone().unwrap_or_default();
    rows.push(("(no known target)".to_owned(), unknown.files, unknown.bytes));
    rows
}

pub(crate) fn usage_json(usage: &Usage) -> String {
    let share = |Share { name, files, bytes }: &Share| json!({ "name": name, "files": files, "bytes": bytes });
    let shares = |shares: &[Share]| -> Value { shares.iter().map(share).collect() };
    let mut value = json!({
        "used_bytes": usage.used_bytes,
        "limit_bytes": Some(usage.limit_bytes).filter(|bytes| *bytes > 0),
        "kinds": shares(&usage.kinds),
        "ages": shares(&usage.ages),
        "sizes": shares(&usage.sizes),
    });
    if let Some(targets) = &usage.targets {
        let others = targets.others.clone().unwrap_or_default();
        let unknown = targets.unknown.clone().unwrap_or_default();
        value["targets"] = shares(&targets.largest);
        value["other_targets"] = json!({
            "targets": targets.others_count, "files": others.files, "bytes": others.bytes,
        });
        value["no_known_target"] = json!({ "files": unknown.files, "bytes": unknown.bytes });
    }
    line(&value)
}

pub(crate) fn sort(blobs: &mut [Blob], order: Order) {
    let size = |blob: &Blob| blob.digest.as_ref().map_or(0, |digest| digest.size_bytes);
    match order {
        Order::Age => blobs.sort_by_key(|blob| blob.idle_seconds),
        Order::Size => blobs.sort_by_key(|blob| std::cmp::Reverse(size(blob))),
    }
}

pub(crate) fn blobs(blobs: &[Blob], is_json: bool) -> String {
    let mut text = String::new();
    for blob in blobs {
        let function = blob.digest_function().as_str_name().to_lowercase();
        let digest = blob.digest.clone().unwrap_or_default();
        let name = format!("{function}:{}/{}", digest.hash, digest.size_bytes);
        if is_json {
            text += &line(&json!({
                "digest": name,
                "size_bytes": digest.size_bytes,
                "idle_seconds": blob.idle_seconds,
            }));
        } else {
            let size = size(digest.size_bytes.unsigned_abs());
            text += &format!("{size:>10} {:>8} {name}\n", age(blob.idle_seconds));
        }
    }
    text
}

/// A time in its largest unit.
fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

pub(crate) fn collected(progress: &CollectGarbageProgress) -> String {
    let CollectGarbageProgress { evicted_files, evicted_bytes, used_bytes, .. } = progress;
    let (freed, used) = (size(*evicted_bytes), size(*used_bytes));
    format!("evicted {evicted_files} files ({freed}); the store takes {used}")
}

pub(crate) fn collected_json(progress: &CollectGarbageProgress) -> String {
    line(&json!({
        "evicted_files": progress.evicted_files,
        "evicted_bytes": progress.evicted_bytes,
        "used_bytes": progress.used_bytes,
    }))
}

pub(crate) fn verified(progress: &VerifyProgress) -> String {
    let VerifyProgress { verified_blobs, verified_bytes, blobs, bytes, .. } = progress;
    let (done, all) = (size(*verified_bytes), size(*bytes));
    format!("verified {verified_blobs} of {blobs} blobs ({done} of {all})")
}

pub(crate) fn verified_json(progress: &VerifyProgress, damaged: &[String]) -> String {
    line(&json!({
        "verified_blobs": progress.verified_blobs,
        "verified_bytes": progress.verified_bytes,
        "damaged": damaged,
    }))
}

pub(crate) fn removed(digest: &Digest, removed: Removed, is_json: bool) -> String {
    let outcome = match removed {
        Removed::Gone => "removed",
        Removed::Absent => "absent",
        Removed::InUse => "in use",
    };
    let name = format!("{}:{digest}", digest.function());
    if is_json {
        return line(&json!({ "digest": name, "outcome": outcome }));
    }
    format!("{name}: {outcome}\n")
}

fn line(value: &Value) -> String {
    format!("{value}\n")
}

#[cfg(test)]
mod tests {
    use proto::build::bazel::remote::execution::v2::Digest as DigestMessage;

    use super::*;

    fn blob(hash: &str, size_bytes: i64, idle_seconds: u64) -> Blob {
        let digest = Some(DigestMessage { hash: hash.into(), size_bytes });
        Blob { digest, digest_function: 1, idle_seconds }
    }

    #[test]
    fn lists_are_sorted_and_readable() {
        let mut list = [blob("aa", 5, 90), blob("bb", 2048, 200_000), blob("cc", 7, 3)];
        sort(&mut list, Order::Age);
        let text = blobs(&list, false);
        let expected = "       7 B       3s sha256:cc/7\n       5 B       1m sha256:aa/5\n  \
                        2.00 KiB       2d sha256:bb/2048\n";
        assert_eq!(text, expected);
        sort(&mut list, Order::Size);
        let text = blobs(&list[..1], true);
        let expected =
            "{\"digest\":\"sha256:bb/2048\",\"idle_seconds\":200000,\"size_bytes\":2048}\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_store_without_a_limit_has_none_in_json() {
        let empty = Usage::default();
        let value: Value = serde_json::from_str(&usage_json(&empty)).expect("JSON");
        assert_eq!(value["limit_bytes"], Value::Null);
        assert!(usage(&empty, None).contains("no limit is in force"));
        assert_eq!(value.get("targets"), None);
    }

    #[test]
    fn targets_stand_alone_where_they_are_asked_for() {
        let share = |name: &str, files, bytes| Share { name: name.into(), files, bytes };
        let targets = Targets {
            largest: vec![share("//a:b", 2, 2048)],
            others: Some(share("", 7, 100)),
            others_count: 3,
            unknown: Some(share("", 1, 5)),
        };
        let found = Usage { targets: Some(targets), ..Usage::default() };
        let expected = "0 B charged to the limit, no limit is in force\n\nblobs by target\n    \
                        2.00 KiB          2 files  //a:b\n       100 B          7 files  \
                        (3 other targets)\n         5 B          1 files  (no known target)\n";
        assert_eq!(usage(&found, Some(Grouping::Target)), expected);
        let value: Value = serde_json::from_str(&usage_json(&found)).expect("JSON");
        assert_eq!(value["targets"][0], json!({ "name": "//a:b", "files": 2, "bytes": 2048 }));
        assert_eq!(value["other_targets"], json!({ "targets": 3, "files": 7, "bytes": 100 }));
        assert_eq!(value["no_known_target"], json!({ "files": 1, "bytes": 5 }));
    }
}
