//! What `ActionResult` tells of an action's outputs.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, ensure};
use prost::Message as _;
use testkit::{Action, Digest, Run, proto};
use tonic::Code;

use crate::check::{Check, Outcome, must, should, skip};
use crate::expect::{same, same_bytes};
use crate::server::{Server, unique};

pub(crate) const CHECKS: &[Check] = &[
    must!(
        an_output_file_is_returned,
        "ActionResult.output_files",
        "if the corresponding file existed after the action completed, a single entry will be present either in this field"
    ),
    must!(
        an_executable_file_is_told,
        "OutputFile.is_executable",
        "True if file is executable, false otherwise."
    ),
    must!(an_empty_file_is_returned, "OutputFile.digest", "The digest of the file's content."),
    must!(
        an_output_that_is_not_made_is_left_out,
        "ActionResult.output_files",
        "If the action does not produce the requested output, then that output will be omitted from the list."
    ),
    must!(
        what_is_not_declared_is_discarded,
        "Command.output_paths",
        "Other files or directories that may be created during command execution are discarded."
    ),
    must!(
        directories_above_an_output_are_there,
        "Command.output_paths",
        "Directories leading up to the output paths are created by the worker prior to execution, even if they are not explicitly part of the input root."
    ),
    must!(
        an_output_itself_is_not_there,
        "Command.output_directories",
        "(but not the output directories themselves) are created by the worker prior to execution"
    ),
    must!(
        outputs_are_relative_to_the_working_directory,
        "OutputFile.path",
        "The full path of the file relative to the working directory, including the filename."
    ),
    must!(
        an_input_can_be_an_output,
        "Command.output_paths",
        "Only the listed paths will be returned to the client as output."
    ),
    must!(
        outputs_of_failed_commands_are_returned,
        "ActionResult.output_files",
        "if the corresponding file existed after the action completed, a single entry will be present"
    ),
    must!(
        a_directory_is_a_tree,
        "ActionResult.output_directories",
        "message containing the directory tree, and the path equal exactly to the corresponding Action output_directories member."
    ),
    must!(
        an_empty_directory_is_returned,
        "ActionResult.output_directories",
        "if the corresponding directory existed after the action completed, a single entry will be present in the output list"
    ),
    must!(
        a_tree_has_all_kinds,
        "Tree.children",
        "All the child directories: the directories referred to by the root and, recursively, all its children."
    ),
    must!(
        directories_of_a_tree_are_canonical,
        "Directory",
        "The files, directories and symlinks in the directory must each be sorted in lexicographical order by path."
    ),
    should!(
        equal_directories_are_equal_trees,
        "Tree.children",
        "Servers SHOULD ensure that these are ordered consistently such that two actions producing equivalent output directories on the same server implementation also produce Tree messages with matching digests."
    ),
    must!(
        a_sorted_tree_is_sorted,
        "OutputDirectory.is_topologically_sorted",
        "All directories with the same binary representation are stored exactly once."
    ),
    must!(
        a_tree_alone_is_the_default,
        "Command.OutputDirectoryFormat",
        "The client is only interested in receiving output directories in the form of a single Tree object, using the `tree_digest` field."
    ),
    should!(
        directories_come_as_a_hierarchy,
        "Command.OutputDirectoryFormat",
        "The client is only interested in receiving output directories in the form of a hierarchy of separately stored Directory objects, using the `root_directory_digest` field."
    ),
    should!(
        directories_come_as_both,
        "OutputDirectory.root_directory_digest",
        "If both `tree_digest` and `root_directory_digest` are set, this field MUST match the digest of the root directory contained in the Tree message."
    ),
    must!(
        the_working_directory_is_an_output,
        "Command.output_directories",
        "The special value of empty string is allowed, although not recommended, and can be used to capture the entire working directory tree, including inputs."
    ),
    must!(
        a_symlink_is_returned,
        "ActionResult.output_symlinks",
        "if the corresponding path existed after the action completed and was a symbolic link."
    ),
    must!(
        a_dangling_symlink_is_returned,
        "ActionResult.output_symlinks",
        "if the corresponding path existed after the action completed and was a symbolic link."
    ),
    must!(
        an_absolute_symlink_is_returned_or_refused,
        "SymlinkAbsolutePathStrategy.Value",
        "If an action tries to create an output symlink with an absolute target, a `FAILED_PRECONDITION` will be returned."
    ),
    must!(
        older_clients_get_files,
        "Command.output_files",
        "A list of the output files that the client expects to retrieve from the action."
    ),
    must!(
        older_clients_get_directories,
        "Command.output_directories",
        "an entire directory structure will be returned as a"
    ),
    should!(
        older_clients_get_file_symlinks,
        "ActionResult.output_file_symlinks",
        "Servers that wish to be compatible with v2.0 API should still populate this field in addition to `output_symlinks`."
    ),
    should!(
        older_clients_get_directory_symlinks,
        "ActionResult.output_directory_symlinks",
        "Servers that wish to be compatible with v2.0 API should still populate this field in addition to `output_symlinks`."
    ),
    must!(
        output_paths_win,
        "Command.output_paths",
        "If `output_paths` is used, `output_files` and `output_directories` will be ignored!"
    ),
    must!(
        a_directory_in_place_of_a_file_is_told,
        "ActionResult.output_files",
        "If an output listed in `output_files` was found, but was a directory rather than a regular file, the server will return a FAILED_PRECONDITION."
    ),
    must!(
        a_file_in_place_of_a_directory_is_told,
        "ActionResult.output_directories",
        "was found in `output_directories`, but was not a directory, the server will return a FAILED_PRECONDITION."
    ),
    should!(
        the_rest_of_a_wrong_result_is_kept,
        "ExecuteResponse.status",
        "the server may populate the output-, stdout-, and stderr-related fields if it has any information available"
    ),
    must!(
        a_bad_output_path_is_refused,
        "Command.output_paths",
        "The path MUST NOT include a trailing slash, nor a leading slash, being a relative path."
    ),
    must!(
        an_unknown_node_property_is_refused,
        "Command.output_node_properties",
        "If a property is not recognized by the server, the server will return an `INVALID_ARGUMENT`."
    ),
    must!(
        the_modification_time_is_returned,
        "NodeProperties.mtime",
        "The file's last modification timestamp."
    ),
    must!(the_mode_is_returned, "NodeProperties.unix_mode", "The UNIX file mode, e.g., 0755."),
    must!(
        node_properties_come_only_where_asked_for,
        "OutputFile.node_properties",
        "The supported node properties of the OutputFile, if requested by the Action."
    ),
    must!(
        every_output_is_in_the_cas,
        "ContentAddressableStorage",
        "The CAS (content-addressable storage) is used to store the inputs to and outputs from the execution service."
    ),
    should!(
        an_output_below_an_input_symlink_is_returned,
        "Command.output_paths",
        "A list of the output paths that the client expects to retrieve from the action."
    ),
];

