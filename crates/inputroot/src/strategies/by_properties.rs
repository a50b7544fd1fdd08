//! Trees with node properties, beside a strategy that cannot show them.
//!
//! actiondfs has no room for modes and times of a client's own. Few clients send them, so their trees go
//! another way, which is opened for the first of them.

use std::fs;
use std::sync::Arc;

use model::{DigestFunctions, InputTree};
use parking_lot::Mutex;

use super::bind::BindMounts;
use super::input_roots::{InputRoots, PresentRequest, Presented};
use super::workshop::Places;
use crate::error::PresentError;

/// Presents trees without node properties in one way, and the others as bind mounts and copies.
pub(crate) struct ByProperties<S> {
    plain: S,
    places: Places,
    others: Mutex<Option<Arc<dyn InputRoots>>>,
}

impl<S: InputRoots> ByProperties<S> {
    /// `places` are those of `plain`.
    pub(crate) fn new(plain: S, places: &Places) -> Self {
        // Beside the other's, as it is empty at the start.
        let work = places.work.join("with-properties");
        let places = Places { work, blobs: places.blobs.clone() };
        Self { plain, places, others: Mutex::default() }
    }

    fn others(&self) -> Result<Arc<dyn InputRoots>, PresentError> {
        let mut others = self.others.lock();
        if let Some(others) = &*others {
            return Ok(Arc::clone(others));
        }
        // An attempt before this one may have failed half-way.
        if let Err(error) = fs::remove_dir_all(&self.places.work)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(PresentError::store_image("rmdir(with-properties)")(error));
        }
        fs::create_dir(&self.places.work)
            .map_err(PresentError::store_image("mkdir(with-properties)"))?;
        let opened = Arc::new(BindMounts::open(self.plain.name(), &self.places)?);
        Ok(others.insert(opened).clone())
    }
}

impl<S: InputRoots> InputRoots for ByProperties<S> {
    fn name(&self) -> &'static str {
        self.plain.name()
    }

    /// Those of the plain trees; bind mounts present the trees of every function.
    fn functions(&self) -> DigestFunctions {
        self.plain.functions()
    }

    fn present(
        &self,
        tree: &Arc<InputTree>,
        request: &PresentRequest<'_>,
    ) -> Result<Presented, PresentError> {
        if tree.has_properties() {
            self.others()?.present(tree, request)
        } else {
            self.plain.present(tree, request)
        }
    }
}
