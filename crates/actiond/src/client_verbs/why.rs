//! `why`: the reason why an action was not answered from the cache.
//!
//! The server's record of the run says what the lookup found. Where it found nothing, the records before tell
//! whether the same action ever had a result, and the difference to the last run of the same target tells what
//! changed.

use anyhow::{Context as _, bail};
use chain::visible;
use history::compare::{Comparison, Difference, Part, compare};
use history::text::utc;
use model::Digest;
use proto::actiond::internal::v1::Record;
use proto::actiond::internal::v1::list_records_request::Of;
use serde_json::json;

use super::blobs::Reader;
use super::{live, show};
use crate::output::{Progress, print};
use crate::server::Server;
use crate::store_verbs::BlobName;

/// Records of a target that are looked at.
const RECORDS: u32 = 500;

/// Actions of one build of a target that are explained.
const EXPLAINED_MAX: usize = 10;

/// Former runs whose outputs are compared, to find the one that made the same thing.
const CANDIDATES_MAX: usize = 20;

/// The reason of a miss.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Reason {
    /// The client did not ask the cache.
    Skipped,
    /// The client asked that the result be not cached.
    Uncacheable,
    /// The cache could not be read.
    Unreadable,
    /// The cached result was computed with another root file system.
    OtherEnvironment,
    /// A blob that the cached result names was gone.
    Evicted,
    /// The result was cached once, and is not any more.
    ResultGone,
    /// The same action ran before, and failed.
    FailedBefore,
    /// Another action of the same target ran before.
    Changed(Comparison),
    /// Nothing is known of it.
    NeverSeen,
}

impl Reason {
    fn word(&self) -> &'static str {
        match self {
            Self::Skipped => "skipped",
            Self::Uncacheable => "uncacheable",
            Self::Unreadable => "unreadable",
            Self::OtherEnvironment => "other_environment",
            Self::Evicted | Self::ResultGone => "evicted",
            Self::FailedBefore => "failed_before",
            Self::Changed(comparison) => changed_word(&comparison.differences),
            Self::NeverSeen => "never_seen",
        }
    }

    fn sentence(&self) -> String {
        let fixed = match self {
            Self::Skipped => "the client asked to run it without a look into the cache",
            Self::Uncacheable => "the client asks that its result be not cached",
            Self::Unreadable => "the cache could not be read; the server's log says why",
            Self::OtherEnvironment => {
                "its cached result was computed with another root file system than the action has now"
            }
            Self::Evicted => {
                "its cached result named a blob that was evicted or deleted; `linux-actiond store du` shows \
                 whether the store is full, and --cas-size of serve makes it larger"
            }
            Self::ResultGone => {
                "its cached result was evicted, removed, or replaced by a failure; `linux-actiond store du` \
                 shows whether the store is full"
            }
            Self::FailedBefore => "it ran before and failed, and failures are not cached",
            Self::NeverSeen => {
                "it is new: the history has no run of it, nor of its target before it"
            }
            Self::Changed(comparison) => return changed_sentence(&comparison.differences),
        };
        fixed.to_owned()
    }
}

/// Whether a difference is in a file or variable that build tools fill with times and commit ids.
fn is_stamp(difference: &Difference) -> bool {
    let name = difference.name.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    match difference.part {
        Part::Input => {
            ["volatile-status.txt", "stable-status.txt", "build-info.txt", "build_info.txt"]
                .contains(&name.as_str())
                || name.starts_with("build-info-")
                || name.starts_with("build-changelist")
        }
        Part::Environment => {
            ["source_date_epoch", "build_timestamp", "build_embed_label"].contains(&name.as_str())
                || name.contains("stamp")
        }
        _ => false,
    }
}

fn changed_word(differences: &[Difference]) -> &'static str {
    let has = |part: Part| differences.iter().any(|it| it.part == part);
    let relevant: Vec<_> = differences.iter().filter(|it| it.part != Part::Unknown).collect();
    match () {
        () if !relevant.is_empty() && relevant.iter().all(|it| is_stamp(it)) => "stamp",
        () if has(Part::Input) => "input",
        () if has(Part::Argument) => "argument",
        () if has(Part::Environment) => "environment",
        () if relevant.is_empty() => "unknown",
        () => relevant[0].part.as_str(),
    }
}

