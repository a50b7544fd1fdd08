//! Lower layers by the trees that they show.
//!
//! Actions of one build often share input roots, such as a test and its retries. One lower layer
//! serves any number of overlays at once. A sandbox with a user of its own on the host sees a clone of the layer, in which the
//! owners are mapped. There are few such users, so the clones are kept too: to close one, the kernel interrupts each processor.

use std::collections::HashMap;
use std::sync::Arc;

use model::{Digest, InputTree};
use parking_lot::Mutex;

use super::workshop::Job;
use crate::access::Access;
use crate::error::PresentError;
use crate::mounts::{LowerLayer, Mounter};
use crate::staging::Retired;

/// A layer holds a superblock and a descriptor, of which a process may have 1024 open by
/// default.
const MAX_LAYERS: usize = 256;
/// The clones of all layers. Each is a descriptor.
const MAX_CLONES: usize = 256;
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
    /// The number of clones in `layers`.
    clones: usize,
    bytes: u64,
    /// Counts look-ups: the layer with the lowest last one is the least recently used.
    clock: u64,
}

#[derive(Debug)]
struct Layer {
    layer: Arc<LowerLayer>,
    used: u64,
    /// The layer as users of the host see it, by their ids.
    clones: Vec<UserClone>,
}

#[derive(Debug)]
struct UserClone {
    user: u32,
    layer: Arc<LowerLayer>,
    used: u64,
}

/// A layer that is in the cache.
struct Found {
    layer: Arc<LowerLayer>,
    /// The layer as the user sees it who was asked for.
    clone: Option<Arc<LowerLayer>>,
}

impl LayerCache {
    /// The layer for `job`, as its user sees it, from the cache or made by `make` for `mounter`.
    pub(crate) fn get_or_make(
        &self,
        job: &Job<'_>,
        mounter: &Mounter,
        make: impl FnOnce(&InputTree, Access) -> Result<LowerLayer, PresentError>,
    ) -> Result<Arc<LowerLayer>, PresentError> {
        let key = (job.tree.root_digest(), job.access);
        let layer = match self.get(&key, job.user.map(|user| user.id)) {
            Some(Found { clone: Some(clone), .. }) => return Ok(clone),
            Some(Found { layer, clone: None }) => layer,
            None => {
                let layer = Arc::new(make(job.tree, job.access)?);
                retire(job, self.insert(key, &layer));
                layer
            }
        };
        let Some(user) = job.user else { return Ok(layer) };
        let clone = Arc::new(mounter.layer_for(user, layer)?);
        retire(job, self.insert_clone(&key, user.id, &clone));
        Ok(clone)
    }

    fn get(&self, key: &Key, user: Option<u32>) -> Option<Found> {
        let mut state = self.state.lock();
        state.clock += 1;
        let used = state.clock;
        let slot = state.layers.get_mut(key)?;
        slot.used = used;
        let clone = slot.clones.iter_mut().find(|clone| Some(clone.user) == user);
        let clone = clone.map(|clone| {
            clone.used = used;
            Arc::clone(&clone.layer)
        });
        Some(Found { layer: Arc::clone(&slot.layer), clone })
    }

    /// Adds a layer, and returns those that had to go for it, with their clones: closing them takes time that the
    /// caller can spend elsewhere. A layer too large for the cache comes straight back.
    fn insert(&self, key: Key, layer: &Arc<LowerLayer>) -> Vec<Arc<LowerLayer>> {
        let mut state = self.state.lock();
        state.clock += 1;
        let slot = Layer { layer: Arc::clone(layer), used: state.clock, clones: Vec::new() };
        let mut evicted = state.remove(&key);
        state.bytes += layer.bytes;
        state.layers.insert(key, slot);
        while state.layers.len() > MAX_LAYERS || state.bytes > MAX_BYTES {
            let Some(oldest) = state.oldest() else { break };
            evicted.extend(state.remove(&oldest));
        }
        evicted
    }

    /// Adds a clone of a layer for a user, and returns those that had to go for it. A clone of a layer that is not in the
    /// cache is not kept.
    fn insert_clone(&self, key: &Key, user: u32, clone: &Arc<LowerLayer>) -> Vec<Arc<LowerLayer>> {
        let mut state = self.state.lock();
        state.clock += 1;
        let used = state.clock;
        let Some(slot) = state.layers.get_mut(key) else { return Vec::new() };
        slot.clones.push(UserClone { user, layer: Arc::clone(clone), used });
        state.clones += 1;
        let is_too_many = state.clones > MAX_CLONES;
        is_too_many.then(|| state.remove_oldest_clone()).flatten().into_iter().collect()
    }
}

impl Layers {
    /// A scan: it happens only when a layer was made, which takes a thousand times longer.
    fn oldest(&self) -> Option<Key> {
        self.layers.iter().min_by_key(|(_, slot)| slot.used).map(|(key, _)| *key)
    }

