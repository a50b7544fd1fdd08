//! `GetTree`.
//!
//! Breadth first, each Directory once however many parents it has: a tree whose
//! directories share children would else unfold exponentially. The blobs go out
//! as they are stored. Missing directories are left out, as the API says; a missing
//! root is an error.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use model::proto::GetTreeRequest;
use model::{Digest, Directory, DirectoryError, Entry};
use proto::encoded::reapi::GetTreeResponse;
use store::Store;
use tokio_stream::Stream;
use tonic::{Code, Response, Status};

use crate::memory::{ConnectionQuota, Reservation};
use crate::offer::Offer;
use crate::{below, blocking, request, status};

/// Data of one message: a quarter of what gRPC clients take by default. A larger Directory has a
/// message of its own.
const PAGE_BYTES: usize = 1 << 20;

/// Directories of one tree: more than any checked-out source tree has; it bounds
/// the memory for those that were seen.
const MAX_DIRECTORIES: usize = 1_000_000;

/// Memory for a directory that was seen: its digest in the set, which may be half
/// empty, and in the queue.
const DIRECTORY_MEMORY_BYTES: u64 = 270;

/// An error of a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TreeRefused {
    /// A blob is not a Directory.
    #[error("{digest} is not a Directory")]
    Malformed {
        /// The blob.
        digest: Digest,
        /// The problem with it.
        source: DirectoryError,
    },
    /// The tree has too many directories.
    #[error("the tree has more than {MAX_DIRECTORIES} directories")]
    TooLarge,
    /// This server did not issue the token.
    #[error("`{0}` is not a page token of this server")]
    PageToken(String),
}

impl From<TreeRefused> for Status {
    fn from(error: TreeRefused) -> Self {
        let code = match error {
            TreeRefused::Malformed { .. } | TreeRefused::PageToken(_) => Code::InvalidArgument,
            TreeRefused::TooLarge => Code::ResourceExhausted,
        };
        status::of(code, &error)
    }
}

/// Answers with the tree, page by page.
pub(super) async fn get_tree(
    store: Arc<Store>,
    quota: Arc<ConnectionQuota>,
    offer: Offer,
    caller: Bytes,
    message: GetTreeRequest,
) -> Result<Response<impl Stream<Item = Result<GetTreeResponse, Status>> + Send>, Status> {
    request::instance_name(&offer, &message.instance_name)?;
    let digest = message.root_digest.as_ref();
    let function = request::function_of(&offer.functions, message.digest_function, digest)?;
    let root = request::digest("root_digest", digest, function)?;
    below::fetch_directories(&store, &quota.reservation(), root, &caller).await?;
    if !blocking::presence(&store, || store.cas().contains(&root)) {
        return Err(status::blob_not_found(&root));
    }
    let skip = skipped(&message.page_token)?;
    let page_size = usize::try_from(message.page_size).ok().filter(|&size| size > 0);
    let walk = Walk::at(root, store, quota, skip, page_size.unwrap_or(usize::MAX));
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
    quota: Arc<ConnectionQuota>,
    /// For what was seen: a client may stop reading in the middle of a large tree.
    memory: Reservation,
    /// For the blobs of the page that was made last.
    page: Reservation,
}

impl Walk {
    fn at(
        root: Digest,
        store: Arc<Store>,
        quota: Arc<ConnectionQuota>,
        skip: usize,
        page_size: usize,
    ) -> Self {
        let (waiting, seen) = (VecDeque::from([root]), HashSet::from([root]));
        let (memory, page) = (quota.reservation(), quota.reservation());
        Self { store, waiting, seen, read: 0, skip, page_size, quota, memory, page }
    }

