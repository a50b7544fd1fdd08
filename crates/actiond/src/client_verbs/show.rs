//! The output that several verbs share. Pure.

use ::proto::actiond::internal::v1::list_actions_response::Action;
use ::proto::actiond::internal::v1::record::Value as Number;
use ::proto::actiond::internal::v1::{Record, RecordOrigin};
use anyhow::Context as _;
use chain::visible;
use history::compare::{Comparison, Difference};
use history::text::{duration, size, utc};
use model::{Digest, DigestFunction, Entry, proto};
use proto::ActionResult;
use serde_json::{Map, Value, json};

use super::blobs::decode;

/// A line of JSON.
pub(crate) fn line(value: &Value) -> String {
    format!("{value}\n")
}

/// `hash/size`, with the digest function before it unless the length of the hash tells that.
pub(crate) fn name(digest: &Digest) -> String {
    match digest.function().resource_name_segment() {
        None => digest.to_string(),
        Some(function) => format!("{function}:{digest}"),
    }
}

/// The same of a message.
pub(crate) fn name_of(digest: &Option<proto::Digest>, function: i32) -> String {
    let digest = digest_of(digest, function);
    digest.map(|digest| name(&digest)).unwrap_or_default()
}

/// A digest that the server sent.
pub(crate) fn digest_of(digest: &Option<proto::Digest>, function: i32) -> Option<Digest> {
    let function = DigestFunction::from_proto(function).ok().flatten()?;
    Digest::from_proto_field(digest.as_ref(), function).ok()
}

fn origin_json(origin: &Option<RecordOrigin>) -> Value {
    let origin = origin.clone().unwrap_or_default();
    let names = [
        ("principal", origin.principal),
        ("tool", origin.tool),
        ("invocation", origin.invocation),
        ("mnemonic", origin.mnemonic),
        ("target", origin.target),
        ("configuration", origin.configuration),
    ];
    let named = names.into_iter().filter(|(_, name)| !name.is_empty());
    named.map(|(key, name)| (key.to_owned(), name.into())).collect::<Map<_, _>>().into()
}

pub(crate) fn action_json(action: &Action) -> String {
    line(&action_value(action))
}

pub(crate) fn action_value(action: &Action) -> Value {
    json!({
        "operation": action.operation,
        "instance": action.instance,
        "action": name_of(&action.action_digest, action.digest_function),
        "origin": origin_json(&action.origin),
        "queued_for_us": action.queued_for_us,
        "running_for_us": action.running_for_us,
    })
}

/// Kind and target, as far as the client named them.
pub(crate) fn what(origin: &Option<RecordOrigin>) -> String {
    let Some(origin) = origin else { return "-".to_owned() };
    let words = [&origin.mnemonic, &origin.target].into_iter().filter(|word| !word.is_empty());
    let words = words.map(|word| visible(word)).collect::<Vec<_>>().join(" ");
    if words.is_empty() { "-".to_owned() } else { words }
}

pub(crate) fn action_line(action: &Action) -> String {
    let (state, us) = match action.running_for_us {
        Some(us) => ("running", us),
        None => ("queued", action.queued_for_us),
    };
    let (time, what) = (duration(us), what(&action.origin));
    format!("{:28} {state:7} {time:>10}  {what}\n", visible(&action.operation))
}

fn numbers(values: &[Number]) -> Value {
    let pairs = values.iter().map(|it| (it.name.clone(), it.value.into()));
    pairs.collect::<Map<_, _>>().into()
}

/// A number of a record, by its name.
pub(crate) fn number(values: &[Number], name: &str) -> Option<u64> {
    values.iter().find(|it| it.name == name).map(|it| it.value)
}

pub(crate) fn record_json(record: &Record) -> Value {
    let function = record.digest_function;
    let digest = |digest| Some(name_of(digest, function)).filter(|name| !name.is_empty());
    json!({
        "id": record.id,
        "kind": if record.is_lookup { "lookup" } else { "execution" },
        "at_us": record.at_us,
        "operation": record.operation,
        "instance": record.instance,
        "action": digest(&record.action_digest),
        "command": digest(&record.command_digest),
        "input_root": digest(&record.input_root_digest),
        "origin": origin_json(&record.origin),
        "worker": record.worker,
        "outcome": record.outcome,
        "cached": record.cached,
        "times": record.times,
        "miss": Some(&record.miss).filter(|miss| !miss.is_empty()),
        "exit_code": record.exit_code,
        "failure": Some(&record.failure).filter(|failure| !failure.is_empty()),
        "message": Some(&record.message).filter(|message| !message.is_empty()),
        "stages": numbers(&record.stages),
        "usage": numbers(&record.usage),
        "limits": numbers(&record.limits),
        "outputs": record.outputs,
        "output_bytes": record.output_bytes,
    })
}

