//! Lower layers by the trees that they show.
//!
//! Actions of one build often share input roots, such as a test and its retries. One lower layer
//! serves any number of overlays at once.

use std::collections::HashMap;
use std::sync::Arc;

use model::{Digest, InputTree};
use parking_lot::Mutex;

use super::workshop::Job;
use crate::access::Access;
use crate::error::PresentError;
use crate::mounts::LowerLayer;
use crate::staging::Retired;

/// A layer holds a superblock and a descriptor, of which a process may have 1024 open by
/// default.
const MAX_LAYERS: usize = 256;
/// Bounds the layers' memory, which is pinned for images on loop devices and for tmpfs.
const MAX_BYTES: u64 = 256 << 20;

/// The properties that determine a layer.
type Key = (Digest, Access);

/// The layers used last, up to a number and a size.
#[derive(Debug, Default)]
pub(crate) struct LayerCache {
    state: Mutex<Layers>,
}

#[derive(Debug, Default)]
struct Layers {
    layers: HashMap<Key, Layer>,
    bytes: u64,
    /// Counts look-ups: the layer with the lowest last one is the least recently used.
    clock: u64,
}

#[derive(Debug)]
struct Layer {
    layer: Arc<LowerLayer>,
    used: u64,
}

impl LayerCache {
    /// The layer for `job`, from the cache or made by `make`.
    pub(crate) fn get_or_make(
        &self,
        job: &Job<'_>,
        make: impl FnOnce(&InputTree, Access) -> Result<LowerLayer, PresentError>,
    ) -> Result<Arc<LowerLayer>, PresentError> {
        let key = (job.tree.root_digest(), job.access);
        if let Some(layer) = self.get(&key) {
            return Ok(layer);
        }
        let layer = Arc::new(make(job.tree, job.access)?);
        let images = self.insert(key, &layer);
        if !images.is_empty() {
            job.janitor.retire(Retired { images, ..Retired::default() });
        }
        Ok(layer)
    }

    fn get(&self, key: &Key) -> Option<Arc<LowerLayer>> {
        let mut state = self.state.lock();
        state.clock += 1;
        let used = state.clock;
        let slot = state.layers.get_mut(key)?;
        slot.used = used;
        Some(Arc::clone(&slot.layer))
    }

    /// Adds a layer, and returns those that had to go for it: closing them takes time that the
    /// caller can spend elsewhere. A layer too large for the cache comes straight back.
    fn insert(&self, key: Key, layer: &Arc<LowerLayer>) -> Vec<Arc<LowerLayer>> {
        let mut state = self.state.lock();
        state.clock += 1;
        let slot = Layer { layer: Arc::clone(layer), used: state.clock };
        state.bytes += layer.bytes;
        let replaced = state.layers.insert(key, slot);
        let mut evicted = Vec::from_iter(replaced.map(|slot| slot.layer));
        state.bytes -= evicted.iter().map(|layer| layer.bytes).sum::<u64>();
        while state.layers.len() > MAX_LAYERS || state.bytes > MAX_BYTES {
            let Some(oldest) = state.oldest() else { break };
            let Some(slot) = state.layers.remove(&oldest) else {
                break;
            };
            state.bytes -= slot.layer.bytes;
            evicted.push(slot.layer);
        }
        evicted
    }
}

impl Layers {
    /// A scan: it happens only when a layer was made, which takes a thousand times longer.
    fn oldest(&self) -> Option<Key> {
        self.layers.iter().min_by_key(|(_, slot)| slot.used).map(|(key, _)| *key)
    }
}

#[cfg(test)]
mod tests {
    use model::DigestFunction;

    use super::*;

    fn key(number: usize) -> Key {
        (Digest::of(DigestFunction::Sha256, &number.to_le_bytes()), Access::Strict)
    }

    fn image(bytes: u64) -> Arc<LowerLayer> {
        let file = std::fs::File::open("/dev/null").expect("/dev/null opens");
        Arc::new(LowerLayer { mount: file.into(), bytes, _attached: None, _directory: None })
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let cache = LayerCache::default();
        for number in 0..MAX_LAYERS {
            assert!(cache.insert(key(number), &image(1)).is_empty());
        }
        assert!(cache.get(&key(0)).is_some());
        assert_eq!(cache.insert(key(MAX_LAYERS), &image(1)).len(), 1);
        assert!(cache.get(&key(0)).is_some());
        assert!(cache.get(&key(1)).is_none());
    }

    #[test]
    fn strict_and_mutable_images_of_a_tree_are_two() {
        let cache = LayerCache::default();
        cache.insert(key(0), &image(1));
        assert!(cache.get(&(key(0).0, Access::Mutable)).is_none());
    }

    #[test]
    fn bytes_are_bounded() {
        let cache = LayerCache::default();
        cache.insert(key(0), &image(MAX_BYTES / 2));
        cache.insert(key(1), &image(MAX_BYTES / 2));
        assert_eq!(cache.insert(key(2), &image(1)).len(), 1);
        assert!(cache.get(&key(0)).is_none());
    }

    #[test]
    fn an_image_that_is_too_large_does_not_stay() {
        let cache = LayerCache::default();
        cache.insert(key(0), &image(MAX_BYTES + 1));
        assert!(cache.get(&key(0)).is_none());
        assert!(cache.insert(key(1), &image(MAX_BYTES)).is_empty());
    }

    #[test]
    fn a_tree_built_twice_at_once_is_counted_once() {
        let cache = LayerCache::default();
        cache.insert(key(0), &image(MAX_BYTES));
        assert_eq!(cache.insert(key(0), &image(MAX_BYTES)).len(), 1);
        assert!(cache.get(&key(0)).is_some());
    }
}
