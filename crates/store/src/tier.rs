//! The tier below the store: a cache of others, which may have what is not here.
//!
//! The store never asks it. The services and the worker do, before they say that something is missing, and
//! afterwards they look into the store again: only what is stored and verified here counts as present.

use std::pin::Pin;

use bytes::Bytes;
use model::Digest;

/// Work of a tier that goes on whether it is waited for or not.
pub type Pending = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A cache below the store. Every method returns in bounded time, also when the tier cannot be reached, and a
/// tier that fails is as good as an empty one.
///
/// `caller` is the encoded `RequestMetadata` of the request for which the tier is asked, or empty.
pub trait Tier: Send + Sync {
    /// Stores those of the blobs that are not in the store and that the tier has.
    fn fetch(&self, blobs: Vec<Digest>, caller: Bytes) -> Pending;

    /// Stores the tier's result of an action and every blob that it names, if the tier has all of them.
    fn fetch_result(&self, instance: &str, action: Digest, caller: Bytes) -> Pending;

    /// Gives the tier the cached result of an action and every blob that it names.
    fn publish(&self, instance: &str, action: Digest) -> Pending;
}
