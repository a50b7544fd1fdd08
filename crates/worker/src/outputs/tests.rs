//! Outputs of every kind, and what becomes of those that cannot be stored.

use std::sync::Arc;

use model::proto::Message as _;
use model::{CommandSpec, Digest};
use store::{Store, StoreOptions};

use super::*;
use crate::fakes::{FakeOutputs, Left};

const FUNCTION: DigestFunction = DigestFunction::Sha256;

/// A store for many collections, as making one takes longer than they do.
struct Stage {
    root: tempfile::TempDir,
    store: Arc<Store>,
}

impl Stage {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("state"), StoreOptions::default()).unwrap();
        Self { root, store }
    }

    /// Collects `left` as a command declares it.
    fn collect(
        &self,
        limits: OutputLimits,
        is_cancelled: bool,
        declare: &dyn Fn(&mut proto::Command),
        left: &[(&[u8], Left)],
    ) -> (proto::ActionResult, Result<Losses, ActionError>) {
        let staging = tempfile::tempdir_in(self.root.path()).unwrap();
        let collection = Collection {
            destination: &*self.store,
            function: FUNCTION,
            limits,
            view: &FakeOutputs::new(staging.path(), left),
            cancelled: &|| is_cancelled,
        };
        let mut result = proto::ActionResult::default();
        let collected = collection.collect(&command(&self.store, declare), &mut result);
        (result, collected)
    }

    /// A line for each output, and what is told of the rest.
    fn lines(
        &self,
        limits: OutputLimits,
        declare: &dyn Fn(&mut proto::Command),
        left: &[(&[u8], Left)],
    ) -> (Vec<String>, String, Option<ActionError>) {
        let (result, losses) = self.collect(limits, false, declare, left);
        let losses = losses.unwrap();
        (lines(&self.store, &result), losses.message(true), losses.first().cloned())
    }
}

fn command(store: &Store, declare: &dyn Fn(&mut proto::Command)) -> CommandSpec {
    let mut command = proto::Command { arguments: vec!["x".to_owned()], ..Default::default() };
    declare(&mut command);
    let command = command.encode_to_vec();
    let put = |bytes: &[u8]| store.cas().put(FUNCTION, bytes).unwrap();
    let action = proto::Action {
        command_digest: Some(put(&command).to_proto()),
        input_root_digest: Some(put(b"").to_proto()),
        ..Default::default()
    };
    let action = action.encode_to_vec();
    let action = model::ActionMessage::parse(put(&action), &action).unwrap();
    action.with_command(&command, &model::WorkerPlatform::default()).unwrap().command
}

fn lines(store: &Store, result: &proto::ActionResult) -> Vec<String> {
    let mut lines = Vec::new();
    for file in &result.output_files {
        lines.push(format!("{}={}", file.path, content(store, file.digest.as_ref())));
    }
    for directory in &result.output_directories {
        let tree = read(store, directory.tree_digest.as_ref());
        let tree = proto::Tree::decode(&tree[..]).unwrap();
        let root = tree.root.unwrap();
        let files = root
            .files
            .iter()
            .map(|file| format!("{}={}", file.name, content(store, file.digest.as_ref())));
        let directories = root.directories.iter().map(|child| format!("{}/", child.name));
        let symlinks = root.symlinks.iter().map(|link| format!("{}->{}", link.name, link.target));
        let names: Vec<_> = files.chain(directories).chain(symlinks).collect();
        lines.push(format!("{}/: {}", directory.path, names.join(" ")));
    }
    #[expect(deprecated, reason = "clients of API 2.0 read nothing else")]
    let symlinks =
        [&result.output_symlinks, &result.output_file_symlinks, &result.output_directory_symlinks];
    for link in symlinks.into_iter().flatten() {
        lines.push(format!("{}->{}", link.path, link.target));
    }
    lines.sort();
    lines
}

fn read(store: &Store, digest: Option<&proto::Digest>) -> bytes::Bytes {
    let digest = Digest::from_proto_field(digest, FUNCTION).unwrap();
    store.cas().read(&digest).unwrap().unwrap()
}

fn content(store: &Store, digest: Option<&proto::Digest>) -> String {
    String::from_utf8(read(store, digest).to_vec()).unwrap()
}

fn paths(paths: &'static [&'static str]) -> impl Fn(&mut proto::Command) {
    |command| command.output_paths = paths.iter().map(|&path| path.to_owned()).collect()
}

