//! `GetTree`: whole trees, page by page.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::ensure;
use prost::Message as _;
use testkit::proto::content_addressable_storage_client::ContentAddressableStorageClient;
use testkit::{Digest, Tree, proto};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::check::{Check, Outcome, must, should};
use crate::expect::{only, refused, refused_somehow, same};
use crate::server::{Server, unique, unique_text};

pub(crate) const CHECKS: &[Check] = &[
    must!(
        every_directory_is_returned,
        "ContentAddressableStorage.GetTree",
        "The server will enumerate the `Directory` tree recursively and return every node descended from the root."
    ),
    must!(
        an_empty_directory_is_a_tree,
        "GetTreeResponse.directories",
        "The directories descended from the requested root."
    ),
    must!(
        a_directory_with_two_parents_is_returned,
        "ContentAddressableStorage.GetTree",
        "The server will enumerate the `Directory` tree recursively and return every node descended from the root."
    ),
    must!(
        a_deep_tree_is_returned,
        "ContentAddressableStorage.GetTree",
        "The server will enumerate the `Directory` tree recursively and return every node descended from the root."
    ),
    must!(
        directories_that_share_children_do_not_explode,
        "ContentAddressableStorage.GetTree",
        "Fetch the entire directory tree rooted at a node."
    ),
    must!(
        a_missing_root_is_not_found,
        "ContentAddressableStorage.GetTree",
        "`NOT_FOUND`: The requested tree root is not present in the CAS."
    ),
    must!(
        a_missing_part_is_left_out,
        "ContentAddressableStorage.GetTree",
        "If part of the tree is missing from the CAS, the server will return the portion present and omit the rest."
    ),
    must!(
        a_page_keeps_to_its_size,
        "GetTreeRequest.page_size",
        "If present, the server will request no more than this many items."
    ),
    must!(
        the_last_page_has_no_token,
        "GetTreeResponse.next_page_token",
        "If empty, signifies that this is the last page of results."
    ),
    must!(
        the_last_page_of_small_ones_has_no_token,
        "GetTreeResponse.next_page_token",
        "If empty, signifies that this is the last page of results."
    ),
    must!(
        the_last_page_beside_a_missing_part_has_no_token,
        "GetTreeResponse.next_page_token",
        "If empty, signifies that this is the last page of results."
    ),
    must!(
        a_token_goes_on_where_its_page_ended,
        "ContentAddressableStorage.GetTree",
        "The GetTreeRequest.page_token parameter can be used to skip ahead in the stream"
    ),
    must!(
        a_token_of_nobody_is_refused,
        "GetTreeRequest.page_token",
        "A page token, which must be a value received in a previous"
    ),
    must!(
        pages_fit_default_clients,
        "GetTreeRequest.page_size",
        "Regardless of whether a page size is specified, the server may place its own limit on the number of items to be returned and require the client to retrieve more items using a subsequent request."
    ),
    must!(
        a_root_that_is_no_directory_is_refused,
        "GetTreeRequest.root_digest",
        "The digest of the root, which must be an encoded"
    ),
    should!(
        the_digest_function_is_inferred_for_trees,
        "GetTreeRequest.digest_function",
        "In that case the server SHOULD infer the digest function using the length of the root digest hash and the digest functions announced in the server's capabilities."
    ),
];

type Blobs = BTreeMap<Digest, Vec<u8>>;

fn request(server: &Server, root: &Digest) -> proto::GetTreeRequest {
    proto::GetTreeRequest {
        instance_name: server.client.instance().to_owned(),
        root_digest: Some(root.to_proto()),
        digest_function: server.client.function().to_proto(),
        ..Default::default()
    }
}

async fn pages_of(
    mut cas: ContentAddressableStorageClient<Channel>,
    request: proto::GetTreeRequest,
) -> Result<Vec<proto::GetTreeResponse>, Status> {
    let mut stream = cas.get_tree(request).await?.into_inner();
    let mut pages = Vec::new();
    while let Some(page) = stream.message().await? {
        pages.push(page);
    }
    Ok(pages)
}

async fn pages(
    server: &Server,
    request: proto::GetTreeRequest,
) -> Result<Vec<proto::GetTreeResponse>, Status> {
    pages_of(server.default_cas(), request).await
}

/// The digests of the directories of some pages.
fn digests(server: &Server, pages: &[proto::GetTreeResponse]) -> Vec<Digest> {
    let directories = pages.iter().flat_map(|page| &page.directories);
    directories.map(|directory| server.client.digest(directory.encode_to_vec())).collect()
}

/// The directories of a tree, without the files' blobs, which are not stored.
fn encode(server: &Server, tree: &Tree) -> (Digest, Blobs) {
    let mut blobs = Blobs::new();
    let root = tree.encode(server.client.function(), &mut blobs);
    let mut reachable = Blobs::new();
    let mut open = vec![root];
    while let Some(digest) = open.pop() {
        let Some(blob) = blobs.remove(&digest) else { continue };
        let directory = proto::Directory::decode(blob.as_slice()).unwrap_or_default();
        let children = directory.directories.iter().filter_map(|node| node.digest.as_ref());
        open.extend(
            children.filter_map(|it| Digest::from_proto(it, server.client.function()).ok()),
        );
        reachable.insert(digest, blob);
    }
    (root, reachable)
}