    /// Removes a layer and its clones, if it is there.
    fn remove(&mut self, key: &Key) -> Vec<Arc<LowerLayer>> {
        let Some(slot) = self.layers.remove(key) else { return Vec::new() };
        self.bytes -= slot.layer.bytes;
        self.clones -= slot.clones.len();
        slot.clones.into_iter().map(|clone| clone.layer).chain([slot.layer]).collect()
    }

    /// Removes the clone that was used least recently. A scan, as for layers.
    fn remove_oldest_clone(&mut self) -> Option<Arc<LowerLayer>> {
        let ages = self.layers.iter().flat_map(|(key, slot)| {
            slot.clones.iter().enumerate().map(|(index, clone)| (clone.used, *key, index))
        });
        let (_, key, index) = ages.min_by_key(|(used, ..)| *used)?;
        let slot = self.layers.get_mut(&key)?;
        self.clones -= 1;
        Some(slot.clones.swap_remove(index).layer)
    }
}

fn retire(job: &Job<'_>, images: Vec<Arc<LowerLayer>>) {
    if !images.is_empty() {
        job.janitor.retire(Retired { images, ..Retired::default() });
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
        Arc::new(LowerLayer::new(file.into(), bytes))
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let cache = LayerCache::default();
        for number in 0..MAX_LAYERS {
            assert!(cache.insert(key(number), &image(1)).is_empty());
        }
        assert!(cache.get(&key(0), None).is_some());
        assert_eq!(cache.insert(key(MAX_LAYERS), &image(1)).len(), 1);
        assert!(cache.get(&key(0), None).is_some());
        assert!(cache.get(&key(1), None).is_none());
    }

    #[test]
    fn strict_and_mutable_images_of_a_tree_are_two() {
        let cache = LayerCache::default();
        cache.insert(key(0), &image(1));
        assert!(cache.get(&(key(0).0, Access::Mutable), None).is_none());
    }

    #[test]
    fn bytes_are_bounded() {
        let cache = LayerCache::default();
        cache.insert(key(0), &image(MAX_BYTES / 2));
        cache.insert(key(1), &image(MAX_BYTES / 2));
        assert_eq!(cache.insert(key(2), &image(1)).len(), 1);
        assert!(cache.get(&key(0), None).is_none());
    }

    #[test]
    fn an_image_that_is_too_large_does_not_stay() {
        let cache = LayerCache::default();
        cache.insert(key(0), &image(MAX_BYTES + 1));
        assert!(cache.get(&key(0), None).is_none());
        assert!(cache.insert(key(1), &image(MAX_BYTES)).is_empty());
    }

    #[test]
    fn a_tree_built_twice_at_once_is_counted_once() {
        let cache = LayerCache::default();
        cache.insert(key(0), &image(MAX_BYTES));
        assert_eq!(cache.insert(key(0), &image(MAX_BYTES)).len(), 1);
        assert!(cache.get(&key(0), None).is_some());
    }

    fn has_clone(cache: &LayerCache, number: usize, user: u32) -> bool {
        cache.get(&key(number), Some(user)).is_some_and(|found| found.clone.is_some())
    }

    #[test]
    fn each_user_has_a_clone_of_a_layer() {
        let cache = LayerCache::default();
        cache.insert(key(0), &image(1));
        assert!(cache.insert_clone(&key(0), 7, &image(0)).is_empty());
        assert!(has_clone(&cache, 0, 7));
        assert!(!has_clone(&cache, 0, 8));
        assert!(cache.get(&key(0), None).is_some_and(|found| found.clone.is_none()));
    }

    #[test]
    fn clones_go_with_their_layer() {
        let cache = LayerCache::default();
        cache.insert(key(0), &image(MAX_BYTES));
        cache.insert_clone(&key(0), 7, &image(0));
        cache.insert_clone(&key(0), 8, &image(0));
        assert_eq!(cache.insert(key(1), &image(1)).len(), 3);
        assert!(cache.insert_clone(&key(0), 7, &image(0)).is_empty(), "its layer is gone");
        assert!(!has_clone(&cache, 0, 7));
        assert_eq!(cache.state.lock().clones, 0);
    }

    #[test]
    fn clones_are_bounded() {
        let cache = LayerCache::default();
        cache.insert(key(0), &image(1));
        cache.insert(key(1), &image(1));
        cache.insert_clone(&key(1), 0, &image(0));
        cache.insert_clone(&key(1), 1, &image(0));
        for user in 2..u32::try_from(MAX_CLONES).expect("a small number") {
            assert!(cache.insert_clone(&key(0), user, &image(0)).is_empty());
        }
        assert!(has_clone(&cache, 1, 0));
        assert_eq!(cache.insert_clone(&key(0), 1, &image(0)).len(), 1);
        assert!(has_clone(&cache, 1, 0), "it was used since");
        assert!(!has_clone(&cache, 1, 1));
        assert_eq!(cache.state.lock().clones, MAX_CLONES);
    }
}
