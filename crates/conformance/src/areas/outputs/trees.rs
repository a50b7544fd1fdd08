//! Output directories, as trees and as directories in the CAS.

use std::collections::BTreeSet;

use anyhow::{Context as _, ensure};
use prost::Message as _;
use testkit::{Digest, Run, proto};

use super::run::{paths, succeeds};
use crate::check::{Check, Outcome, must, should, skip};
use crate::expect::same;
use crate::server::{Server, unique};

pub(super) const CHECKS: &[Check] = &[
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
];

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

/// A directory with all kinds of entries, some of them equal.
pub(super) const ALL_KINDS: &str = "mkdir -p out/empty out/b/c out/a/c; echo 1 > out/b/c/file; \
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
