//! Malformed input trees.

use prost::Message as _;
use testkit::Digest;
use testkit::proto::{self, Directory, DirectoryNode, FileNode, SymlinkNode};
use tonic::Code;

use crate::case::{Case, steps, tree};
use crate::judge::code_of;
use crate::world::{self, World};

/// The digest of nothing, which every server has.
fn empty() -> Digest {
    Digest::of(testkit::DigestFunction::Sha256, b"")
}

fn files(names: &[&str]) -> Directory {
    let files = names.iter().map(|name| world::file(name, &empty(), false)).collect();
    Directory { files, ..Directory::default() }
}

fn directories(names: &[&str], digest: Digest) -> Directory {
    let node =
        |name: &&str| DirectoryNode { name: (*name).to_owned(), digest: Some(digest.to_proto()) };
    Directory { directories: names.iter().map(node).collect(), ..Directory::default() }
}

fn link(name: &str, target: &str) -> Directory {
    let node =
        SymlinkNode { name: name.to_owned(), target: target.to_owned(), ..SymlinkNode::default() };
    Directory { symlinks: vec![node], ..Directory::default() }
}

fn file_of(digest: Option<proto::Digest>) -> Directory {
    let file = FileNode { name: "f".to_owned(), digest, ..FileNode::default() };
    Directory { files: vec![file], ..Directory::default() }
}

fn digest(hash: &str, size_bytes: i64) -> Directory {
    file_of(Some(proto::Digest { hash: hash.to_owned(), size_bytes }))
}

pub(super) const CASES: &[Case] = &[
    tree("a-file-called-up", || files(&[".."])),
    tree("a-file-called-here", || files(&["."])),
    tree("a-file-without-name", || files(&[""])),
    tree("a-file-with-a-slash", || files(&["a/b"])),
    tree("a-file-that-leads-out", || files(&["../../../../etc/cron.d/pwned"])),
    tree("an-absolute-file", || files(&["/etc/cron.d/pwned"])),
    tree("a-file-with-a-nul", || files(&["a\0b"])),
    tree("a-file-with-a-long-name", || files(&[&"x".repeat(256)])),
    tree("unsorted-files", || files(&["b", "a"])),
    tree("two-files-of-one-name", || files(&["a", "a"])),
    tree("a-directory-called-up", || directories(&[".."], empty())),
    tree("a-directory-with-a-slash", || directories(&["a/b"], empty())),
    tree("a-directory-with-a-nul", || directories(&["\0"], empty())),
    tree("unsorted-directories", || directories(&["b", "a"], empty())),
    tree("two-directories-of-one-name", || directories(&["a", "a"], empty())),
    tree("a-file-and-a-directory-of-one-name", || Directory {
        files: files(&["a"]).files,
        ..directories(&["a"], empty())
    }),
    tree("a-symlink-and-a-file-of-one-name", || Directory {
        files: files(&["a"]).files,
        ..link("a", "b")
    }),
    tree("a-symlink-called-up", || link("..", "/")),
    tree("a-symlink-to-a-nul", || link("a", "b\0c")),
    tree("a-symlink-that-is-too-long", || link("a", &"x".repeat(4096))),
    tree("a-file-without-digest", || file_of(None)),
    tree("a-digest-that-is-a-path", || digest("../../../../../../etc/shadow", 1)),
    tree("a-digest-that-is-too-short", || digest("abcd", 1)),
    tree("a-digest-of-negative-size", || digest(&"a".repeat(64), -1)),
    steps("a-directory-that-is-a-file", |world| Box::pin(a_file_for_a_directory(world))),
    steps("a-file-larger-than-its-blob", |world| Box::pin(a_forged_size(world))),
    steps("a-missing-directory", |world| Box::pin(a_missing_directory(world))),
    steps("two-to-the-sixtieth-directories", |world| Box::pin(tower(world, 60, 2))),
    steps("nine-to-the-twentieth-directories", |world| Box::pin(tower(world, 20, 9))),
    steps("a-thousand-levels", |world| Box::pin(tower(world, 1000, 1))),
    steps("a-million-and-one-entries", |world| Box::pin(a_million_entries(world))),
];

async fn refused(world: &World, root: &Directory, codes: &[Code]) -> anyhow::Result<()> {
    let root = world.client.put(root.encode_to_vec()).await?;
    let run = world.run(&world.action(&["nothing"]).input_root(root)).await;
    let (code, message) = code_of(run)?;
    anyhow::ensure!(codes.contains(&code), "{codes:?} was expected, and {code:?} came: {message}");
    Ok(())
}

async fn a_file_for_a_directory(world: &World) -> anyhow::Result<()> {
    refused(world, &directories(&["d"], world.input), &[Code::InvalidArgument]).await
}

async fn a_forged_size(world: &World) -> anyhow::Result<()> {
    let forged = proto::Digest { size_bytes: 1 << 40, ..world.input.to_proto() };
    refused(world, &file_of(Some(forged)), &[Code::FailedPrecondition]).await
}

async fn a_missing_directory(world: &World) -> anyhow::Result<()> {
    let missing = Digest::of(testkit::DigestFunction::Sha256, b"nobody has uploaded this");
    refused(world, &directories(&["d"], missing), &[Code::FailedPrecondition]).await
}

/// Every directory has the one below it `width` times.
async fn tower(world: &World, levels: usize, width: usize) -> anyhow::Result<()> {
    let names: Vec<String> = (0..width).map(|number| format!("d{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut root = Directory::default();
    let mut blobs = Vec::new();
    for _ in 0..levels {
        let below = root.encode_to_vec();
        root = directories(&names, world.client.digest(&below));
        blobs.push(below);
    }
    world.client.put_all(blobs).await?;
    refused(world, &root, &[Code::InvalidArgument]).await
}

/// A thousand files a thousand times, and one more.
async fn a_million_entries(world: &World) -> anyhow::Result<()> {
    let names: Vec<String> = (0..1000).map(|number| format!("{number:04}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let thousand = world.client.put(files(&names).encode_to_vec()).await?;
    let root = Directory { files: files(&["one-more"]).files, ..directories(&names, thousand) };
    refused(world, &root, &[Code::InvalidArgument]).await
}