    /// The next page; `None` at the end.
    fn next_page(&mut self) -> Result<Option<GetTreeResponse>, Status> {
        // The page before is encoded by now.
        self.page = self.quota.reservation();
        let mut directories = Vec::new();
        let mut bytes = 0;
        while directories.len() < self.page_size && self.next_fits(bytes) {
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
        let over = self.peek().is_none();
        let next_page_token = if over { String::new() } else { self.read.to_string() };
        Ok(Some(GetTreeResponse { directories, next_page_token }))
    }

    /// The next Directory that is there, without reading it. Those that are missing are left out, so
    /// that the last page is known to be the last.
    fn peek(&mut self) -> Option<&Digest> {
        let cas = self.store.cas();
        while self.waiting.front().is_some_and(|digest| !cas.contains(digest)) {
            self.waiting.pop_front();
        }
        self.waiting.front()
    }

    /// Whether the next Directory belongs to a page that has so many bytes.
    fn next_fits(&mut self, page_bytes: usize) -> bool {
        page_bytes == 0
            || self
                .peek()
                .is_none_or(|next| page_bytes as u64 + next.size_bytes() <= PAGE_BYTES as u64)
    }

    /// The next Directory that is there.
    fn next_directory(&mut self) -> Result<Option<Bytes>, Status> {
        while let Some(digest) = self.waiting.pop_front() {
            Directory::check_size(digest.size_bytes()).map_err(malformed(digest))?;
            self.page.grow_by(digest.size_bytes())?;
            if let Some(blob) = self.store.cas().read(&digest).map_err(status::store)? {
                self.visit(digest, blob.clone())?;
                self.read += 1;
                return Ok(Some(blob));
            }
        }
        Ok(None)
    }

    /// Puts the directory's children in line.
    fn visit(&mut self, digest: Digest, blob: Bytes) -> Result<(), Status> {
        let _parsed = self.quota.reserve(Directory::entries_bytes(&blob))?;
        let directory = Directory::parse(blob, digest.function()).map_err(malformed(digest))?;
        let seen = self.seen.len() + directory.directory_count();
        self.memory.grow_to(seen as u64 * DIRECTORY_MEMORY_BYTES)?;
        for entry in directory.entries() {
            if let Entry::Directory { digest, .. } = entry
                && self.seen.insert(digest)
            {
                self.waiting.push_back(digest);
            }
        }
        if self.seen.len() > MAX_DIRECTORIES { Err(TreeRefused::TooLarge.into()) } else { Ok(()) }
    }
}

fn malformed(digest: Digest) -> impl Fn(DirectoryError) -> TreeRefused {
    move |source| TreeRefused::Malformed { digest, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Budget, GUARANTEED_BYTES};
    use model::{DigestFunction, proto};
    use prost::Message as _;
    use store::StoreOptions;

    const FUNCTION: DigestFunction = DigestFunction::Sha256;

    /// The first page of the tree of one Directory with that many children, none of which is there,
    /// for a client that has memory for the Directory and for `affordable` ones that were seen.
    fn first_page(children: usize, affordable: u64) -> Result<usize, Code> {
        // In memory where that is: a store syncs, and no test here is about the disk.
        let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let store = Store::open(root.path(), StoreOptions::default()).unwrap();
        let node = |number: usize| proto::DirectoryNode {
            name: format!("{number:08}"),
            digest: Some(Digest::of(FUNCTION, &number.to_le_bytes()).to_proto()),
        };
        let directories = (0..children).map(node).collect();
        let message = proto::Directory { directories, ..Default::default() }.encode_to_vec();
        let digest = store.cas().put(FUNCTION, &message).unwrap();
        let blob_bytes = digest.size_bytes() + Directory::entries_bytes(&message);
        let quota = Budget::new(blob_bytes + affordable * DIRECTORY_MEMORY_BYTES).quota();
        let mut walk = Walk::at(digest, store, quota, 0, usize::MAX);
        let page = walk.next_page().map_err(|status| status.code())?;
        Ok(page.map_or(0, |page| page.directories.len()))
    }

    #[test]
    fn what_a_walk_remembers_is_borrowed() {
        // More than every client is guaranteed.
        let children = (GUARANTEED_BYTES / DIRECTORY_MEMORY_BYTES) as usize + 1;
        assert_eq!(first_page(children, children as u64 + 1), Ok(1));
        assert_eq!(first_page(children, children as u64), Err(Code::ResourceExhausted));
    }

    #[test]
    fn a_directory_is_borrowed_for_before_it_is_read() {
        let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let store = Store::open(root.path(), StoreOptions::default()).unwrap();
        let walk = |size_bytes| {
            // Were it looked for, it would be missing and left out.
            let absent = Digest::new(FUNCTION, [7; 32], size_bytes);
            let quota = Budget::new(0).quota();
            let mut walk = Walk::at(absent, Arc::clone(&store), quota, 0, usize::MAX);
            walk.next_page().map(|page| page.is_some()).map_err(|status| status.code())
        };
        assert_eq!(walk(1000), Ok(false));
        assert_eq!(walk(GUARANTEED_BYTES + 1), Err(Code::ResourceExhausted));
        assert_eq!(walk((64 << 20) + 1), Err(Code::InvalidArgument));
    }
}
