//! Mounted images by the trees that they show.
//!
//! Actions of one build often share input roots, such as a test and its retries. One mounted image
//! serves any number of overlays at once.

use std::collections::HashMap;
use std::sync::Arc;

use model::Digest;
use parking_lot::Mutex;

use crate::access::Access;
use crate::mounts::LowerLayer;

/// A mounted image holds a superblock and a descriptor, of which a process may have 1024 open by
/// default.
const MAX_IMAGES: usize = 256;
/// Bounds the images' memory, which is pinned for images on loop devices.
const MAX_BYTES: u64 = 256 << 20;

/// The properties that determine an image.
pub(crate) type Key = (Digest, Access);

/// The images used last, up to a number and a size.
#[derive(Debug, Default)]
pub(crate) struct ImageCache {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    images: HashMap<Key, Slot>,
    bytes: u64,
    /// Counts look-ups: the image with the lowest last one is the least recently used.
    clock: u64,
}

#[derive(Debug)]
struct Slot {
    image: Arc<LowerLayer>,
    used: u64,
}

impl ImageCache {
    pub(crate) fn get(&self, key: &Key) -> Option<Arc<LowerLayer>> {
        let mut state = self.state.lock();
        state.clock += 1;
        let used = state.clock;
        let slot = state.images.get_mut(key)?;
        slot.used = used;
        Some(Arc::clone(&slot.image))
    }

    /// Adds an image, and returns those that had to go for it: closing them takes time that the
    /// caller can spend elsewhere. An image too large for the cache comes straight back.
    pub(crate) fn insert(&self, key: Key, image: &Arc<LowerLayer>) -> Vec<Arc<LowerLayer>> {
        let mut state = self.state.lock();
        state.clock += 1;
        let slot = Slot { image: Arc::clone(image), used: state.clock };
        state.bytes += image.bytes;
        let replaced = state.images.insert(key, slot);
        let mut evicted = Vec::from_iter(replaced.map(|slot| slot.image));
        state.bytes -= evicted.iter().map(|image| image.bytes).sum::<u64>();
        while state.images.len() > MAX_IMAGES || state.bytes > MAX_BYTES {
            let Some(oldest) = state.oldest() else { break };
            let Some(slot) = state.images.remove(&oldest) else {
                break;
            };
            state.bytes -= slot.image.bytes;
            evicted.push(slot.image);
        }
        evicted
    }
}

impl State {
    /// A scan: it happens only when an image was built, which takes a thousand times longer.
    fn oldest(&self) -> Option<Key> {
        self.images.iter().min_by_key(|(_, slot)| slot.used).map(|(key, _)| *key)
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
        Arc::new(LowerLayer { mount: file.into(), bytes, _attached: None })
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let cache = ImageCache::default();
        for number in 0..MAX_IMAGES {
            assert!(cache.insert(key(number), &image(1)).is_empty());
        }
        assert!(cache.get(&key(0)).is_some());
        assert_eq!(cache.insert(key(MAX_IMAGES), &image(1)).len(), 1);
        assert!(cache.get(&key(0)).is_some());
        assert!(cache.get(&key(1)).is_none());
    }

    #[test]
    fn strict_and_mutable_images_of_a_tree_are_two() {
        let cache = ImageCache::default();
        cache.insert(key(0), &image(1));
        assert!(cache.get(&(key(0).0, Access::Mutable)).is_none());
    }

    #[test]
    fn bytes_are_bounded() {
        let cache = ImageCache::default();
        cache.insert(key(0), &image(MAX_BYTES / 2));
        cache.insert(key(1), &image(MAX_BYTES / 2));
        assert_eq!(cache.insert(key(2), &image(1)).len(), 1);
        assert!(cache.get(&key(0)).is_none());
    }

    #[test]
    fn an_image_that_is_too_large_does_not_stay() {
        let cache = ImageCache::default();
        cache.insert(key(0), &image(MAX_BYTES + 1));
        assert!(cache.get(&key(0)).is_none());
        assert!(cache.insert(key(1), &image(MAX_BYTES)).is_empty());
    }

    #[test]
    fn a_tree_built_twice_at_once_is_counted_once() {
        let cache = ImageCache::default();
        cache.insert(key(0), &image(MAX_BYTES));
        assert_eq!(cache.insert(key(0), &image(MAX_BYTES)).len(), 1);
        assert!(cache.get(&key(0)).is_some());
    }
}