#[expect(deprecated, reason = "clients of API 2.0 send nothing else")]
fn old(
    files: &'static [&'static str],
    directories: &'static [&'static str],
) -> impl Fn(&mut proto::Command) {
    let strings = |list: &[&str]| list.iter().map(|&path| path.to_owned()).collect();
    move |command| {
        command.output_files = strings(files);
        command.output_directories = strings(directories);
    }
}

/// An action that leaves some of everything.
const LEFT: &[(&[u8], Left)] = &[
    (b"dir", Left::Directory),
    (b"dir/file", Left::File("inside")),
    (b"dir/link", Left::Symlink(b"file")),
    (b"dir/sub", Left::Directory),
    (b"dir/sub/pipe", Left::Special),
    (b"file", Left::File("content")),
    (b"to-dir", Left::Symlink(b"hop")),
    (b"hop", Left::Symlink(b"./dir/")),
    (b"to-file", Left::Symlink(b"dir/../file")),
    (b"up", Left::Symlink(b"../../etc")),
    (b"loop", Left::Symlink(b"loop")),
];

#[test]
fn outputs_are_told_as_they_were_declared() {
    let stage = Stage::new();
    let check = |declare: &dyn Fn(&mut proto::Command), expected: &[&str], lost: &str| {
        let (lines, message, _) = stage.lines(OutputLimits::default(), declare, LEFT);
        assert_eq!(lines, expected);
        assert_eq!(message, lost);
    };
    check(
        &paths(&["file", "gone", "up", "loop"]),
        &["file=content", "loop->loop", "up->../../etc"],
        "",
    );
    check(
        &paths(&["dir/file", "dir/sub"]),
        &["dir/file=inside", "dir/sub/: "],
        "not in the result: `dir/sub/pipe`",
    );
    check(
        &paths(&["dir"]),
        &["dir/: file=inside sub/ link->file"],
        "not in the result: `dir/sub/pipe`",
    );
    check(
        &paths(&["dir", "dir/file"]),
        &["dir/: file=inside sub/ link->file", "dir/file=inside"],
        "not in the result: `dir/sub/pipe`",
    );
    check(&paths(&["dir/sub/pipe"]), &[], "not in the result: `dir/sub/pipe`");
    check(
        &old(&["file", "to-file"], &["to-dir"]),
        &["file=content", "to-dir->hop", "to-file->dir/../file"],
        "",
    );
    // Symlinks whose targets cannot be seen are left to the client.
    check(&old(&["up", "loop"], &[]), &["loop->loop", "up->../../etc"], "");
}

#[test]
fn the_older_lists_want_their_kind_behind_symlinks_too() {
    let stage = Stage::new();
    let check = |declare: &dyn Fn(&mut proto::Command), path: &str| {
        let (lines, message, error) = stage.lines(OutputLimits::default(), declare, LEFT);
        assert_eq!(lines, [] as [String; 0], "{path}");
        assert_eq!(message, format!("not in the result: `{path}`"));
        assert!(matches!(error, Some(ActionError::WrongKind(_))), "{path}: {error:?}");
    };
    check(&old(&["dir"], &[]), "dir");
    check(&old(&["to-dir"], &[]), "to-dir");
    check(&old(&[], &["file"]), "file");
    check(&old(&[], &["to-file"]), "to-file");
}

#[test]
fn limits_take_what_is_over_them_and_no_more() {
    let stage = Stage::new();
    let check = |limits: OutputLimits, expected: &[&str], kind| {
        let declare = paths(&["a", "b", "c"]);
        let left: &[(&[u8], Left)] = &[
            (b"a", Left::File("a")),
            (b"b", Left::Directory),
            (b"b/1", Left::File("11")),
            (b"b/2", Left::Directory),
            (b"b/2/3", Left::File("333")),
            (b"c", Left::File("c")),
        ];
        let (lines, message, error) = stage.lines(limits, &declare, left);
        assert_eq!(lines, expected, "{limits:?}");
        assert_eq!(error.as_ref().map(ActionError::kind), kind, "{limits:?}: {message}");
    };
    let limits = OutputLimits::default();
    let whole = ["a=a", "b/: 1=11 2/", "c=c"];
    check(limits, &whole, None);
    check(OutputLimits { entries: 6, ..limits }, &whole, None);
    let exhausted = Some("resource_exhausted");
    check(OutputLimits { entries: 4, ..limits }, &["a=a", "b/: 1=11"], exhausted);
    check(OutputLimits { entries: 3, ..limits }, &["a=a", "c=c"], exhausted);
    check(OutputLimits { file_bytes: 1, ..limits }, &["a=a", "b/: 2/", "c=c"], exhausted);
    check(OutputLimits { total_bytes: 2, ..limits }, &["a=a", "b/: 2/", "c=c"], exhausted);
    check(OutputLimits { depth: 0, ..limits }, &["a=a", "b/: 1=11", "c=c"], Some("unsupported"));
}

