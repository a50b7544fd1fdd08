//! Looks up cached results. A hit is complete or it is no hit: every blob that the result names,
//! inside its trees too, is in the store.

use bytes::Bytes;
use model::proto;
use model::result::{References, referenced_digests, tree_digests};
use model::{Digest, DigestFunction, InstanceName};
use prost::Message;
use store::{StoreError, StoreView};

use crate::error::CacheError;

/// The cached result of an action that succeeded, if it is complete.
pub(crate) fn lookup(
    view: &impl StoreView,
    instance: &InstanceName,
    action: &Digest,
) -> Result<Option<proto::ActionResult>, CacheError> {
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
        if !is_tree_complete(view, action.function(), tree).map_err(read)? {
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
    bytes: Bytes,
) -> Option<(proto::ActionResult, References)> {
    let Ok(result) = proto::ActionResult::decode(bytes) else {
        tracing::warn!(%action, "the cached result is no ActionResult and is ignored");
        return None;
    };
    let references = referenced_digests(&result, action.function()).ok()?;
    let mut named = references.blobs.iter().chain(&references.root_directories);
    let complete = result.exit_code == 0 && named.all(|digest| view.cas().contains(digest));
    complete.then_some((result, references))
}

/// Whether a Tree and all files in it are in the store.
fn is_tree_complete(
    view: &impl StoreView,
    function: DigestFunction,
    tree: &Digest,
) -> Result<bool, StoreError> {
    let Some(bytes) = view.blob(tree)? else {
        return Ok(false);
    };
    let inside = tree_digests(&bytes, function);
    Ok(inside.is_ok_and(|inside| inside.files.iter().all(|digest| view.cas().contains(digest))))
}
