//! `show`, `cat`, `ls`, `tree` and `diff`.

use history::text::size;
use std::process::ExitCode;

use ::proto::actiond::internal::v1::list_records_request::Of;
use anyhow::{Context as _, bail};
use chain::{shell_word, visible};
use history::compare::{Blobs as _, compare};
use model::result::{TreeMessages, tree_messages};
use model::{Digest, Directory, TreeLimits, proto};
use proto::Message as _;
use serde_json::{Map, Value, json};

use super::blobs::{MEMORY_BYTES_MAX, ReadAction, Reader, decode, gone};
use super::{live, show, trees};
use crate::output::{Progress, print, print_bytes};
use crate::server::Server;

/// Runs of an action that `show` lists.
const RUNS_SHOWN: u32 = 10;

/// Bytes of a blob that is no message, of which `show` shows that much.
const TEXT_BYTES_SHOWN: usize = 64 << 10;

/// The most directories of a Tree that is listed: as many as an input tree may have.
const TREE_DIRECTORIES_MAX: usize = 1_000_000;

/// A blob, by what it can be read as.
enum Content {
    Action,
    Command(proto::Command),
    Directory(Directory),
    Tree(TreeMessages),
    Other,
}

/// Guesses what a blob is. A message has no name of its kind in it, so the strictest kind goes first: an
/// Action has two digests, all entries of a Directory have names in order and digests.
fn content(bytes: &bytes::Bytes, digest: &Digest) -> Content {
    let function = digest.function();
    let is_digest =
        |field: &Option<proto::Digest>| Digest::from_proto_field(field.as_ref(), function).is_ok();
    if let Ok(action) = decode::<proto::Action>(bytes)
        && is_digest(&action.command_digest)
        && is_digest(&action.input_root_digest)
    {
        return Content::Action;
    }
    if let Ok(directory) = Directory::parse(bytes.clone(), function) {
        return Content::Directory(directory);
    }
    if let Ok(command) = decode::<proto::Command>(bytes)
        && !command.arguments.is_empty()
        && command.encoded_len() == bytes.len()
    {
        return Content::Command(command);
    }
    if let Ok(tree) = tree_messages(bytes, function, TREE_DIRECTORIES_MAX)
        && let Some(root) = tree.directories.get(&tree.root)
        && Directory::parse(root.clone(), function).is_ok()
    {
        return Content::Tree(tree);
    }
    Content::Other
}

pub(crate) fn show(server: &Server, digest: &Digest, json: bool) -> anyhow::Result<()> {
    let mut reader = Reader::new(server);
    if digest.size_bytes() > MEMORY_BYTES_MAX {
        // It is no message.
        let bytes = reader.beginning(digest, TEXT_BYTES_SHOWN as u64)?;
        return show_blob(&bytes.with_context(|| gone(digest))?, digest, json);
    }
    let bytes = reader.blob(digest)?;
    match content(&bytes, digest) {
        Content::Action => {
            let action = reader.action(digest)?;
            show_action(server, digest, &action, json)
        }
        Content::Command(command) => {
            let fields = command_json(&command);
            print(&match json {
                true => show::line(&with_kind("command", digest, fields)),
                false => format!("Command {}\n{}", show::name(digest), command_text(&command)),
            })
        }
        Content::Directory(directory) => {
            if !json {
                print(&format!("Directory {}\n", show::name(digest)))?;
            }
            let line = |entry| {
                show::entry(&String::from_utf8_lossy(model::Entry::name(&entry)), &entry, json)
            };
            print(&directory.entries().map(line).collect::<String>())
        }
        Content::Tree(tree) => show_tree(&tree, digest, json),
        Content::Other => show_blob(&bytes, digest, json),
    }
}