#[test]
fn names_and_targets_are_text_or_lost() {
    let stage = Stage::new();
    let left: &[(&[u8], Left)] = &[
        (b"d", Left::Directory),
        (b"d/\xff", Left::File("x")),
        (b"d/link", Left::Symlink(b"\xfe")),
        (b"d/ok", Left::File("ok")),
    ];
    let (lines, message, error) = stage.lines(OutputLimits::default(), &paths(&["d"]), left);
    assert_eq!(lines, ["d/: ok=ok"]);
    assert!(matches!(error, Some(ActionError::Unsupported(_))), "{error:?}");
    assert!(
        message.starts_with("not in the result: `d/link`; the name of `d/\u{fffd}`"),
        "{message}"
    );
}

#[test]
fn inputs_are_told_without_a_look_at_their_content() {
    let stage = Stage::new();
    let digest = Digest::of(FUNCTION, b"nobody stored this");
    let left: &[(&[u8], Left)] = &[(b"in", Left::Input(digest))];
    let (result, _) = stage.collect(OutputLimits::default(), false, &paths(&["in"]), left);
    let file = &result.output_files[0];
    assert_eq!((file.digest.clone(), file.is_executable), (Some(digest.to_proto()), true));
}

#[test]
fn nobody_waits_for_outputs_of_a_cancelled_action() {
    let stage = Stage::new();
    let left: &[(&[u8], Left)] = &[(b"out", Left::File("x"))];
    let (result, collected) = stage.collect(OutputLimits::default(), true, &paths(&["out"]), left);
    assert_eq!(collected.err(), Some(ActionError::Cancelled));
    assert!(result.output_files.is_empty());
}

#[test]
fn node_properties_are_told_as_the_client_asked() {
    let stage = Stage::new();
    let digest = Digest::of(FUNCTION, b"nobody stored this");
    let left: &[(&[u8], Left)] = &[
        (b"d", Left::Directory),
        (b"d/link", Left::Symlink(b"x")),
        (b"file", Left::File("content")),
        (b"in", Left::Input(digest)),
    ];
    let check = |wanted: &[&str]| {
        let declare = |command: &mut proto::Command| {
            command.output_paths = ["d", "file", "in"].map(str::to_owned).to_vec();
            command.output_node_properties = wanted.iter().map(|name| (*name).to_owned()).collect();
        };
        let (result, _) = stage.collect(OutputLimits::default(), false, &declare, left);
        let tree = result.output_directories[0].tree_digest.as_ref().unwrap();
        let tree = Digest::from_proto_field(Some(tree), FUNCTION).unwrap();
        let tree = stage.store.cas().read(&tree).unwrap().unwrap();
        let root = proto::Tree::decode(tree).unwrap().root.unwrap();
        let files = result.output_files.iter().map(|file| file.node_properties.clone());
        let link = root.symlinks[0].node_properties.clone();
        let [made, input] = files.collect::<Vec<_>>().try_into().unwrap();
        [made, input, root.node_properties, link]
    };
    assert_eq!(check(&[]), [None, None, None, None]);

    let all = check(&["mtime", "unix_mode"]).map(Option::unwrap);
    let modes = all.clone().map(|properties| properties.unix_mode.unwrap() & 0o777);
    assert_eq!(modes, [0o644, 0o755, 0o750, 0o750]);
    let seconds = all.map(|properties| properties.mtime.unwrap().seconds);
    assert!(seconds[0] > 1_700_000_000, "the file was made now");
    // The fake's times: inputs have their own, other files the length of their path.
    assert_eq!(seconds[1..], [946_684_800, 1, 6]);

    let times = check(&["mtime"]).map(Option::unwrap);
    assert!(times.iter().all(|of| of.mtime.is_some() && of.unix_mode.is_none()), "{times:?}");
}