fn changed_sentence(differences: &[Difference]) -> String {
    match (changed_word(differences), differences) {
        ("unknown", _) => {
            "another action of the target ran before, and blobs that say what differs are gone"
                .into()
        }
        ("stamp", _) => {
            "only what the build tool stamps differs from the last run: times or commit ids".into()
        }
        ("input", _) => {
            let inputs: Vec<_> = differences.iter().filter(|it| it.part == Part::Input).collect();
            let more = match inputs.len() {
                1 => String::new(),
                count => format!(" and {} more", count - 1),
            };
            let change = match (&inputs[0].old, &inputs[0].new) {
                (None, _) => "new",
                (_, None) => "gone",
                _ => "changed",
            };
            format!("an input is {change} since the last run: {}{more}", inputs[0].name)
        }
        (word, _) => format!("the {} changed since the last run", word.replace('_', " ")),
    }
}

/// An explained run.
struct Explained<'a> {
    record: &'a Record,
    reason: Reason,
    /// The run that it was compared with.
    before: Option<&'a Record>,
}

pub(crate) fn why(server: &Server, what: &str, json: bool) -> anyhow::Result<()> {
    let digest = what.parse::<BlobName>().ok();
    let (of, function) = match &digest {
        Some(BlobName(digest)) => {
            (Of::ActionDigest(digest.to_proto()), digest.function().to_proto())
        }
        None => (Of::Target(what.to_owned()), 0),
    };
    let mut records = live::records(server, Some(of), function, RECORDS)?;
    let Some(newest) = records.iter().find(|record| !record.is_lookup).cloned() else {
        bail!(
            "the history has no execution of {}; `linux-actiond logs` shows what it has, with the names of \
             targets as the client sends them",
            visible(what)
        );
    };
    let target = newest.origin.clone().unwrap_or_default().target;
    if digest.is_some() && !target.is_empty() {
        // The earlier runs of the same target.
        records = live::records(server, Some(Of::Target(target)), 0, RECORDS)?;
    }
    let to_explain: Vec<Record> = match &digest {
        Some(_) => vec![newest],
        None => runs_of_last_build(&records, &newest),
    };
    let mut reader = Reader::new(server);
    let mut progress = Progress::start();
    for record in &to_explain {
        if record.cached {
            print(&hit(record, json))?;
            continue;
        }
        progress.show("comparing with earlier runs");
        let of = Of::ActionDigest(record.action_digest.clone().unwrap_or_default());
        let same = live::records(server, Some(of), record.digest_function, RECORDS)?;
        let explained = explain(&mut reader, record, &same, &records)?;
        progress.show("");
        print(&if json { to_json(&explained) } else { to_text(&explained) })?;
    }
    progress.end();
    Ok(())
}

/// The executions of the target in the build of `newest` that were not in the cache; `newest` if all were.
fn runs_of_last_build(records: &[Record], newest: &Record) -> Vec<Record> {
    let build = |record: &Record| record.origin.clone().unwrap_or_default().invocation;
    let of_build =
        records.iter().filter(|record| !record.is_lookup && build(record) == build(newest));
    let missed: Vec<_> = of_build.filter(|record| !record.cached).cloned().collect();
    match missed.len() {
        0 => vec![newest.clone()],
        _ => missed.into_iter().take(EXPLAINED_MAX).collect(),
    }
}

fn explain<'a>(
    reader: &mut Reader<'_>,
    record: &'a Record,
    same: &[Record],
    of_target: &'a [Record],
) -> anyhow::Result<Explained<'a>> {
    let reason = match record.miss.as_str() {
        "skipped" => Reason::Skipped,
        "uncacheable" => Reason::Uncacheable,
        "incomplete" => Reason::Evicted,
        "other_environment" => Reason::OtherEnvironment,
        "failed" => Reason::Unreadable,
        _ => {
            let before = || same.iter().filter(|it| !it.is_lookup && it.id < record.id);
            if before().any(|it| ["success", "cached"].contains(&it.outcome.as_str())) {
                Reason::ResultGone
            } else if before().next().is_some() {
                Reason::FailedBefore
            } else {
                return changed(reader, record, of_target);
            }
        }
    };
    Ok(Explained { record, reason, before: None })
}

