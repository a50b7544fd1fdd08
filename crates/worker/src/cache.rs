//! Looks up cached results. A hit is complete or it is no hit: every blob that the result names,
//! inside its trees too, is in the store.

use bytes::Bytes;
use model::result::{MAX_TREE_BYTES, References, tree_digests};
use model::{Chain, Digest, DigestFunction, Directory, EncodedResult, InstanceName};
use store::{StoreError, StoreView};

use crate::error::CacheError;
use crate::reading::Reading;

/// The cached result of an action that succeeded, if it is complete.
pub(crate) fn lookup(
    view: &impl StoreView,
    reading: &Reading,
    instance: &InstanceName,
    action: &Digest,
) -> Result<Option<EncodedResult>, CacheError> {
    let read = |source| match source {
        StoreError::WouldWait => CacheError::WouldWait,
        source => CacheError::Read { action: *action, source: Box::new(source) },
    };
    let Some(value) = view.cached_result(instance.as_str(), action).map_err(read)? else {
        return Ok(None);
    };
    // A result goes when what it names goes.
    let miss = || {
        let removed = view.remove_incomplete(instance.as_str(), action, &value);
        removed.map(|()| None).map_err(read)
    };
    let Some((result, references)) = complete_but_for_trees(view, action, value.clone()) else {
        return miss();
    };
    for tree in &references.trees {
        let read = |source| match source {
            StoreError::WouldWait => CacheError::WouldWait,
            source => {
                CacheError::ReadTree { action: *action, tree: *tree, source: Box::new(source) }
            }
        };
        if !is_tree_complete(view, reading, action.function(), tree).map_err(read)? {
            return miss();
        }
    }
    Ok(Some(result))
}

/// The result of an action that succeeded and the digests that it names, if the blobs that it names
/// outside of trees are in the store.
fn complete_but_for_trees(
    view: &impl StoreView,
    action: &Digest,
    message: Bytes,
) -> Option<(EncodedResult, References)> {
    let (result, references) = EncodedResult::parse(message, action.function())
        .inspect_err(|error| {
            tracing::warn!(%action, error = %Chain(error), "the cached result is malformed");
        })
        .ok()?;
    let mut named = references.blobs.iter().chain(&references.root_directories);
    let complete = result.exit_code() == 0 && named.all(|digest| view.cas().contains(digest));
    complete.then_some((result, references))
}

/// Whether a Tree and all files in it are in the store.
fn is_tree_complete<V: StoreView>(
    view: &V,
    reading: &Reading,
    function: DigestFunction,
    tree: &Digest,
) -> Result<bool, StoreError> {
    let size_bytes = tree.size_bytes();
    if size_bytes > MAX_TREE_BYTES {
        return Ok(false);
    }
    // The message, the directory of it that is parsed, and the digests in it.
    let bytes_max = 2 * size_bytes + Directory::parse_bytes_max(size_bytes);
    let _permit = if V::MAY_WAIT { reading.permit(bytes_max) } else { None };
    let Some(bytes) = view.blob(tree)? else {
        return Ok(false);
    };
    let inside = tree_digests(&bytes, function);
    Ok(inside.is_ok_and(|inside| inside.files.iter().all(|digest| view.cas().contains(digest))))
}