async fn store(server: &Server, tree: &Tree) -> anyhow::Result<(Digest, Blobs)> {
    let (root, blobs) = encode(server, tree);
    let all: Vec<_> = blobs.values().cloned().collect();
    for part in all.chunks(500) {
        server.client.put_all(part.to_vec()).await?;
    }
    Ok((root, blobs))
}

/// A tree of `directories` directories below the root, all different from any that a server has.
fn wide(directories: usize) -> Tree {
    let mut tree = Tree::new();
    for number in 0..directories {
        tree.file(&format!("{number:05}/file"), unique("content"));
    }
    tree
}

async fn returns(server: &Server, tree: &Tree) -> Outcome {
    let (root, blobs) = store(server, tree).await?;
    let found = digests(server, &pages(server, request(server, &root)).await?);
    let found: BTreeSet<_> = found.into_iter().collect();
    same("directories", found, blobs.into_keys().collect())
}

async fn every_directory_is_returned(server: Server) -> Outcome {
    let mut tree = wide(3);
    tree.file("a/b/c/d", unique("content"));
    tree.directory("a/empty");
    tree.symlink("a/b/link", "c/d");
    tree.executable("run", unique("content"));
    returns(&server, &tree).await
}

async fn an_empty_directory_is_a_tree(server: Server) -> Outcome {
    let (root, _) = store(&server, &Tree::new()).await?;
    let pages = pages(&server, request(&server, &root)).await?;
    let directories: Vec<_> = pages.into_iter().flat_map(|page| page.directories).collect();
    same("the directory", only(directories, "directory")?, proto::Directory::default())
}

async fn a_directory_with_two_parents_is_returned(server: Server) -> Outcome {
    let content = unique("content");
    let mut tree = Tree::new();
    for parent in ["one/shared/file", "two/shared/file", "three/other/file"] {
        tree.file(parent, content.clone());
    }
    returns(&server, &tree).await
}

async fn a_deep_tree_is_returned(server: Server) -> Outcome {
    let mut tree = Tree::new();
    tree.file(&format!("{}file", "d/".repeat(50)), unique("content"));
    returns(&server, &tree).await
}

/// Thirty levels whose two directories are the same one: a billion paths.
async fn directories_that_share_children_do_not_explode(server: Server) -> Outcome {
    let leaf = proto::Directory {
        files: vec![proto::FileNode {
            name: "file".to_owned(),
            digest: Some(server.client.digest(unique("content")).to_proto()),
            ..Default::default()
        }],
        ..Default::default()
    };
    let mut digest = server.client.put(leaf.encode_to_vec()).await?;
    for _ in 0..30 {
        let node = |name: &str| proto::DirectoryNode {
            name: name.to_owned(),
            digest: Some(digest.to_proto()),
        };
        let directories = vec![node("a"), node("b")];
        let directory = proto::Directory { directories, ..Default::default() };
        digest = server.client.put(directory.encode_to_vec()).await?;
    }
    let found = digests(&server, &pages(&server, request(&server, &digest)).await?);
    ensure!(found.len() < 1000, "{} directories are returned, of 31", found.len());
    same("different directories", found.into_iter().collect::<BTreeSet<_>>().len(), 31)
}

async fn a_missing_root_is_not_found(server: Server) -> Outcome {
    let root = server.client.digest(unique("absent"));
    refused(pages(&server, request(&server, &root)).await, &[Code::NotFound])?;
    Ok(())
}

/// Stores a tree of two directories but for the one at `missing`; gives the root and what is stored.
async fn partly_stored(
    server: &Server,
    missing: &str,
) -> anyhow::Result<(Digest, BTreeSet<Digest>)> {
    let mut tree = Tree::new();
    tree.file("a/file", unique_text("a"));
    tree.file("z/file", unique_text("z"));
    let (root, mut blobs) = encode(server, &tree);
    let directory = proto::Directory::decode(blobs[&root].as_slice())?;
    let node = directory.directories.iter().find(|node| node.name == missing);
    let digest = node.and_then(|node| node.digest.as_ref());
    let function = server.client.function();
    blobs.remove(&Digest::from_proto_field(digest, function)?);
    server.client.put_all(blobs.values().cloned()).await?;
    Ok((root, blobs.into_keys().collect()))
}

async fn a_missing_part_is_left_out(server: Server) -> Outcome {
    for missing in ["a", "z"] {
        let (root, stored) = partly_stored(&server, missing).await?;
        let found = digests(&server, &pages(&server, request(&server, &root)).await?);
        same("directories", found.into_iter().collect(), stored)?;
    }
    Ok(())
}