/// Compares with the last run of the target that made the same outputs.
fn changed<'a>(
    reader: &mut Reader<'_>,
    record: &'a Record,
    of_target: &'a [Record],
) -> anyhow::Result<Explained<'a>> {
    let never = Explained { record, reason: Reason::NeverSeen, before: None };
    let kind = |record: &Record| {
        let origin = record.origin.clone().unwrap_or_default();
        (origin.mnemonic, origin.configuration)
    };
    let mut candidates: Vec<&Record> = of_target
        .iter()
        .filter(|it| !it.is_lookup && it.id < record.id)
        .filter(|it| it.action_digest != record.action_digest)
        .filter(|it| kind(it).0 == kind(record).0)
        .collect();
    // Those of the same configuration first; the order is else that of time.
    candidates.sort_by_key(|it| kind(it).1 != kind(record).1);
    let Some(new) = digest(record) else { return Ok(never) };
    let outputs = reader.action(&new).map(|action| action.outputs()).ok();
    let makes_the_same = |reader: &mut Reader<'_>, it: &Record| {
        let action = digest(it).and_then(|digest| reader.action(&digest).ok());
        action.map(|action| action.outputs()) == outputs
    };
    let looked_at = candidates.iter().take(CANDIDATES_MAX);
    let found = match outputs {
        Some(_) => looked_at.copied().find(|it| makes_the_same(reader, it)),
        None => None,
    };
    // One of the same build made something else, and is no former run of this one.
    let build = |it: &Record| it.origin.clone().unwrap_or_default().invocation;
    let of_another_build =
        candidates.iter().copied().find(|it| build(it) != build(record) || build(it).is_empty());
    let Some(before) = found.or(of_another_build) else { return Ok(never) };
    let old = digest(before).context("the server sent no digest")?;
    let comparison = compare(reader, &old, &new)?;
    Ok(Explained { record, reason: Reason::Changed(comparison), before: Some(before) })
}

fn digest(record: &Record) -> Option<Digest> {
    show::digest_of(&record.action_digest, record.digest_function)
}

fn hit(record: &Record, json: bool) -> String {
    if json {
        return show::line(&json!({ "record": show::record_json(record), "reason": "hit" }));
    }
    format!("{}  the last run was answered from the cache\n", show::record_line(record))
}

fn to_json(explained: &Explained<'_>) -> String {
    let (differences, is_cut) = match &explained.reason {
        Reason::Changed(comparison) => (show::differences_json(comparison), comparison.is_cut),
        _ => (json!([]), false),
    };
    show::line(&json!({
        "record": show::record_json(explained.record),
        "reason": explained.reason.word(),
        "sentence": explained.reason.sentence(),
        "compared_with": explained.before.map(show::record_json),
        "differences": differences,
        "is_cut": is_cut,
    }))
}

fn to_text(explained: &Explained<'_>) -> String {
    let mut text = show::record_line(explained.record);
    text += &format!("  {}\n", explained.reason.sentence());
    if let (Reason::Changed(comparison), Some(before)) = (&explained.reason, explained.before) {
        let action = show::name_of(&before.action_digest, before.digest_function);
        text += &format!("  compared with {action} of {}\n", utc(before.at_us));
        for line in show::differences(comparison).lines() {
            text += &format!("    {line}\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(part: Part, name: &str) -> Difference {
        let value = |text: &str| Some(text.to_owned());
        Difference { part, name: name.into(), old: value("1"), new: value("2") }
    }

    #[test]
    fn the_reason_is_the_part_that_people_look_for() {
        let check = |differences: &[Difference], word: &str, sentence: &str| {
            assert_eq!(changed_word(differences), word);
            assert!(changed_sentence(differences).contains(sentence), "{sentence}");
        };
        let input = difference(Part::Input, "src/lib.rs");
        let stamp = difference(Part::Input, "bazel-out/volatile-status.txt");
        check(
            std::slice::from_ref(&input),
            "input",
            "an input is changed since the last run: src/lib.rs",
        );
        check(&[input.clone(), stamp.clone()], "input", "src/lib.rs and 1 more");
        check(&[stamp], "stamp", "times or commit ids");
        check(&[difference(Part::Environment, "BUILD_TIMESTAMP")], "stamp", "stamps");
        check(&[difference(Part::Environment, "PATH")], "environment", "the environment changed");
        check(&[difference(Part::Argument, "1")], "argument", "the argument changed");
        check(&[difference(Part::Platform, "x")], "platform", "the platform changed");
        check(&[difference(Part::Unknown, "old Command")], "unknown", "are gone");
        let new = Difference { old: None, ..input.clone() };
        check(&[new], "input", "an input is new");
        let gone = Difference { new: None, ..input };
        check(&[gone], "input", "an input is gone");
    }
}
