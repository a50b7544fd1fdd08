//! Looking up results. A hit is complete, or it is no hit: every blob that the
//! result names, inside its trees too, was found present.

use model::Digest;
use model::proto;
use model::result::{referenced_digests, tree_digests};
use prost::Message;
use store::Store;

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
    let Ok(result) = proto::ActionResult::decode(bytes) else {
        tracing::warn!(%action, "the cached result is no ActionResult and is ignored");
        return Ok(None);
    };
    let complete = result.exit_code == 0 && is_complete(store, action, &result)?;
    Ok(complete.then_some(result))
}

fn is_complete(
    store: &Store,
    action: &Digest,
    result: &proto::ActionResult,
) -> Result<bool, CacheError> {
    let function = action.function();
    let Ok(references) = referenced_digests(result, function) else {
        return Ok(false);
    };
    let cas = store.cas();
    let mut named = references.blobs.iter().chain(&references.root_directories);
    if !named.all(|digest| cas.contains(digest)) {
        return Ok(false);
    }
    for tree in &references.trees {
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