async fn succeeds(action: Action) -> anyhow::Result<Run> {
    let run = action.run().await?;
    run.succeeded().await?;
    Ok(run)
}

async fn an_output_file_is_returned(server: Server) -> Outcome {
    let run = succeeds(server.action("echo content > out")?.output("out")).await?;
    same("outputs", run.outputs()?, vec!["file out".to_owned()])?;
    same("content", run.file("out").await?, "content\n".to_owned())
}

async fn an_executable_file_is_told(server: Server) -> Outcome {
    let action = server.action("echo > run; chmod 755 run; echo > plain; chmod 644 plain")?;
    let run = succeeds(action.output("plain").output("run")).await?;
    same("run", run.output_file("run")?.is_executable, true)?;
    same("plain", run.output_file("plain")?.is_executable, false)
}

async fn an_empty_file_is_returned(server: Server) -> Outcome {
    let run = succeeds(server.action(": > out")?.output("out")).await?;
    let digest = server.client.digest(b"").to_proto();
    same("the digest", run.output_file("out")?.digest.clone(), Some(digest))
}

async fn an_output_that_is_not_made_is_left_out(server: Server) -> Outcome {
    let run = succeeds(server.action("echo > a")?.output("a").output("b")).await?;
    same("outputs", run.outputs()?, vec!["file a".to_owned()])
}

