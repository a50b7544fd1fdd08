//! Notices changes to blobs that the store did not make.
//!
//! An administrator, a cleaning job or a backup tool can delete, truncate or overwrite a blob while an
//! action reads it. The action then computes a false result, which must not be cached. Looking at every
//! input of every action would cost a system call per file, so the kernel is asked to tell: an inotify
//! watch on each of the 256 directories of blobs that a digest function has. The cost is one read of an empty queue per action,
//! and one event for each blob that the store itself deletes.
//!
//! The kernel drops events when its queue is full, and an administrator may have used up the watches.
//! Then [`Notice::Unknown`] says so, and callers look at the files that they depend on.
//!
//! Not noticed: damage below the file system, which the scrub finds, and writes through a mapping until
//! the writer closes the file.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd};

use model::{Digest, DigestFunction, HashBytes};
use parking_lot::Mutex;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::{Errno, Result};

/// Changes that matter. Reads, and files that get their names, cause no event.
const EVENTS: WatchFlags = WatchFlags::MODIFY
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::ONLYDIR);

/// Room for some 80 events in one read.
const BUFFER_BYTES: usize = 8 * 1024;

/// A notice of changes to blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// Every change was noticed: the index knows what is missing or damaged.
    Complete,
    /// Changes may have gone unnoticed.
    Unknown,
}

/// A change to a file that has the name of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Changed {
    pub(crate) function: DigestFunction,
    pub(crate) hash: HashBytes,
    /// Whether the name may be gone; else its content may have changed.
    pub(crate) is_gone: bool,
}

/// The watches on all directories of blobs.
pub(crate) struct Watch {
    /// `None` where the kernel gives no watches.
    queue: Option<Mutex<Queue>>,
}

struct Queue {
    inotify: OwnedFd,
    /// The directory that each watch is of, by the number of the watch.
    directories: Vec<Option<(DigestFunction, u8)>>,
    /// Some directory is not watched.
    is_partial: bool,
    /// Events were dropped, and nobody has looked at all files since.
    is_incomplete: bool,
}

impl Watch {
    /// Watches the shards below `blobs`. Without watches, every [`Watch::drain`] is `Unknown`.
    pub(crate) fn start(blobs: &OwnedFd, functions: impl Iterator<Item = DigestFunction>) -> Self {
        match Queue::start(blobs, functions) {
            Ok(queue) => Self { queue: Some(Mutex::new(queue)) },
            Err(error) => {
                warn_of_no_watch(error);
                Self { queue: None }
            }
        }
    }

    /// Watches the shards of one more function. Without watches, every [`Watch::drain`] is `Unknown`
    /// from now on.
    pub(crate) fn add(&self, blobs: &OwnedFd, function: DigestFunction) {
        let Some(queue) = &self.queue else { return };
        let mut queue = queue.lock();
        if let Err(error) = queue.add(blobs, function) {
            warn_of_no_watch(error);
            queue.is_partial = true;
        }
    }

    /// Calls with every change since the last call. When this returns, changes that were made before
    /// the call have been handled, by this call or by another thread's.
    pub(crate) fn drain(&self, handle: impl FnMut(Changed)) -> Notice {
        match &self.queue {
            Some(queue) => queue.lock().drain(handle),
            None => Notice::Unknown,
        }
    }

    /// Whether events were dropped, so that somebody should look at all files.
    pub(crate) fn is_incomplete(&self) -> bool {
        self.queue.as_ref().is_some_and(|queue| queue.lock().is_incomplete)
    }

    /// All files were looked at since events were dropped.
    pub(crate) fn looked_at_all(&self) {
        if let Some(queue) = &self.queue {
            queue.lock().is_incomplete = false;
        }
    }
}

fn warn_of_no_watch(error: Errno) {
    tracing::warn!(
        %error,
        "changes to blobs by others can't be watched, so the inputs of every action are \
         looked at instead; raise fs.inotify.max_user_instances or max_user_watches"
    );
}