/// Shows a blob that is no message. Of a large one there is only the beginning, which JSON leaves out.
fn show_blob(bytes: &[u8], digest: &Digest, json: bool) -> anyhow::Result<()> {
    let text = cut(bytes, if json { usize::MAX } else { TEXT_BYTES_SHOWN });
    if json {
        let text = text.filter(|text| text.len() as u64 == digest.size_bytes());
        let value = json!({ "kind": "blob", "digest": show::name(digest), "text": text });
        return print(&show::line(&value));
    }
    let what = if text.is_some() { "text" } else { "bytes" };
    let heading = format!("{} of {what}", size(digest.size_bytes()));
    let lines: String = text.unwrap_or_default().lines().map(|line| visible(line) + "\n").collect();
    print(&format!("{heading}; `cat` writes it as it is\n\n{lines}"))
}

/// The first bytes, to the end of a character; `None` if they are no text.
fn cut(bytes: &[u8], bytes_max: usize) -> Option<&str> {
    let bytes = &bytes[..bytes.len().min(bytes_max)];
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    }
}

fn with_kind(kind: &str, digest: &Digest, fields: Map<String, Value>) -> Value {
    let first =
        [("kind".to_owned(), kind.into()), ("digest".to_owned(), show::name(digest).into())];
    first.into_iter().chain(fields).collect::<Map<_, _>>().into()
}