async fn what_is_not_declared_is_discarded(server: Server) -> Outcome {
    let run =
        succeeds(server.action("echo > a; echo > b; mkdir c; echo > c/d")?.output("a")).await?;
    same("outputs", run.outputs()?, vec!["file a".to_owned()])
}

async fn directories_above_an_output_are_there(server: Server) -> Outcome {
    let run = succeeds(server.action("echo > a/b/out")?.output("a/b/out")).await?;
    same("outputs", run.outputs()?, vec!["file a/b/out".to_owned()])
}

async fn an_output_itself_is_not_there(server: Server) -> Outcome {
    let action = server.action("test ! -e a/b/out && test -d a/b && mkdir a/b/out")?;
    succeeds(action.output_directory("a/b/out")).await?;
    Ok(())
}

async fn outputs_are_relative_to_the_working_directory(server: Server) -> Outcome {
    let action = server.action("echo content > sub/out")?.directory("work");
    let run = succeeds(action.working_directory("work").output("sub/out")).await?;
    same("outputs", run.outputs()?, vec!["file sub/out".to_owned()])
}

async fn an_input_can_be_an_output(server: Server) -> Outcome {
    let content = unique("in");
    let run = succeeds(server.action("exit 0")?.input("in", content.clone()).output("in")).await?;
    same_bytes("in", run.file("in").await?.as_bytes(), &content)
}

async fn outputs_of_failed_commands_are_returned(server: Server) -> Outcome {
    let run = server.action("echo > out; exit 7")?.output("out").run().await?;
    same("the status", run.code(), Code::Ok)?;
    same("the exit code", run.exit_code()?, 7)?;
    same("outputs", run.outputs()?, vec!["file out".to_owned()])
}

async fn a_directory_is_a_tree(server: Server) -> Outcome {
    let action = server.action("mkdir -p out/sub; echo a > out/a; echo b > out/sub/b")?;
    let run = succeeds(action.output("out")).await?;
    same("outputs", run.outputs()?, vec!["directory out".to_owned()])?;
    let paths = paths(&server, &run.tree("out").await?)?;
    same("paths", paths, ["a", "sub/", "sub/b"].map(str::to_owned).into())
}

async fn an_empty_directory_is_returned(server: Server) -> Outcome {
    let run = succeeds(server.action("mkdir out")?.output("out")).await?;
    let tree = run.tree("out").await?;
    same("the root", tree.root, Some(proto::Directory::default()))?;
    same("children", tree.children.len(), 0)
}

/// All paths of a tree, those of directories with a slash at their end, of symlinks with their target.
fn paths(server: &Server, tree: &proto::Tree) -> anyhow::Result<BTreeSet<String>> {
    let children: BTreeMap<Digest, &proto::Directory> =
        tree.children.iter().map(|it| (server.client.digest(it.encode_to_vec()), it)).collect();
    let mut paths = BTreeSet::new();
    let root = tree.root.as_ref().context("the tree has no root")?;
    let mut open = vec![(String::new(), root)];
    while let Some((at, directory)) = open.pop() {
        paths.extend(directory.files.iter().map(|it| format!("{at}{}", it.name)));
        let links = directory.symlinks.iter();
        paths.extend(links.map(|it| format!("{at}{} -> {}", it.name, it.target)));
        for node in &directory.directories {
            let digest = Digest::from_proto_field(node.digest.as_ref(), server.client.function())?;
            let child = children.get(&digest).with_context(|| format!("no child {digest}"))?;
            let path = format!("{at}{}/", node.name);
            paths.insert(path.clone());
            open.push((path, child));
        }
    }
    Ok(paths)
}

/// A directory with all kinds of entries, some of them equal.
const ALL_KINDS: &str = "mkdir -p out/empty out/b/c out/a/c; echo 1 > out/b/c/file; \
    echo 1 > out/a/c/file; echo > out/run; chmod 755 out/run; ln -s b/c out/link; \
    ln -s nowhere out/dangling; for i in z y x; do echo $i > out/$i; done";

async fn a_tree_has_all_kinds(server: Server) -> Outcome {
    let run = succeeds(server.action(ALL_KINDS)?.output("out")).await?;
    let expected = [
        "a/",
        "a/c/",
        "a/c/file",
        "b/",
        "b/c/",
        "b/c/file",
        "dangling -> nowhere",
        "empty/",
        "link -> b/c",
        "run",
        "x",
        "y",
        "z",
    ];
    let paths = paths(&server, &run.tree("out").await?)?;
    same("paths", paths, expected.map(str::to_owned).into())
}