async fn a_page_keeps_to_its_size(server: Server) -> Outcome {
    let (root, blobs) = store(&server, &wide(10)).await?;
    let request = proto::GetTreeRequest { page_size: 3, ..request(&server, &root) };
    let pages = pages(&server, request).await?;
    for page in &pages {
        ensure!(page.directories.len() <= 3, "a page of {}", page.directories.len());
    }
    let found: BTreeSet<_> = digests(&server, &pages).into_iter().collect();
    // "Require the client to retrieve more": a server may end the stream after a page with a token.
    let last = pages.last().is_some_and(|page| page.next_page_token.is_empty());
    ensure!(!last || found.len() == blobs.len(), "{} of {} directories", found.len(), blobs.len());
    Ok(())
}

async fn last_token(server: &Server, root: &Digest, page_size: i32) -> Outcome {
    let mut token = String::new();
    // Some servers end their stream after each page.
    for _ in 0..100 {
        let request =
            proto::GetTreeRequest { page_size, page_token: token, ..request(server, root) };
        let mut pages = pages(server, request).await?;
        let Some(last) = pages.pop() else { anyhow::bail!("a token leads to no page") };
        for page in pages {
            ensure!(!page.next_page_token.is_empty(), "a page before the last has no token");
        }
        if last.next_page_token.is_empty() {
            return Ok(());
        }
        token = last.next_page_token;
        // The page that a token leads to may not be empty: then the one before was the last.
        ensure!(!last.directories.is_empty(), "an empty page has a token");
    }
    anyhow::bail!("there is always another page")
}

async fn the_last_page_has_no_token(server: Server) -> Outcome {
    let (root, _) = store(&server, &wide(10)).await?;
    last_token(&server, &root, 0).await
}

async fn the_last_page_of_small_ones_has_no_token(server: Server) -> Outcome {
    // Eleven directories, for whose last page a look ahead is needed in one case of two.
    let (root, _) = store(&server, &wide(10)).await?;
    last_token(&server, &root, 11).await?;
    last_token(&server, &root, 2).await?;
    last_token(&server, &root, 1).await
}

async fn the_last_page_beside_a_missing_part_has_no_token(server: Server) -> Outcome {
    let (root, _) = partly_stored(&server, "z").await?;
    last_token(&server, &root, 1).await?;
    last_token(&server, &root, 2).await
}

async fn a_token_goes_on_where_its_page_ended(server: Server) -> Outcome {
    let (root, blobs) = store(&server, &wide(10)).await?;
    let first = proto::GetTreeRequest { page_size: 4, ..request(&server, &root) };
    let first = pages(&server, first).await?.remove(0);
    let mut found = digests(&server, std::slice::from_ref(&first));
    let mut token = first.next_page_token;
    while !token.is_empty() {
        let more =
            proto::GetTreeRequest { page_size: 4, page_token: token, ..request(&server, &root) };
        let pages = pages(&server, more).await?;
        found.extend(digests(&server, &pages));
        token = pages.last().map(|page| page.next_page_token.clone()).unwrap_or_default();
        ensure!(found.len() <= blobs.len(), "directories come twice");
    }
    same("directories", found.into_iter().collect::<BTreeSet<_>>(), blobs.into_keys().collect())
}

async fn a_token_of_nobody_is_refused(server: Server) -> Outcome {
    let (root, _) = store(&server, &wide(3)).await?;
    let page_token = "no token of any server".to_owned();
    let request = proto::GetTreeRequest { page_token, ..request(&server, &root) };
    refused_somehow(pages(&server, request).await)?;
    Ok(())
}

async fn pages_fit_default_clients(server: Server) -> Outcome {
    // Twelve MiB of directories with long names.
    let mut tree = Tree::new();
    for directory in 0..12 {
        for file in 0..3500 {
            tree.file(&format!("{directory}/{directory}-{file:05}-{}", "n".repeat(220)), "");
        }
    }
    tree.file("unique", unique("content"));
    let (root, blobs) = encode(&server, &tree);
    let mut blobs_left = blobs.len();
    for blob in blobs.into_values() {
        let digest = server.client.digest(&blob);
        let name = super::byte_stream::upload_name(&server, &digest);
        server.client.write(&name, &blob, 1 << 20).await?;
        blobs_left -= 1;
    }
    same("directories that are not stored", blobs_left, 0)?;
    let found = digests(&server, &pages(&server, request(&server, &root)).await?);
    same("directories", found.len(), 13)
}

async fn a_root_that_is_no_directory_is_refused(server: Server) -> Outcome {
    let root = server.client.put([&[0xff; 20][..], &unique("no directory")].concat()).await?;
    refused_somehow(pages(&server, request(&server, &root)).await)?;
    Ok(())
}

async fn the_digest_function_is_inferred_for_trees(server: Server) -> Outcome {
    server.infers()?;
    let (root, _) = store(&server, &wide(1)).await?;
    let request = proto::GetTreeRequest { digest_function: 0, ..request(&server, &root) };
    same("directories", digests(&server, &pages(&server, request).await?).len(), 2)
}
