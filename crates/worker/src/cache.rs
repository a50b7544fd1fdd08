//! Looking up results. A hit is complete, or it is no hit: every blob that the
//! result names, inside its trees too, was found present.

use bytes::Bytes;
use model::Digest;
use model::proto;
use model::result::{References, referenced_digests, tree_digests};
use prost::Message;
use store::{Store, WouldWait};

use crate::error::CacheError;

/// The cached result of an action that succeeded, if it is complete.
pub(crate) fn lookup(
    store: &Store,
    instance: &str,
    action: &Digest,
) -> Result<Option<proto::ActionResult>, CacheError> {
    let read = |source| CacheError::Read { action: *action, source: Box::new(source) };
    let Some(bytes) = store.action_cache().get(instance, action).map_err(read)? else {
        return Ok(None);
    };
    let Some((result, references)) = complete_but_for_trees(store, action, bytes) else {
        return Ok(None);
    };
    let complete = are_complete(store, action, &references.trees)?;
    Ok(complete.then_some(result))
}

/// As [`lookup`], if that is known without waiting for a disk.
pub(crate) fn lookup_without_waiting(
    store: &Store,
    instance: &str,
    action: &Digest,
) -> Result<Option<proto::ActionResult>, WouldWait> {
    let Some(bytes) = store.action_cache().get_without_waiting(instance, action)? else {
        return Ok(None);
    };
    match complete_but_for_trees(store, action, bytes) {
        None => Ok(None),
        Some((result, references)) if references.trees.is_empty() => Ok(Some(result)),
        Some(_) => Err(WouldWait),
    }
}

/// The result of an action that succeeded, and all that it names, if what is not
/// in trees is there.
fn complete_but_for_trees(
    store: &Store,
    action: &Digest,
    bytes: Bytes,
) -> Option<(proto::ActionResult, References)> {
    let Ok(result) = proto::ActionResult::decode(bytes) else {
        tracing::warn!(%action, "the cached result is no ActionResult and is ignored");
        return None;
    };
    let references = referenced_digests(&result, action.function()).ok()?;
    let mut named = references.blobs.iter().chain(&references.root_directories);
    let complete = result.exit_code == 0 && named.all(|digest| store.cas().contains(digest));
    complete.then_some((result, references))
}

/// Whether trees are there, and all that is in them.
fn are_complete(store: &Store, action: &Digest, trees: &[Digest]) -> Result<bool, CacheError> {
    let (cas, function) = (store.cas(), action.function());
    for tree in trees {
        let read = |source| {
            let source = Box::new(source);
            CacheError::ReadTree { action: *action, tree: *tree, source }
        };
        let Some(bytes) = cas.read(tree).map_err(read)? else {
            return Ok(false);
        };
        let whole = tree_digests(&bytes, function)
            .is_ok_and(|inside| inside.files.iter().all(|digest| cas.contains(digest)));
        if !whole {
            return Ok(false);
        }
    }
    Ok(true)
}