async fn directories_of_a_tree_are_canonical(server: Server) -> Outcome {
    let run = succeeds(server.action(ALL_KINDS)?.output("out")).await?;
    let tree = run.tree("out").await?;
    for directory in tree.root.iter().chain(&tree.children) {
        let sorted = directory.files.is_sorted_by(|one, other| one.name < other.name)
            && directory.directories.is_sorted_by(|one, other| one.name < other.name)
            && directory.symlinks.is_sorted_by(|one, other| one.name < other.name);
        ensure!(sorted, "{directory:?}");
    }
    Ok(())
}

async fn equal_directories_are_equal_trees(server: Server) -> Outcome {
    let mut digests = BTreeSet::new();
    for _ in 0..2 {
        let run = succeeds(server.action(ALL_KINDS)?.output("out")).await?;
        let directory = run.result()?.output_directories.first().context("no directory")?;
        digests.insert(directory.tree_digest.clone().context("no tree_digest")?.hash);
    }
    same("different trees", digests.len(), 1)
}

async fn a_sorted_tree_is_sorted(server: Server) -> Outcome {
    let run = succeeds(server.action(ALL_KINDS)?.output("out")).await?;
    let directory = run.result()?.output_directories.first().context("no directory")?;
    if !directory.is_topologically_sorted {
        return skip("is_topologically_sorted is not set");
    }
    let tree = run.tree("out").await?;
    let encoded: Vec<_> =
        tree.root.iter().chain(&tree.children).map(|it| it.encode_to_vec()).collect();
    same("encodings", encoded.iter().collect::<BTreeSet<_>>().len(), encoded.len())?;
    let mut seen = BTreeSet::from([server.client.digest(&encoded[0])]);
    for (number, directory) in tree.root.iter().chain(&tree.children).enumerate() {
        let digest = server.client.digest(&encoded[number]);
        ensure!(seen.contains(&digest), "directory {number} comes before its parent");
        for node in &directory.directories {
            seen.insert(Digest::from_proto_field(node.digest.as_ref(), server.client.function())?);
        }
    }
    Ok(())
}

async fn with_format(
    server: &Server,
    format: proto::command::OutputDirectoryFormat,
) -> anyhow::Result<(Run, proto::OutputDirectory)> {
    let action = server.action(ALL_KINDS)?.output("out");
    let action = action.change_command(|command| command.output_directory_format = format.into());
    let run = succeeds(action).await?;
    let directory = run.result()?.output_directories.first().context("no directory")?.clone();
    Ok((run, directory))
}

async fn a_tree_alone_is_the_default(server: Server) -> Outcome {
    let (_, directory) =
        with_format(&server, proto::command::OutputDirectoryFormat::TreeOnly).await?;
    ensure!(directory.tree_digest.is_some(), "tree_digest is not set");
    Ok(())
}

/// Checks that the hierarchy below `root` is whole, and counts its directories.
async fn walk(server: &Server, root: &Digest) -> anyhow::Result<usize> {
    let mut seen = BTreeSet::from([*root]);
    let mut open = vec![*root];
    let function = server.client.function();
    while let Some(digest) = open.pop() {
        let directory = server.client.get(&digest).await?;
        let directory = proto::Directory::decode(directory.as_slice())?;
        for node in directory.directories {
            let digest = Digest::from_proto_field(node.digest.as_ref(), function)?;
            if seen.insert(digest) {
                open.push(digest);
            }
        }
        for file in directory.files {
            let digest = Digest::from_proto_field(file.digest.as_ref(), function)?;
            same("missing", server.client.missing(&[digest]).await?, vec![])?;
        }
    }
    Ok(seen.len())
}

async fn directories_come_as_a_hierarchy(server: Server) -> Outcome {
    let format = proto::command::OutputDirectoryFormat::DirectoryOnly;
    let (_, directory) = with_format(&server, format).await?;
    let root = directory.root_directory_digest.as_ref();
    let root = Digest::from_proto_field(root, server.client.function())?;
    // The root, empty, a and b, which are one, and c.
    same("directories", walk(&server, &root).await?, 4)
}

