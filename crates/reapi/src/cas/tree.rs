//! `GetTree`.
//!
//! Breadth first, each Directory once however many parents it has: a tree whose
//! directories share children would else unfold exponentially. The blobs go out
//! as they are stored. What is missing is left out, as the API says; a missing
//! root is an error.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use model::proto::GetTreeRequest;
use model::{Digest, Directory, Entry};
use store::Store;
use tokio_stream::Stream;
use tonic::{Response, Status};

use crate::wire::GetTreeResponse;
use crate::{blocking, request, status};

/// Data of one message: a quarter of what gRPC clients take by default, so that
/// one more Directory of usual size does not go over it.
const PAGE_BYTES: usize = 1 << 20;

/// Directories of one tree: more than any checked-out source tree has; it bounds
/// the memory for those that were seen.
const MAX_DIRECTORIES: usize = 1_000_000;

/// Why a tree is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TreeRefused {
    /// A blob is not a Directory.
    #[error("{digest} is not a Directory: {reason}")]
    Malformed {
        /// The blob.
        digest: Digest,
        /// What is wrong with it.
        reason: String,
    },
    /// The tree has too many directories.
    #[error("the tree has more than {MAX_DIRECTORIES} directories")]
    TooLarge,
    /// The token is none that this server gave out.
    #[error("`{0}` is not a page token of this server")]
    PageToken(String),
}

/// Answers with the tree, page by page.
pub(super) async fn get_tree(
    store: Arc<Store>,
    message: GetTreeRequest,
) -> Result<Response<impl Stream<Item = Result<GetTreeResponse, Status>> + Send>, Status> {
    request::instance_name(&message.instance_name).map_err(status::request)?;
    let function = request::function(message.digest_function).map_err(status::request)?;
    let root = request::digest("root_digest", message.root_digest.as_ref(), function);
    let root = root.map_err(status::request)?;
    if !store.cas().contains(&root) {
        return Err(status::blob_not_found(&root));
    }
    let skip = skipped(&message.page_token).map_err(status::tree_refused)?;
    let page_size = usize::try_from(message.page_size).ok().filter(|&size| size > 0);
    let walk = Walk::at(root, store, skip, page_size.unwrap_or(usize::MAX));
    Ok(Response::new(pages(walk)))
}

/// A page token is the number of directories that came before it: the order is
/// the same each time.
fn skipped(page_token: &str) -> Result<usize, TreeRefused> {
    if page_token.is_empty() {
        return Ok(0);
    }
    let refused = || TreeRefused::PageToken(page_token.chars().take(40).collect());
    page_token.parse().map_err(|_| refused())
}

fn pages(walk: Walk) -> impl Stream<Item = Result<GetTreeResponse, Status>> + Send {
    futures_util::stream::unfold(Some(walk), |walk| async move {
        let mut walk = walk?;
        let step = blocking::run(move || {
            let page = walk.next_page()?;
            Ok((page, walk))
        });
        match step.await {
            Ok((page, walk)) => page.map(|page| (Ok(page), Some(walk))),
            Err(status) => Some((Err(status), None)),
        }
    })
}

/// A walk over a tree, level by level.
struct Walk {
    store: Arc<Store>,
    waiting: VecDeque<Digest>,
    seen: HashSet<Digest>,
    /// Directories that were read, skipped ones included.
    read: usize,
    /// Directories at the start that the client has already.
    skip: usize,
    page_size: usize,
}

impl Walk {
    fn at(root: Digest, store: Arc<Store>, skip: usize, page_size: usize) -> Self {
        let waiting = VecDeque::from([root]);
        Self { store, waiting, seen: HashSet::from([root]), read: 0, skip, page_size }
    }

    /// The next page; `None` at the end.
    fn next_page(&mut self) -> Result<Option<GetTreeResponse>, Status> {
        let mut directories = Vec::new();
        let mut bytes = 0;
        while bytes < PAGE_BYTES && directories.len() < self.page_size {
            let Some(blob) = self.next_directory()? else {
                break;
            };
            if self.read > self.skip {
                bytes += blob.len();
                directories.push(blob);
            }
        }
        if directories.is_empty() {
            return Ok(None);
        }
        let over = self.waiting.is_empty();
        let next_page_token = if over { String::new() } else { self.read.to_string() };
        Ok(Some(GetTreeResponse { directories, next_page_token }))
    }

    /// The next Directory that is there.
    fn next_directory(&mut self) -> Result<Option<Bytes>, Status> {
        while let Some(digest) = self.waiting.pop_front() {
            if let Some(blob) = self.store.cas().read(&digest).map_err(status::cas)? {
                self.visit(digest, blob.clone()).map_err(status::tree_refused)?;
                self.read += 1;
                return Ok(Some(blob));
            }
        }
        Ok(None)
    }

    /// Puts the directory's children in line.
    fn visit(&mut self, digest: Digest, blob: Bytes) -> Result<(), TreeRefused> {
        let directory = Directory::parse(blob, digest.function())
            .map_err(|error| TreeRefused::Malformed { digest, reason: error.to_string() })?;
        for entry in directory.entries() {
            if let Entry::Directory { digest, .. } = entry
                && self.seen.insert(digest)
            {
                self.waiting.push_back(digest);
            }
        }
        if self.seen.len() > MAX_DIRECTORIES { Err(TreeRefused::TooLarge) } else { Ok(()) }
    }
}