fn command_json(command: &proto::Command) -> Map<String, Value> {
    let environment: Map<String, Value> = command
        .environment_variables
        .iter()
        .map(|it| (it.name.clone(), it.value.clone().into()))
        .collect();
    let fields = [
        ("arguments", Value::from(command.arguments.clone())),
        ("environment", environment.into()),
        ("working_directory", command.working_directory.clone().into()),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn command_text(command: &proto::Command) -> String {
    let mut text = format!("\n{}\n", command_line(&command.arguments));
    if !command.working_directory.is_empty() {
        text += &format!("\nworking directory\n  {}\n", visible(&command.working_directory));
    }
    if !command.environment_variables.is_empty() {
        text += "\nenvironment\n";
        for variable in &command.environment_variables {
            text += &format!("  {}={}\n", visible(&variable.name), shell_word(&variable.value));
        }
    }
    text
}

/// The command line, as it can be pasted into a shell.
pub(crate) fn command_line(arguments: &[String]) -> String {
    arguments.iter().map(|word| shell_word(word)).collect::<Vec<_>>().join(" ")
}

fn show_action(
    server: &Server,
    digest: &Digest,
    read: &ReadAction,
    json: bool,
) -> anyhow::Result<()> {
    let of = Some(Of::ActionDigest(digest.to_proto()));
    // A server without a history still has the action.
    let runs = live::records(server, of, digest.function().to_proto(), RUNS_SHOWN);
    let runs = runs.unwrap_or_default();
    let result = runs.iter().find_map(|run| show::result_of(run).transpose()).transpose()?;
    let outputs = result.as_ref().map(show::outputs);
    let (platform, declared) = (read.platform(), read.outputs());
    let timeout = read.action.timeout.as_ref().map(|timeout| timeout.seconds);
    let command = show::name_of(&read.action.command_digest, digest.function().to_proto());
    if json {
        let mut fields = command_json(&read.command);
        let platform: Map<String, Value> =
            platform.into_iter().map(|(name, value)| (name, value.into())).collect();
        let output = |(path, kind, digest): &(String, &str, String)| json!({ "path": path, "kind": kind, "digest": digest });
        for (name, value) in [
            ("command", command.into()),
            ("input_root", show::name(&read.input_root).into()),
            ("platform", platform.into()),
            ("output_paths", declared.into()),
            ("timeout_s", timeout.into()),
            ("do_not_cache", read.action.do_not_cache.into()),
            ("outputs", outputs.iter().flatten().map(output).collect()),
            ("runs", runs.iter().map(show::record_json).collect()),
        ] {
            fields.insert(name.to_owned(), value);
        }
        return print(&show::line(&with_kind("action", digest, fields)));
    }
    let mut text = format!("Action {}\n{}", show::name(digest), command_text(&read.command));
    text += &format!("\ninput root\n  {}\n", show::name(&read.input_root));
    if !platform.is_empty() {
        text += "\nplatform\n";
        for (name, value) in platform {
            text += &format!("  {}={}\n", visible(&name), visible(&value));
        }
    }
    text += "\ndeclared outputs\n";
    for path in declared {
        text += &format!("  {}\n", visible(&path));
    }
    if let Some(seconds) = timeout {
        text += &format!("\ntimeout\n  {seconds} s\n");
    }
    if read.action.do_not_cache {
        text += "\nits result is not cached: the client asks for that\n";
    }
    if let Some(outputs) = outputs {
        text += "\noutputs of its last run\n";
        for (path, kind, digest) in outputs {
            text += &format!("  {kind:7} {}  {}\n", visible(&path), visible(&digest));
        }
    }
    if !runs.is_empty() {
        text += "\nlast runs and lookups\n";
        for run in &runs {
            text += &format!("  {}", show::record_line(run));
        }
    }
    print(&text)
}

/// Lists the directories of a Tree, the root first, each once.
fn show_tree(tree: &TreeMessages, digest: &Digest, json: bool) -> anyhow::Result<()> {
    if !json {
        let count = tree.directories.len();
        print(&format!("Tree {} of {count} directories\n", show::name(digest)))?;
    }
    let mut digests: Vec<&Digest> = tree.directories.keys().collect();
    digests.sort_unstable_by_key(|it| (**it != tree.root, **it));
    for own in digests {
        let parsed = Directory::parse(tree.directories[own].clone(), digest.function());
        let parsed = parsed.context("a directory of the tree is malformed")?;
        for entry in parsed.entries() {
            let name = String::from_utf8_lossy(entry.name()).into_owned();
            if json {
                print(&show::entry(&name, &entry, true))?;
            } else {
                print(&format!("{} {}", &own.hex()[..8], show::entry(&name, &entry, false)))?;
            }
        }
    }
    Ok(())
}

pub(crate) fn cat(server: &Server, digest: &Digest) -> anyhow::Result<()> {
    if !Reader::new(server).stream(digest, print_bytes)? {
        bail!("{}", gone(digest));
    }
    Ok(())
}

/// Lists a directory, with all below it if `is_deep`.
pub(crate) fn list(
    server: &Server,
    digest: &Digest,
    is_deep: bool,
    json: bool,
) -> anyhow::Result<()> {
    let mut reader = Reader::new(server);
    let root = match content(&reader.blob(digest)?, digest) {
        Content::Action => reader.action(digest)?.input_root,
        Content::Directory(_) => *digest,
        Content::Tree(tree) => return show_tree(&tree, digest, json),
        Content::Command(_) | Content::Other => {
            bail!(
                "{} is neither a Directory nor an Action; `show` says what it is",
                show::name(digest)
            )
        }
    };
    if !is_deep {
        let directory = reader.directory(&root)?;
        let line = |entry: model::Entry<'_>| {
            show::entry(&String::from_utf8_lossy(entry.name()), &entry, json)
        };
        return print(&directory.entries().map(line).collect::<String>());
    }
    let tree = trees::of_directory(&mut reader, root, TreeLimits::default())?;
    trees::walk(&tree, |path, entry| print(&show::entry(path, entry, json)))
}

pub(crate) fn diff(
    server: &Server,
    old: &Digest,
    new: &Digest,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let mut reader = Reader::new(server);
    for digest in [old, new] {
        if reader.read(digest)?.is_none() {
            bail!("{}", gone(digest));
        }
    }
    let mut progress = Progress::start();
    progress.show("comparing the input trees");
    let comparison = compare(&mut reader, old, new)?;
    progress.end();
    print(&match json {
        true => show::line(&json!({
            "old": show::name(old),
            "new": show::name(new),
            "differences": show::differences_json(&comparison),
            "is_cut": comparison.is_cut,
        })),
        false if comparison.differences.is_empty() => "no difference\n".to_owned(),
        false => show::differences(&comparison),
    })?;
    Ok(if comparison.differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
