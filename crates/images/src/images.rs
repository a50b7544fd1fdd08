//! The images of a server. They come and go while it runs, and the actions that see one keep it.
//!
//! ```text
//!              put: mounted, then recorded        put: the next one of that name,
//!                                                 remove, or a record that is gone
//! record ─────────────────────────────────► shown ─────────────────────────────────► retired
//!                                                                                       │
//!                                                     the last action has ended, and its sandbox:
//!                                                     unmounted, its blobs no longer pinned
//! ```
//!
//! A change that fails changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use inputroot::InputRoots;
use model::{Chain, Digest};
use parking_lot::Mutex;
use runtimes::{Rootfs, Runtimes};
use store::Store;

use crate::present::{self, OpenImageError};
use crate::record::{self, ImageName, Record, RecordError};

/// The most images of a server. Each is a mount, and the list of its blobs is in memory.
const MAX_IMAGES: usize = 1_000;

/// The reason why an image was not put or removed. Everything is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// It can't be shown to actions.
    #[error("the image {name} can't be shown to actions")]
    Open {
        /// Its name.
        name: String,
        /// The problem.
        source: OpenImageError,
    },
    /// Its record can't be read or written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// There is no image of that name.
    #[error("there is no image {0}")]
    Unknown(String),
    /// Actions run in it.
    #[error(
        "the image {name} is in use by {users} running actions: wait until they have ended, or cancel them with \
         `linux-actiond kill`"
    )]
    InUse {
        /// Its name.
        name: String,
        /// The number of actions.
        users: usize,
    },
    /// There are too many.
    #[error("there are {MAX_IMAGES} images, the most that a server shows: remove one first")]
    TooMany,
}

/// The differences that [`Images::reload`] found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// The names of images that actions can choose now: new ones, and those of another content.
    pub shown: Vec<String>,
    /// The names of images that actions can't choose any more.
    pub gone: Vec<String>,
}

/// The images that actions can choose.
pub struct Images {
    store: Arc<Store>,
    input_roots: Arc<dyn InputRoots>,
    runtimes: Runtimes,
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    roots: BTreeMap<ImageName, Digest>,
    /// The number of the next mount point. None is used twice: a view is known by its mounts.
    next_mount: u64,
}

impl Images {
    /// Mounts every imported image, in the calling thread's mount namespace, and lets actions choose it in
    /// `runtimes`. One that can't be shown is left out with a warning: the others are as good without it.
    ///
    /// # Errors
    /// When the list of images can't be read.
    pub fn open(
        store: Arc<Store>,
        input_roots: Arc<dyn InputRoots>,
        runtimes: Runtimes,
    ) -> Result<Self, RecordError> {
        remove_old_mount_points(&store);
        let images = Self { store, input_roots, runtimes, shown: Mutex::default() };
        images.reload()?;
        Ok(images)
    }

    /// Shows an image whose blobs are in the store, and records it. One of the same name is replaced; actions that
    /// run in it keep it.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub fn put(&self, record: &Record) -> Result<(), ChangeError> {
        let mut shown = self.shown.lock();
        let old = shown.roots.get(&record.name);
        if old.is_none() && shown.roots.len() >= MAX_IMAGES {
            return Err(ChangeError::TooMany);
        }
        if old == Some(&record.root) {
            return Ok(record::save(self.store.path(), record)?);
        }
        let view = self.present(&mut shown, record)?;
        record::save(self.store.path(), record)?;
        self.show(&mut shown, record, view);
        Ok(())
    }

    /// Forgets an image that no running action sees. Its blobs stay for others, until the store wants their space.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub fn remove(&self, name: &ImageName) -> Result<(), ChangeError> {
        let mut shown = self.shown.lock();
        // An action that asks for it from here on keeps it all the same.
        let users = self.runtimes.users_of_image(name.as_str());
        if users > 0 {
            return Err(ChangeError::InUse { name: name.as_str().to_owned(), users });
        }
        if !record::remove(self.store.path(), name)? && !shown.roots.contains_key(name) {
            return Err(ChangeError::Unknown(name.as_str().to_owned()));
        }
        self.hide(&mut shown, name);
        Ok(())
    }

    /// The records of all imported images, by name.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub fn list(&self) -> Result<Vec<Record>, RecordError> {
        record::list(self.store.path())
    }

    /// Reads the records again: shows what is new, tries again what could not be shown, and hides what is gone. One
    /// that can't be shown is left as it is, with a warning.
    ///
    /// # Errors
    /// When the list of images can't be read; everything then stays as it was.
    pub fn reload(&self) -> Result<Reloaded, RecordError> {
        let mut shown = self.shown.lock();
        let records = record::list(self.store.path())?;
        let mut changes = Reloaded::default();
        let is_recorded = |name: &&ImageName| records.iter().any(|record| record.name == **name);
        let gone = shown.roots.keys().filter(|name| !is_recorded(name)).cloned();
        for name in gone.collect::<Vec<_>>() {
            self.hide(&mut shown, &name);
            changes.gone.push(name.as_str().to_owned());
        }
        for record in records {
            if shown.roots.get(&record.name) == Some(&record.root) {
                continue;
            }
            match self.present(&mut shown, &record) {
                Ok(view) => {
                    self.show(&mut shown, &record, view);
                    changes.shown.push(record.name.as_str().to_owned());
                }
                Err(error) => tracing::warn!(error = %Chain(&error), "an image is left out"),
            }
        }
        Ok(changes)
    }

    fn present(&self, shown: &mut Shown, record: &Record) -> Result<Rootfs, ChangeError> {
        let mount = shown.next_mount;
        shown.next_mount += 1;
        let opened = present::open(&self.store, &*self.input_roots, record, mount);
        opened.map_err(|source| {
            let name = record.name.as_str().to_owned();
            ChangeError::Open { name, source }
        })
    }

    fn show(&self, shown: &mut Shown, record: &Record, view: Rootfs) {
        let name = record.name.as_str();
        tracing::info!(name, manifest = record.manifest, "image");
        self.runtimes.set_image(name.to_owned(), view);
        shown.roots.insert(record.name.clone(), record.root);
    }

    fn hide(&self, shown: &mut Shown, name: &ImageName) {
        self.runtimes.remove_image(name.as_str());
        shown.roots.remove(name);
    }
}

/// The images are given back, as soon as no action sees them.
impl Drop for Images {
    fn drop(&mut self) {
        let names: Vec<_> = self.shown.get_mut().roots.keys().cloned().collect();
        names.iter().for_each(|name| self.runtimes.remove_image(name.as_str()));
    }
}

/// Removes what a server that was killed left behind: empty directories, for its mounts went with it.
fn remove_old_mount_points(store: &Store) {
    let Ok(entries) = fs::read_dir(store.path().join(present::MOUNT_POINTS)) else { return };
    for entry in entries.flatten() {
        if let Err(error) = fs::remove_dir(entry.path()) {
            tracing::debug!(%error, path = %entry.path().display(), "an old mount point stays");
        }
    }
}