/// The outcome in a word or two.
pub(crate) fn outcome(record: &Record) -> String {
    let outcome = match record.exit_code.filter(|code| *code != 0) {
        Some(code) => format!("exit {code}"),
        None => record.outcome.clone(),
    };
    if record.times > 1 { format!("{outcome} ×{}", record.times) } else { outcome }
}

pub(crate) fn record_line(record: &Record) -> String {
    let time = number(&record.stages, "total_us").map(duration).unwrap_or_default();
    let outcome = outcome(record);
    let why = match (record.miss.as_str(), record.message.as_str()) {
        ("", "") => String::new(),
        (miss, "") => format!("  ({miss})"),
        (_, message) => format!("  {}", visible(message)),
    };
    format!(
        "{at}  {outcome:9} {time:>10}  {what}{why}  {action}\n",
        at = utc(record.at_us),
        what = what(&record.origin),
        action = name_of(&record.action_digest, record.digest_function),
    )
}

/// One entry of a directory. In text, a directory ends in `/`.
pub(crate) fn entry(path: &str, entry: &Entry<'_>, is_json: bool) -> String {
    let (kind, digest, executable, target) = match *entry {
        Entry::File { digest, executable, .. } => ("file", Some(digest), executable, None),
        Entry::Directory { digest, .. } => ("directory", Some(digest), false, None),
        Entry::Symlink { target, .. } => {
            ("symlink", None, false, Some(String::from_utf8_lossy(target).into_owned()))
        }
    };
    if is_json {
        return line(&json!({
            "path": path,
            "kind": kind,
            "digest": digest.as_ref().map(name),
            "executable": executable,
            "target": target,
        }));
    }
    let mode = match (kind, executable) {
        ("directory", _) => "d",
        ("symlink", _) => "l",
        (_, true) => "x",
        _ => "-",
    };
    let bytes = digest.filter(|_| kind == "file").map(|digest| size(digest.size_bytes()));
    let suffix = match (kind, target) {
        ("directory", _) => "/".to_owned(),
        (_, Some(target)) => format!(" -> {}", visible(&target)),
        _ => String::new(),
    };
    let digest = digest.as_ref().map(name).unwrap_or_default();
    format!("{mode} {:>10}  {}{suffix}  {digest}\n", bytes.unwrap_or_default(), visible(path))
}

pub(crate) fn differences_json(comparison: &Comparison) -> Value {
    let difference = |it: &Difference| json!({ "part": it.part.as_str(), "name": it.name, "old": it.old, "new": it.new });
    comparison.differences.iter().map(difference).collect()
}

pub(crate) fn differences(comparison: &Comparison) -> String {
    let mut text = String::new();
    for Difference { part, name, old, new } in &comparison.differences {
        let part = part.as_str().replace('_', " ");
        let separator = if name.is_empty() { "" } else { " " };
        text += &format!("{part}{separator}{name}\n");
        for (mark, value) in [('-', old), ('+', new)] {
            if let Some(value) = value {
                text += &format!("  {mark} {value}\n");
            }
        }
    }
    if comparison.is_cut {
        text += "there may be more differences\n";
    }
    text
}

/// The outputs of a result: path, kind and digest.
pub(crate) fn outputs(result: &ActionResult) -> Vec<(String, &'static str, String)> {
    let digest = |digest: &Option<proto::Digest>| {
        digest.as_ref().map(|it| format!("{}/{}", it.hash, it.size_bytes)).unwrap_or_default()
    };
    let files = result.output_files.iter().map(|it| (it.path.clone(), "file", digest(&it.digest)));
    let directories = result.output_directories.iter();
    let directories = directories.map(|it| (it.path.clone(), "tree", digest(&it.tree_digest)));
    #[allow(deprecated, reason = "clients of older versions of the API ask for them")]
    let symlinks = result
        .output_symlinks
        .iter()
        .chain(&result.output_file_symlinks)
        .chain(&result.output_directory_symlinks);
    let symlinks = symlinks.map(|it| (it.path.clone(), "symlink", it.target.clone()));
    files.chain(directories).chain(symlinks).collect()
}

/// The recorded result, if the record has one.
pub(crate) fn result_of(record: &Record) -> anyhow::Result<Option<ActionResult>> {
    if record.result.is_empty() {
        return Ok(None);
    }
    decode(&record.result).map(Some).context("the result that the history has of the action")
}
