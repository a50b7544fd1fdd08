//! The description of a sandbox's root, and how one is put together.

use std::collections::BTreeMap;
use std::path::PathBuf;

use model::RelPath;

use crate::environment::{Content, Environment, hasher};
use crate::life::{InUse, Life};
use crate::{INPUT_ROOT, etc};

/// The content of a sandbox's root beside the exec root. No path is there twice, in whatever list, and
/// none lies below a symlink or a file of the view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rootfs {
    /// A name for logs, such as `bare`, `host` or `libc:glibc2.31`.
    pub name: String,
    /// The path of the input root.
    pub input_root: InputRootPlace,
    /// Directories to attach, read-only, nosuid and nodev, without what is mounted below them.
    pub mounts: Vec<RootfsMount>,
    /// Symbolic links to make, each with its target.
    pub symlinks: Vec<(RelPath, String)>,
    /// Regular files to make, root-owned and 0444, each with its content.
    pub files: Vec<(RelPath, Vec<u8>)>,
    /// A hash of all of that but for the sources of mounts, which can change from start to start.
    description: [u8; 32],
    /// The identity of the content of the mounts.
    content: Content,
    life: Life,
}

/// The path of the input root in a sandbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum InputRootPlace {
    /// `/execroot`, beside what the view has.
    #[default]
    Execroot,
    /// `/`. All that an action sees beside it is the `/dev`, `/proc` and `/tmp` of its sandbox.
    Root,
}

/// A directory of the host that appears in a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootfsMount {
    /// The directory: absolute, with no symlink in it when the daemon started.
    pub source: PathBuf,
    /// Its path, relative to the sandbox's root.
    pub at: RelPath,
}

impl Rootfs {
    /// The view with nothing but a generated `/etc`.
    pub fn bare() -> Self {
        Builder::with_generated_etc().build("bare", Content::named(b"no mounts"))
    }

    /// The view with nothing: the input root is the root.
    pub fn of_input_root() -> Self {
        let view = Builder::default().build(INPUT_ROOT, Content::named(b"the input root"));
        Self { input_root: InputRootPlace::Root, ..view }
    }

    /// The view with something that it is made of, such as a mount: dropped when nothing refers to the view any
    /// more.
    #[must_use]
    pub fn holding(mut self, held: impl Send + Sync + 'static) -> Self {
        self.life = Life::holding(held);
        self
    }

    /// Counts an action as one that sees the view.
    #[must_use]
    pub fn enter(&self) -> InUse {
        self.life.enter()
    }

    /// The number of actions that see the view now.
    pub fn users(&self) -> usize {
        self.life.users()
    }

    /// Marks the view as one that no new action gets, so that nobody keeps a sandbox of it.
    pub fn retire(&self) {
        self.life.retire();
    }

    /// Whether no new action gets the view.
    pub fn is_retired(&self) -> bool {
        self.life.is_retired()
    }

    /// The environment of actions that see this. Cheap enough for every action.
    pub fn environment(&self) -> Environment {
        self.content.environment(&self.description)
    }

    /// The view with another name for the content of its mounts.
    pub(crate) fn with_content(self, content: Content) -> Self {
        Self { content, ..self }
    }

    /// The directories of the host that it shows.
    pub(crate) fn sources(&self) -> Vec<PathBuf> {
        self.mounts.iter().map(|mount| mount.source.clone()).collect()
    }

    fn describe(&self) -> [u8; 32] {
        let mut hasher = hasher();
        let mut put = |kind: u8, path: &RelPath, content: &[u8]| {
            hasher.update(&[kind]);
            for part in [path.as_str().as_bytes(), content] {
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part);
            }
        };
        self.mounts.iter().for_each(|mount| put(0, &mount.at, b""));
        self.symlinks.iter().for_each(|(path, target)| put(1, path, target.as_bytes()));
        self.files.iter().for_each(|(path, content)| put(2, path, content));
        hasher.finish().hash().first()
    }
}

/// One thing at a path of a view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    Mount(PathBuf),
    Symlink(String),
    File(Vec<u8>),
}

/// Puts a view together. An item that is put at a path replaces what was there and below, so the sources
/// go in from the weakest to the strongest.
#[derive(Debug, Clone, Default)]
pub(crate) struct Builder {
    items: BTreeMap<RelPath, Item>,
}

impl Builder {
    pub(crate) fn with_generated_etc() -> Self {
        let files = etc::common_files().map(|(path, content)| (path, Item::File(content)));
        Self { items: files.collect() }
    }

    /// Puts an item at a path that is clean but for its length: names come from directory
    /// listings. A path that is too long for a mount point is left out.
    pub(crate) fn put(&mut self, at: &str, item: Item) {
        let Ok(at) = RelPath::parse(at) else {
            tracing::warn!(at, "left out of the view: not a path for a mount point");
            return;
        };
        self.items.retain(|other, _| !other.starts_with(&at));
        self.items.insert(at, item);
    }

    /// Whether there is an item at exactly that path.
    pub(crate) fn has(&self, at: &str) -> bool {
        self.items.keys().any(|other| other.as_str() == at)
    }

    pub(crate) fn build(self, name: &str, content: Content) -> Rootfs {
        let mut view = Rootfs {
            name: name.to_owned(),
            input_root: InputRootPlace::default(),
            mounts: Vec::new(),
            symlinks: Vec::new(),
            files: Vec::new(),
            description: [0; 32],
            content,
            life: Life::default(),
        };
        for (at, item) in self.items {
            match item {
                Item::Mount(source) => view.mounts.push(RootfsMount { source, at }),
                Item::Symlink(target) => view.symlinks.push((at, target)),
                Item::File(content) => view.files.push((at, content)),
            }
        }
        view.description = view.describe();
        view
    }
}