async fn directories_come_as_both(server: Server) -> Outcome {
    let format = proto::command::OutputDirectoryFormat::TreeAndDirectory;
    let (run, directory) = with_format(&server, format).await?;
    let root = directory.root_directory_digest.as_ref();
    let root = Digest::from_proto_field(root, server.client.function())?;
    walk(&server, &root).await?;
    let tree = run.tree("out").await?.root.unwrap_or_default();
    same("the root", root, server.client.digest(tree.encode_to_vec()))
}

async fn the_working_directory_is_an_output(server: Server) -> Outcome {
    let action = server.action("echo > new")?.input("in", unique("in")).output_directory("");
    let run = succeeds(action).await?;
    let paths = paths(&server, &run.tree("").await?)?;
    same("paths", paths, ["in", "new"].map(str::to_owned).into())
}

async fn a_symlink_is_returned(server: Server) -> Outcome {
    let action = server.action("echo > file; ln -s file out")?.output("file").output("out");
    let run = succeeds(action).await?;
    same("outputs", run.outputs()?, ["file file", "symlink out -> file"].map(str::to_owned).into())
}

async fn a_dangling_symlink_is_returned(server: Server) -> Outcome {
    let run = succeeds(server.action("ln -s no/where out")?.output("out")).await?;
    same("outputs", run.outputs()?, vec!["symlink out -> no/where".to_owned()])
}

async fn an_absolute_symlink_is_returned_or_refused(server: Server) -> Outcome {
    use proto::symlink_absolute_path_strategy::Value as Strategy;
    let run = server.action("ln -s /no/where out")?.output("out").run().await?;
    if server.cache()?.symlink_absolute_path_strategy == i32::from(Strategy::Disallowed) {
        return same("the status", run.code(), Code::FailedPrecondition);
    }
    same("outputs", run.outputs()?, vec!["symlink out -> /no/where".to_owned()])
}

async fn older_clients_get_files(server: Server) -> Outcome {
    let run =
        succeeds(server.action("echo > a/out")?.output_file("a/out").output_file("b")).await?;
    same("outputs", run.outputs()?, vec!["file a/out".to_owned()])
}

async fn older_clients_get_directories(server: Server) -> Outcome {
    let action = server.action("mkdir -p a/out; echo > a/out/file")?.output_directory("a/out");
    let run = succeeds(action).await?;
    same("outputs", run.outputs()?, vec!["directory a/out".to_owned()])
}

#[expect(deprecated, reason = "older clients read nothing else")]
async fn older_clients_get_file_symlinks(server: Server) -> Outcome {
    let action = server.action("echo > file; ln -s file out")?.output_file("out");
    let run = succeeds(action).await?;
    let links: Vec<_> =
        run.result()?.output_file_symlinks.iter().map(|it| (&*it.path, &*it.target)).collect();
    same("output_file_symlinks", links, vec![("out", "file")])
}

#[expect(deprecated, reason = "older clients read nothing else")]
async fn older_clients_get_directory_symlinks(server: Server) -> Outcome {
    let action = server.action("mkdir dir; ln -s dir out")?.output_directory("out");
    let run = succeeds(action).await?;
    let links: Vec<_> =
        run.result()?.output_directory_symlinks.iter().map(|it| (&*it.path, &*it.target)).collect();
    same("output_directory_symlinks", links, vec![("out", "dir")])
}

async fn output_paths_win(server: Server) -> Outcome {
    let action = server.action("echo > new; echo > old")?.output("new").output_file("old");
    same("outputs", succeeds(action).await?.outputs()?, vec!["file new".to_owned()])
}

async fn a_directory_in_place_of_a_file_is_told(server: Server) -> Outcome {
    let run = server.action("mkdir out")?.output_file("out").run().await?;
    same("the status", run.code(), Code::FailedPrecondition)
}

async fn a_file_in_place_of_a_directory_is_told(server: Server) -> Outcome {
    let run = server.action("echo > out")?.output_directory("out").run().await?;
    same("the status", run.code(), Code::FailedPrecondition)
}

