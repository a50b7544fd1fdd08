//! The identity of a root's content: results that were computed in one environment say nothing about
//! another.
//!
//! A runtime image and an imported image are known by a hash of their content. Directories that others
//! may change, such as the host's `/usr`, are known by the times and sizes of their package manager's
//! database and of their first two levels of directories. A package manager changes these with every
//! package; a file that somebody overwrites in place, three levels down, is not noticed.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use chain::Chain;
use model::{BlobHasher, DigestFunction};
use parking_lot::Mutex;

/// The environment of an action: equal ones compute equal results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Environment([u8; 32]);

impl Environment {
    /// The hash that stands for the environment.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The identity of the mounts of a view.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// A hash, or that there are no mounts.
    Fixed([u8; 32]),
    /// A hash of a file, which may be computed still.
    Image(Arc<ImageHash>),
    /// Directories that others may change.
    Watched(Arc<Watched>),
}

impl Content {
    /// Content that some text names.
    pub(crate) fn named(text: &[u8]) -> Self {
        let mut hasher = hasher();
        hasher.update(text);
        Self::Fixed(hasher.finish().hash().first())
    }

    /// The environment of a view with that description.
    pub(crate) fn environment(&self, description: &[u8; 32]) -> Environment {
        let content = match self {
            Self::Fixed(hash) => *hash,
            Self::Image(image) => image.hash(),
            Self::Watched(watched) => watched.hash(),
        };
        let mut hasher = hasher();
        hasher.update(description);
        hasher.update(&content);
        Environment(hasher.finish().hash().first())
    }
}

/// Two views with one description are the same view, whatever happened to their directories.
impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Fixed(one), Self::Fixed(other)) => one == other,
            (Self::Image(_), Self::Image(_)) | (Self::Watched(_), Self::Watched(_)) => true,
            _ => false,
        }
    }
}

impl Eq for Content {}

/// A hasher of what stays in this process or in entries that may be forgotten.
pub(crate) fn hasher() -> BlobHasher {
    BlobHasher::new(DigestFunction::Blake3)
}

/// The hash of a runtime image.
#[derive(Debug)]
pub(crate) struct ImageHash {
    path: PathBuf,
    hash: OnceLock<[u8; 32]>,
}

impl ImageHash {
    /// Starts to hash a file beside the caller's work: it has some 50 MB, and the first action is to come.
    pub(crate) fn start(path: &Path) -> Arc<Self> {
        let image = Arc::new(Self { path: path.to_owned(), hash: OnceLock::new() });
        let hashing = Arc::clone(&image);
        let started = std::thread::Builder::new().name("image-hash".to_owned()).spawn(move || {
            hashing.hash();
        });
        if let Err(error) = started {
            tracing::debug!(%error, "the runtime image is hashed when it is needed");
        }
        image
    }

    fn hash(&self) -> [u8; 32] {
        *self.hash.get_or_init(|| {
            hash_file(&self.path).unwrap_or_else(|error| {
                let path = self.path.display();
                tracing::warn!(%error, %path, "the runtime image was not hashed: no cached result fits");
                nonce()
            })
        })
    }
}

fn hash_file(path: &Path) -> io::Result<[u8; 32]> {
    let mut file = File::open(path)?;
    let mut hasher = hasher();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish().hash().first()),
            length => hasher.update(&buffer[..length]),
        }
    }
}

/// A hash that no other process, and no other call, has.
fn nonce() -> [u8; 32] {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let mut hasher = hasher();
    hasher.update(&now.as_nanos().to_le_bytes());
    hasher.update(&std::process::id().to_le_bytes());
    hasher.finish().hash().first()
}

/// The time for which a look at the directories is good. A look costs some hundred calls of stat(2), so it
/// is not taken for every action; nobody starts a build so soon after a package manager has ended.
const FRESH: Duration = Duration::from_millis(200);

/// The most paths of one view. A usual host has a few hundred; more only cost time.
const MAX_PATHS: usize = 4_096;

/// The levels of directories below a mount that are looked at.
const LEVELS: usize = 2;

/// Databases of package managers, below the root.
const DATABASES: [&str; 8] = [
    "var/lib/dpkg/status",
    "var/lib/rpm",
    "var/lib/rpm/rpmdb.sqlite",
    "usr/lib/sysimage/rpm/rpmdb.sqlite",
    "var/lib/pacman/local",
    "lib/apk/db/installed",
    "usr/lib/apk/db/installed",
    "var/db/xbps",
];

/// Directories that others may change.
#[derive(Debug)]
pub(crate) struct Watched {
    /// The files to look at beside the directories.
    files: Vec<PathBuf>,
    mounts: Vec<PathBuf>,
    look: Mutex<Look>,
}

/// The last look.
#[derive(Debug)]
struct Look {
    paths: Vec<PathBuf>,
    hash: [u8; 32],
    taken: Instant,
}

impl Watched {
    /// `mounts` are shown; `root` has the database of the package manager, if there is one.
    pub(crate) fn new(root: Option<&Path>, mounts: Vec<PathBuf>) -> Self {
        let of_root = |root: &Path| DATABASES.map(|path| root.join(path)).to_vec();
        let files = root.map(of_root).unwrap_or_default();
        let look = Look::take(paths(&files, &mounts));
        Self { files, mounts, look: Mutex::new(look) }
    }

