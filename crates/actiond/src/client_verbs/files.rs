//! Trees and outputs of the server, written to a directory of the user.
//!
//! Names come from clients and actions. A path is written only if it is clean and relative, everything is created
//! below a directory that was empty, and symlinks are created last, so that no file is written through one.

use history::text::size;
use std::fs::{File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use model::{Digest, Entry, RelPath, proto};
use proto::{ActionResult, Message as _};

use super::blobs::{Reader, gone, joined};
use crate::output::Progress;

/// A directory that is being filled.
pub(crate) struct Target {
    directory: PathBuf,
    symlinks: Vec<(PathBuf, String)>,
    progress: Option<Progress>,
    files: u64,
    bytes: u64,
}

impl Target {
    /// A directory that is empty or does not exist.
    pub(crate) fn create(directory: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("creating {}", directory.display()))?;
        let mut entries =
            directory.read_dir().with_context(|| format!("listing {}", directory.display()))?;
        if entries.next().is_some() {
            bail!("{} is not empty; name a new directory", directory.display());
        }
        Ok(Self {
            directory: directory.to_owned(),
            symlinks: Vec::new(),
            progress: Some(Progress::start()),
            files: 0,
            bytes: 0,
        })
    }

    /// Creates a directory and those above it.
    pub(crate) fn directory(&self, path: &str) -> anyhow::Result<PathBuf> {
        let path = self.at(path)?;
        std::fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(path)
    }

    /// Writes a blob.
    pub(crate) fn file(
        &mut self,
        reader: &mut Reader<'_>,
        path: &str,
        digest: &Digest,
        executable: bool,
    ) -> anyhow::Result<()> {
        let at = self.parent_of(path)?;
        let writing = || format!("writing {}", at.display());
        let mut file = File::create_new(&at).with_context(writing)?;
        let is_there =
            reader.stream(digest, |piece| file.write_all(piece).with_context(writing))?;
        ensure!(is_there, "{}", gone(digest));
        let mode = if executable { 0o755 } else { 0o644 };
        file.set_permissions(Permissions::from_mode(mode)).with_context(writing)?;
        self.files += 1;
        self.bytes += digest.size_bytes();
        let told = format!("{} files, {}", self.files, size(self.bytes));
        if let Some(progress) = &mut self.progress {
            progress.show(&told);
        }
        Ok(())
    }

    /// Writes text of our own.
    pub(crate) fn text(&self, path: &str, text: &str, mode: u32) -> anyhow::Result<()> {
        let at = self.parent_of(path)?;
        let writing = || format!("writing {}", at.display());
        std::fs::write(&at, text).with_context(writing)?;
        std::fs::set_permissions(&at, Permissions::from_mode(mode)).with_context(writing)
    }

    /// Writes everything below a Directory.
    pub(crate) fn tree(
        &mut self,
        reader: &mut Reader<'_>,
        directory: &str,
        root: Digest,
    ) -> anyhow::Result<()> {
        self.directory(directory)?;
        reader.walk(root, |reader, path, entry| {
            self.entry(reader, &joined(directory, path.as_bytes()), entry)
        })
    }

    fn entry(
        &mut self,
        reader: &mut Reader<'_>,
        path: &str,
        entry: &Entry<'_>,
    ) -> anyhow::Result<()> {
        match *entry {
            Entry::File { digest, executable, .. } => self.file(reader, path, &digest, executable),
            Entry::Directory { .. } => self.directory(path).map(drop),
            Entry::Symlink { target, .. } => self.symlink(path, &String::from_utf8_lossy(target)),
        }
    }

    /// Remembers a symlink, which is created at the end.
    fn symlink(&mut self, path: &str, target: &str) -> anyhow::Result<()> {
        let at = self.parent_of(path)?;
        self.symlinks.push((at, target.to_owned()));
        Ok(())
    }

    /// Writes the outputs and streams of a result.
    pub(crate) fn outputs(
        &mut self,
        reader: &mut Reader<'_>,
        directory: &str,
        working_directory: &str,
        result: &ActionResult,
        function: model::DigestFunction,
    ) -> anyhow::Result<()> {
        self.directory(directory)?;
        let base = RelPath::parse(working_directory).context("the working directory")?;
        // Paths of outputs begin at the working directory.
        let below = |path: &str| {
            let resolved = RelPath::resolve(&base, path);
            let resolved = resolved.with_context(|| format!("the output {}", chain::visible(path)));
            resolved.map(|path| joined(directory, path.as_bytes()))
        };
        let digest = |field: &Option<proto::Digest>| {
            Digest::from_proto_field(field.as_ref(), function).context("a digest of the result")
        };
        for file in &result.output_files {
            let digest = digest(&file.digest)?;
            self.file(reader, &below(&file.path)?, &digest, file.is_executable)?;
        }
        for output in &result.output_directories {
            let tree: proto::Tree = reader.message(&digest(&output.tree_digest)?, "Tree")?;
            self.stored_tree(reader, &below(&output.path)?, &tree, function)?;
        }
        #[allow(deprecated, reason = "clients of older versions of the API ask for them")]
        let symlinks = [
            &result.output_symlinks,
            &result.output_file_symlinks,
            &result.output_directory_symlinks,
        ];
        let mut known = std::collections::BTreeSet::new();
        for link in symlinks.into_iter().flatten() {
            if known.insert(&link.path) {
                self.symlink(&below(&link.path)?, &link.target)?;
            }
        }
        Ok(())
    }

    /// Writes an output directory, whose Directories are in one message.
    fn stored_tree(
        &mut self,
        reader: &mut Reader<'_>,
        path: &str,
        tree: &proto::Tree,
        function: model::DigestFunction,
    ) -> anyhow::Result<()> {
        let encoded = tree.children.iter().map(proto::Message::encode_to_vec);
        let children: std::collections::HashMap<Digest, Vec<u8>> =
            encoded.map(|bytes| (Digest::of(function, &bytes), bytes)).collect();
        let root = tree.root.as_ref().map(|root| root.encode_to_vec()).unwrap_or_default();
        let mut waiting = vec![(path.to_owned(), root)];
        while let Some((path, bytes)) = waiting.pop() {
            self.directory(&path)?;
            let directory = model::Directory::parse(bytes.into(), function)
                .with_context(|| format!("a directory of the output {path}"))?;
            for entry in directory.entries() {
                let path = joined(&path, entry.name());
                match entry {
                    Entry::Directory { digest, .. } => {
                        let below = children.get(&digest).context("the Tree lacks a directory")?;
                        waiting.push((path, below.clone()));
                    }
                    _ => self.entry(reader, &path, &entry)?,
                }
            }
        }
        Ok(())
    }

    /// Creates the symlinks. Returns the numbers of files and bytes.
    pub(crate) fn finish(mut self) -> anyhow::Result<(u64, u64)> {
        for (at, target) in &self.symlinks {
            symlink(target, at).with_context(|| format!("linking {}", at.display()))?;
        }
        if let Some(progress) = self.progress.take() {
            progress.end();
        }
        Ok((self.files, self.bytes))
    }

    /// The place of a path, whose parents are created.
    fn parent_of(&self, path: &str) -> anyhow::Result<PathBuf> {
        let at = self.at(path)?;
        if let Some(parent) = at.parent() {
            std::fs::create_dir_all(parent)
                .with_context(|| format!("creating {}", parent.display()))?;
        }
        Ok(at)
    }

    fn at(&self, path: &str) -> anyhow::Result<PathBuf> {
        let clean = RelPath::parse(path)
            .with_context(|| format!("the path {:?} can't be written", chain::visible(path)))?;
        Ok(self.directory.join(clean.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_outside_of_the_directory_or_through_a_symlink() {
        let directory = tempfile::tempdir().unwrap();
        let outside = directory.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        let outside_text = outside.to_string_lossy().into_owned();
        let create = |name: &str| Target::create(&directory.path().join(name)).unwrap();

        let mut target = create("paths");
        for path in
            ["../outside/x", "a/../../outside/x", &format!("{outside_text}/x"), "a\0b", "a//b"]
        {
            assert!(target.text(path, "x", 0o644).is_err(), "{path:?}");
            assert!(target.symlink(path, "x").is_err(), "{path:?}");
            assert!(target.directory(path).is_err(), "{path:?}");
        }

        // A name that is a symlink and a directory at once: the directory comes first, and the symlink can't be made.
        for below in ["link/x", "link/deeper/x"] {
            let mut target = create(&below.replace('/', "-"));
            target.symlink("link", &outside_text).unwrap();
            target.text(below, "x", 0o644).unwrap();
            target.symlink("link/y", "x").unwrap();
            assert!(target.finish().is_err(), "{below}");
        }
        assert_eq!(outside.read_dir().unwrap().count(), 0);
        assert!(Target::create(directory.path()).is_err(), "a directory that is not empty");
    }
}