async fn the_rest_of_a_wrong_result_is_kept(server: Server) -> Outcome {
    let action = server.action("mkdir wrong; echo > right; echo told")?;
    let run = action.output_file("right").output_file("wrong").run().await?;
    same("the status", run.code(), Code::FailedPrecondition)?;
    same("stdout", run.stdout().await?, "told\n".to_owned())?;
    same("outputs", run.outputs()?, vec!["file right".to_owned()])
}

async fn a_bad_output_path_is_refused(server: Server) -> Outcome {
    for path in ["/out", "out/"] {
        let run = server.action("exit 0")?.output(path).run().await;
        let code = match run {
            Ok(run) => run.code(),
            Err(error) => error.downcast::<tonic::Status>()?.code(),
        };
        same(path, code, Code::InvalidArgument)?;
    }
    Ok(())
}

/// An action that asks for these properties of its outputs.
fn with_properties(server: &Server, names: &[&str]) -> anyhow::Result<Action> {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let script = "echo > out; touch -d @1234567890 out; chmod 750 out; mkdir dir; cp -p out dir/in; \
        ln -s out link";
    let action = server.action(script)?.output("dir").output("link").output("out");
    Ok(action.change_command(|command| command.output_node_properties = names))
}

fn announces(server: &Server, name: &str) -> Outcome {
    let supported = &server.execution()?.supported_node_properties;
    if supported.iter().any(|it| it == name) {
        return Ok(());
    }
    skip(format!("supported_node_properties does not contain {name}"))
}

async fn an_unknown_node_property_is_refused(server: Server) -> Outcome {
    let run = with_properties(&server, &["actiond-conformance"])?.run().await;
    let code = match run {
        Ok(run) => run.code(),
        Err(error) => error.downcast::<tonic::Status>()?.code(),
    };
    same("the code", code, Code::InvalidArgument)
}

/// The properties of the output file, and of the file in the output directory.
async fn properties(server: &Server, names: &[&str]) -> anyhow::Result<[proto::NodeProperties; 2]> {
    let run = succeeds(with_properties(server, names)?).await?;
    let file = run.output_file("out")?.node_properties.clone();
    let root = run.tree("dir").await?.root.unwrap_or_default();
    let inner = root.files.first().and_then(|file| file.node_properties.clone());
    Ok([file.unwrap_or_default(), inner.unwrap_or_default()])
}

async fn the_modification_time_is_returned(server: Server) -> Outcome {
    announces(&server, "mtime")?;
    for properties in properties(&server, &["mtime"]).await? {
        let mtime = properties.mtime.context("mtime is not set")?;
        same("mtime", (mtime.seconds, mtime.nanos), (1_234_567_890, 0))?;
        ensure!(properties.unix_mode.is_none(), "unix_mode is set");
    }
    Ok(())
}

async fn the_mode_is_returned(server: Server) -> Outcome {
    announces(&server, "unix_mode")?;
    for properties in properties(&server, &["unix_mode"]).await? {
        let mode = properties.unix_mode.context("unix_mode is not set")?;
        same("the permissions", mode & 0o777, 0o750)?;
        ensure!(properties.mtime.is_none(), "mtime is set");
    }
    Ok(())
}

async fn node_properties_come_only_where_asked_for(server: Server) -> Outcome {
    for found in properties(&server, &[]).await? {
        same("node_properties", found, proto::NodeProperties::default())?;
    }
    Ok(())
}

async fn every_output_is_in_the_cas(server: Server) -> Outcome {
    let run = succeeds(server.action(ALL_KINDS)?.output("out")).await?;
    let tree = run.tree("out").await?;
    let mut digests = Vec::new();
    for file in tree.root.iter().chain(&tree.children).flat_map(|it| &it.files) {
        let digest = Digest::from_proto_field(file.digest.as_ref(), server.client.function())?;
        digests.push(digest);
    }
    ensure!(digests.len() >= 5, "{} files", digests.len());
    same("missing", server.client.missing(&digests).await?, vec![])
}

async fn an_output_below_an_input_symlink_is_returned(server: Server) -> Outcome {
    let action =
        server.action("echo content > link/out")?.directory("real").symlink("link", "real");
    let run = succeeds(action.output("link/out")).await?;
    same("outputs", run.outputs()?, vec!["file link/out".to_owned()])
}