    /// The present state of the directories, or that of a moment ago.
    fn hash(&self) -> [u8; 32] {
        let mut look = self.look.lock();
        if look.taken.elapsed() < FRESH {
            return look.hash;
        }
        let paths = std::mem::take(&mut look.paths);
        let before = look.hash;
        *look = Look::take(paths);
        if look.hash != before {
            // There may be directories that were not there.
            *look = Look::take(self::paths(&self.files, &self.mounts));
            tracing::info!(
                mounts = self.mounts.len(),
                "the root file system that actions see has changed: cached results of it are not served"
            );
        }
        look.hash
    }
}

impl Look {
    fn take(paths: Vec<PathBuf>) -> Self {
        let taken = Instant::now();
        let mut hasher = hasher();
        for path in &paths {
            hasher.update(path.as_os_str().as_encoded_bytes());
            hasher.update(&[0]);
            // One that is missing is as good as any other state.
            if let Ok(metadata) = fs::symlink_metadata(path) {
                hasher.update(&metadata.mode().to_le_bytes());
                hasher.update(&metadata.size().to_le_bytes());
                hasher.update(&metadata.mtime().to_le_bytes());
                hasher.update(&metadata.mtime_nsec().to_le_bytes());
            }
        }
        Self { hash: hasher.finish().hash().first(), paths, taken }
    }
}

/// The paths to look at, sorted.
fn paths(files: &[PathBuf], mounts: &[PathBuf]) -> Vec<PathBuf> {
    let mut paths = files.to_vec();
    let mut level = mounts.to_vec();
    for _ in 0..=LEVELS {
        let room = MAX_PATHS.saturating_sub(paths.len());
        level.sort_unstable();
        level.truncate(room);
        let below: Vec<PathBuf> = level.iter().flat_map(|path| directories(path)).collect();
        paths.append(&mut level);
        level = below;
    }
    paths
}

/// The directories in a directory; symlinks are not followed.
fn directories(path: &Path) -> Vec<PathBuf> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => {
            let error = Chain(&error);
            tracing::debug!(%error, path = %path.display(), "no look at what is below it");
            return Vec::new();
        }
    };
    let is_directory = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    entries.flatten().filter(is_directory).map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(root: &Path) -> Watched {
        Watched::new(Some(root), vec![root.join("usr")])
    }

    /// A small Debian.
    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for path in ["usr/bin", "usr/lib/gcc/x86_64-linux-gnu/14", "var/lib/dpkg"] {
            fs::create_dir_all(root.path().join(path)).unwrap();
        }
        fs::write(root.path().join("usr/bin/cc"), "1").unwrap();
        fs::write(root.path().join("var/lib/dpkg/status"), "gcc 1").unwrap();
        // Older than everything that the test does.
        let long_ago = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        for path in ["usr", "usr/bin", "usr/lib", "usr/lib/gcc", "var/lib/dpkg/status"] {
            File::open(root.path().join(path)).unwrap().set_modified(long_ago).unwrap();
        }
        root
    }

    #[test]
    fn what_a_package_manager_does_is_noticed() {
        type Change = fn(&Path);
        let changes: [(&str, Change); 5] = [
            ("a program is replaced as dpkg does it", |root| {
                fs::write(root.join("usr/bin/cc.dpkg-new"), "2").unwrap();
                fs::rename(root.join("usr/bin/cc.dpkg-new"), root.join("usr/bin/cc")).unwrap();
            }),
            ("a package is installed", |root| {
                fs::write(root.join("var/lib/dpkg/status"), "gcc 1, make 1").unwrap();
            }),
            ("a program is removed", |root| fs::remove_file(root.join("usr/bin/cc")).unwrap()),
            ("a directory is made", |root| fs::create_dir(root.join("usr/lib/llvm")).unwrap()),
            ("two levels down", |root| fs::create_dir(root.join("usr/lib/gcc/x")).unwrap()),
        ];
        for (what, change) in changes {
            let root = root();
            let watched = watched(root.path());
            let before = watched.hash();
            assert_eq!(watched.hash(), before);
            change(root.path());
            watched.look.lock().taken -= FRESH;
            assert_ne!(watched.hash(), before, "{what}");
            assert_eq!(
                watched.hash(),
                self::watched(root.path()).hash(),
                "{what}, at the next start"
            );
        }
    }

    #[test]
    fn what_stays_is_the_same_at_the_next_start() {
        let root = root();
        assert_eq!(watched(root.path()).hash(), watched(root.path()).hash());
        let missing = Watched::new(None, vec![root.path().join("nowhere")]);
        assert_eq!(missing.hash(), missing.hash());
    }

    #[test]
    fn paths_are_bounded() {
        let root = tempfile::tempdir().unwrap();
        for number in 0..MAX_PATHS + 10 {
            fs::create_dir(root.path().join(number.to_string())).unwrap();
        }
        assert_eq!(paths(&[], &[root.path().to_owned()]).len(), MAX_PATHS);
    }

    #[test]
    fn an_image_is_known_by_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let hash = |name: &str, content: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, content).unwrap();
            ImageHash::start(&path).hash()
        };
        assert_eq!(hash("a", b"image"), hash("b", b"image"));
        assert_ne!(hash("a", b"image"), hash("a", b"other"));
        let missing = || ImageHash::start(&folder.path().join("missing")).hash();
        assert_ne!(missing(), missing(), "what is unknown is equal to nothing");
    }
}