impl Queue {
    fn start(blobs: &OwnedFd, mut functions: impl Iterator<Item = DigestFunction>) -> Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let mut queue =
            Self { inotify, directories: Vec::new(), is_partial: false, is_incomplete: false };
        functions.try_for_each(|function| queue.add(blobs, function))?;
        Ok(queue)
    }

    fn add(&mut self, blobs: &OwnedFd, function: DigestFunction) -> Result<()> {
        for shard in 0..=u8::MAX {
            let descriptor = blobs.as_raw_fd();
            let path = format!("/proc/self/fd/{descriptor}/{}/{shard:02x}", function.name());
            let watch = inotify::add_watch(&self.inotify, path, EVENTS)?;
            // Numbers of watches count up from 1.
            let number = usize::try_from(watch).map_err(|_| Errno::OVERFLOW)?;
            if self.directories.len() <= number {
                self.directories.resize(number + 1, None);
            }
            self.directories[number] = Some((function, shard));
        }
        Ok(())
    }

    fn drain(&mut self, mut handle: impl FnMut(Changed)) -> Notice {
        let Self { inotify, directories, is_partial, is_incomplete } = self;
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let mut events = inotify::Reader::new(&*inotify, &mut buffer);
        loop {
            match events.next() {
                Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => {
                    *is_incomplete = true;
                }
                Ok(event) => {
                    let number = usize::try_from(event.wd()).ok();
                    let directory = number.and_then(|number| *directories.get(number)?);
                    let changed = directory.zip(event.file_name()).and_then(|(directory, name)| {
                        changed(directory, name.to_bytes(), event.events())
                    });
                    if let Some(changed) = changed {
                        handle(changed);
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => {
                    tracing::error!(%error, "changes to blobs by others can't be read any more");
                    *is_incomplete = true;
                    break;
                }
            }
        }
        if *is_incomplete || *is_partial { Notice::Unknown } else { Notice::Complete }
    }
}

fn changed(
    (function, shard): (DigestFunction, u8),
    name: &[u8],
    events: ReadFlags,
) -> Option<Changed> {
    let digest = Digest::parse_hex_bytes(function, name, 0).ok()?;
    let is_gone = events.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM);
    let changed = Changed { function, hash: *digest.hash(), is_gone };
    (changed.hash[0] == shard).then_some(changed)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn shards(root: &Path) -> OwnedFd {
        for function in DigestFunction::ALL {
            for shard in 0..=u8::MAX {
                let path = root.join(function.name()).join(format!("{shard:02x}"));
                fs::create_dir_all(path).expect("a directory");
            }
        }
        fs::File::open(root).expect("a directory").into()
    }

    #[test]
    fn what_others_do_to_blobs_is_told() {
        let root = tempfile::tempdir().expect("a directory");
        let digest = Digest::of(DigestFunction::Sha256, b"abc");
        let path = root.path().join("sha256").join(&digest.hex()[..2]).join(digest.hex());
        let directory = shards(root.path());
        fs::write(&path, "abc").expect("written");
        let watch = Watch::start(&directory, [DigestFunction::Sha256].into_iter());
        watch.add(&directory, DigestFunction::Md5);
        let drain = || {
            let mut found = Vec::new();
            assert_eq!(watch.drain(|changed| found.push(changed)), Notice::Complete);
            assert!(found.iter().all(|changed| changed.hash == *digest.hash()));
            found.into_iter().map(|changed| changed.is_gone).collect::<Vec<_>>()
        };
        assert_eq!(drain(), []);
        fs::read(&path).expect("read");
        fs::File::open(&path).expect("opened").set_len(0).expect_err("not opened for writing");
        assert_eq!(drain(), [], "reading is no change");
        fs::write(&path, "abd").expect("written");
        assert!(drain().contains(&false));
        fs::rename(&path, path.with_extension("moved")).expect("renamed");
        assert_eq!(drain(), [true]);
        fs::rename(path.with_extension("moved"), &path).expect("renamed");
        assert_eq!(drain(), [false]);
        fs::remove_file(&path).expect("removed");
        assert_eq!(drain(), [true]);
        fs::write(path.with_file_name("no blob"), "x").expect("written");
        assert_eq!(drain(), [], "another name is nobody's blob");
    }
}
