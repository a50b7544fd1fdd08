//! Layers on top of each other: what an image's root file system has in the end.
//!
//! A layer is a tar archive of changes. A file `.wh.NAME` in it takes away what lower layers have as
//! NAME, and `.wh..wh..opq` all that they have in its directory.
//! <https://github.com/opencontainers/image-spec/blob/main/layer.md>

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Component, Path};

use model::Digest;
use tar::{Entry, EntryType};

/// Before the name of what is taken away.
const WHITEOUT: &str = ".wh.";
/// Takes away everything in its directory.
const OPAQUE: &str = ".wh..wh..opq";

/// As many links as Linux follows in one path (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// As many entries as an input tree may have; an image is one in the end.
const MAX_ENTRIES: usize = 1_000_000;

/// Something at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    Directory,
    File { digest: Digest, executable: bool },
    Symlink(String),
}

#[derive(Debug, Clone)]
struct Placed {
    node: Node,
    /// Whether everyone may read it.
    public: bool,
    /// The layer that brought it.
    layer: usize,
}

/// The files of all layers so far, by their paths.
#[derive(Debug, Default)]
pub(crate) struct Files {
    nodes: BTreeMap<String, Placed>,
    layers: usize,
}

impl Files {
    /// Puts a layer on top. `store` keeps a file's content.
    ///
    /// # Errors
    /// When the layer is damaged, leads out of the image or is out of all proportion, or `store`
    /// fails.
    pub(crate) fn apply(
        &mut self,
        layer: impl Read,
        store: &mut dyn FnMut(&mut dyn Read) -> io::Result<Digest>,
    ) -> io::Result<()> {
        let mut archive = tar::Archive::new(decoder(layer)?);
        for entry in archive.entries()? {
            let mut entry = entry?;
            // The tree that an image becomes has names in UTF-8 only.
            if let Some(path) = clean(&entry.path()?)? {
                self.add(&path, &mut entry, store)?;
            }
            if self.nodes.len() > MAX_ENTRIES {
                return Err(io::Error::other("more than 1,000,000 files"));
            }
        }
        self.layers += 1;
        Ok(())
    }

    /// Everything that everyone may read, sorted, without what lies in directories that not
    /// everyone may.
    pub(crate) fn public(&self) -> Vec<(&str, &Node)> {
        let mut shown: Vec<(&str, &Node)> = Vec::new();
        let mut hidden: Option<String> = None;
        // In the order of their components, a directory comes directly before what is in it.
        let mut sorted: Vec<_> = self.nodes.iter().collect();
        sorted.sort_by(|(one, _), (other, _)| one.split('/').cmp(other.split('/')));
        for (path, placed) in sorted {
            if hidden.as_ref().is_some_and(|hidden| path.starts_with(hidden)) {
                continue;
            }
            if placed.public {
                shown.push((path, &placed.node));
            } else if placed.node == Node::Directory {
                hidden = Some(format!("{path}/"));
            }
        }
        shown
    }

    fn add(
        &mut self,
        path: &str,
        entry: &mut Entry<'_, impl Read>,
        store: &mut dyn FnMut(&mut dyn Read) -> io::Result<Digest>,
    ) -> io::Result<()> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = self.resolve(parent)?;
        if name == OPAQUE {
            self.remove_lower(&parent, false);
            return Ok(());
        }
        if let Some(name) = name.strip_prefix(WHITEOUT) {
            self.remove_lower(&join(&parent, name), true);
            return Ok(());
        }
        let mode = entry.header().mode()?;
        let (node, public) = match entry.header().entry_type() {
            EntryType::Directory => (Node::Directory, mode & 0o005 == 0o005),
            EntryType::Symlink => (Node::Symlink(target(entry)?), true),
            EntryType::Link => {
                let Some(placed) = self.linked(&target(entry)?)? else { return Ok(()) };
                (placed.node, placed.public)
            }
            EntryType::Regular | EntryType::Continuous => {
                let digest = store(entry)?;
                (Node::File { digest, executable: mode & 0o111 != 0 }, mode & 0o004 != 0)
            }
            // Devices and fifos: a sandbox has its own.
            _ => return Ok(()),
        };
        self.make_directories(&parent);
        self.put(join(&parent, name), node, public);
        Ok(())
    }

    fn put(&mut self, path: String, node: Node, public: bool) {
        if node != Node::Directory {
            self.remove_where(&path, true, |_| true);
        }
        self.nodes.insert(path, Placed { node, public, layer: self.layers });
    }

    /// The target of a hard link; `None` if the import left it out.
    fn linked(&self, target: &str) -> io::Result<Option<Placed>> {
        let Some(target) = clean(Path::new(target))? else { return Ok(None) };
        let (parent, name) = target.rsplit_once('/').unwrap_or(("", &target));
        Ok(self.nodes.get(&join(&self.resolve(parent)?, name)).cloned())
    }

    /// The directories that a layer takes for granted.
    fn make_directories(&mut self, path: &str) {
        let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
        for directory in ends.map(|end| &path[..end]).filter(|directory| !directory.is_empty()) {
            let there = self.nodes.get(directory).map(|placed| &placed.node);
            if there != Some(&Node::Directory) {
                self.put(directory.to_owned(), Node::Directory, true);
            }
        }
    }

    /// Takes away what lower layers have below `path`, and at it.
    fn remove_lower(&mut self, path: &str, itself: bool) {
        let layer = self.layers;
        self.remove_where(path, itself, |placed| placed.layer < layer);
    }

    fn remove_where(&mut self, path: &str, itself: bool, condition: impl Fn(&Placed) -> bool) {
        let below = if path.is_empty() { String::new() } else { format!("{path}/") };
        let range = self.nodes.range(below.clone()..).take_while(|(it, _)| it.starts_with(&below));
        let mut removed: Vec<String> =
            range.filter(|(_, placed)| condition(placed)).map(|(path, _)| path.clone()).collect();
        if itself && self.nodes.get(path).is_some_and(&condition) {
            removed.push(path.to_owned());
        }
        for path in removed {
            self.nodes.remove(&path);
        }
    }

    /// The path of a directory without symlinks, as the image's own system would find it: layers
    /// name files below `lib` also where that is a link to `usr/lib`.
    fn resolve(&self, path: &str) -> io::Result<String> {
        let mut rest: Vec<&str> = path.split('/').rev().collect();
        let mut resolved = String::new();
        let mut links = 0;
        while let Some(name) = rest.pop() {
            match name {
                "" | "." => {}
                ".." => resolved.truncate(resolved.rfind('/').unwrap_or(0)),
                name => {
                    let next = join(&resolved, name);
                    match self.nodes.get(&next).map(|placed| &placed.node) {
                        Some(Node::Symlink(target)) => {
                            links += 1;
                            if target.starts_with('/') {
                                resolved.clear();
                            }
                            rest.extend(target.split('/').rev());
                        }
                        _ => resolved = next,
                    }
                }
            }
            if links > MAX_LINKS {
                return Err(io::Error::other(format!("{path}: too many symbolic links")));
            }
        }
        Ok(resolved)
    }
}

fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_owned() } else { format!("{parent}/{name}") }
}

fn target(entry: &Entry<'_, impl Read>) -> io::Result<String> {
    let name = entry.link_name_bytes().unwrap_or_default();
    String::from_utf8(name.into_owned())
        .map_err(|_| io::Error::other("the target of a link is not UTF-8"))
}

/// A relative path without `.`; `None` for the root itself and for names that are not UTF-8.
fn clean(path: &Path) -> io::Result<Option<String>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => match name.to_str() {
                Some(name) => names.push(name),
                None => return Ok(None),
            },
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::Error::other(format!("{} leads out of the image", path.display())));
            }
        }
    }
    Ok((!names.is_empty()).then(|| names.join("/")))
}

/// A layer's archive, whatever it is compressed with: media types are many, compressions are few.
fn decoder<'a>(layer: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    const GZIP: &[u8] = &[0x1f, 0x8b];
    const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
    let mut layer = BufReader::with_capacity(256 << 10, layer);
    let start = layer.fill_buf()?;
    if start.starts_with(GZIP) {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(layer)));
    }
    if start.starts_with(ZSTD) {
        return Ok(Box::new(zstd::Decoder::with_buffer(layer)?));
    }
    Ok(Box::new(layer))
}

#[cfg(test)]
mod tests {
    use model::DigestFunction;

    use super::*;

    /// A layer of files, directories (`name/`), links (`name -> target`, `name == target`), with a
    /// `!` before those that not everyone may read.
    fn layer(lines: &[&str]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for line in lines {
            let mut header = tar::Header::new_gnu();
            let (line, private) =
                line.strip_prefix('!').map_or((*line, false), |line| (line, true));
            header.set_mode(if private { 0o750 } else { 0o755 });
            header.set_size(0);
            let link = [(" -> ", EntryType::Symlink), (" == ", EntryType::Link)];
            let link = link.iter().find_map(|(sign, kind)| Some((line.split_once(sign)?, *kind)));
            if let Some(((path, target), kind)) = link {
                header.set_entry_type(kind);
                builder.append_link(&mut header, path, target).unwrap();
            } else {
                let kind = EntryType::Regular;
                header.set_entry_type(if line.ends_with('/') {
                    EntryType::Directory
                } else {
                    kind
                });
                builder.append_data(&mut header, line, io::empty()).unwrap();
            }
        }
        builder.into_inner().unwrap()
    }

    fn files(layers: &[&[&str]]) -> io::Result<Vec<String>> {
        let mut files = Files::default();
        for lines in layers {
            let digest = Digest::empty(DigestFunction::Sha256);
            files.apply(&*layer(lines), &mut |_| Ok(digest))?;
        }
        let shown = files.public().into_iter().map(|(path, node)| match node {
            Node::Directory => format!("{path}/"),
            Node::File { .. } => path.to_owned(),
            Node::Symlink(target) => format!("{path} -> {target}"),
        });
        Ok(shown.collect())
    }

    fn check(layers: &[&[&str]], expected: &[&str]) {
        assert_eq!(files(layers).unwrap(), expected, "{layers:?}");
    }

    #[test]
    fn later_layers_go_over_earlier_ones() {
        check(&[&["a/", "a/b"], &["a/c", "d"]], &["a/", "a/b", "a/c", "d"]);
        check(&[&["a/", "a/b"], &["a"]], &["a"]);
        check(&[&["a"], &["a/b"]], &["a/", "a/b"]);
        check(&[&["./a/", "./b"]], &["a/", "b"]);
    }

    #[test]
    fn whiteouts_take_away_what_was_below() {
        check(&[&["a/b", "a/c"], &["a/.wh.b"]], &["a/", "a/c"]);
        check(&[&["a/b/c", "ab"], &[".wh.a"]], &["ab"]);
        check(&[&["a"], &["a", ".wh.a"]], &["a"]);
        check(&[&["a/b"], &["a/new", "a/.wh..wh..opq"]], &["a/", "a/new"]);
        check(&[&["a/b", "ab"], &["a/.wh..wh..opq"]], &["a/", "ab"]);
        check(&[&["a"], &[".wh.never"]], &["a"]);
        check(&[&["a"], &[".wh..wh..opq"]], &[]);
    }

    #[test]
    fn directories_are_found_through_links() {
        check(
            &[&["usr/lib/", "lib -> usr/lib"], &["lib/a", "lib/.wh.b"]],
            &["lib -> usr/lib", "usr/", "usr/lib/", "usr/lib/a"],
        );
        check(&[&["x -> /../..", "x/a"]], &["a", "x -> /../.."]);
        assert!(files(&[&["a -> b", "b -> a", "a/c"]]).is_err());
    }

    #[test]
    fn hard_links_are_files() {
        check(&[&["a", "b == a", "c == /b"]], &["a", "b", "c"]);
        check(&[&["b == never"]], &[]);
    }

    #[test]
    fn what_not_everyone_may_read_is_left_out() {
        check(&[&["!secret", "a", "b == secret"]], &["a"]);
        check(&[&["!d/", "d/a", "d!", "da"]], &["d!", "da"]);
    }

    #[test]
    fn nothing_leads_out() {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..4].copy_from_slice(b"../a");
        header.set_size(0);
        header.set_mode(0o644);
        header.set_cksum();
        let mut builder = tar::Builder::new(Vec::new());
        builder.append(&header, io::empty()).unwrap();
        let layer = builder.into_inner().unwrap();
        let digest = Digest::empty(DigestFunction::Sha256);
        assert!(Files::default().apply(&*layer, &mut |_| Ok(digest)).is_err());
    }

    #[test]
    fn compressions_are_told_apart() {
        let plain = layer(&["a"]);
        let zstd = zstd::encode_all(&*plain, 1).unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut gzip, &plain).unwrap();
        for packed in [plain, zstd, gzip.finish().unwrap()] {
            let mut files = Files::default();
            let digest = Digest::empty(DigestFunction::Sha256);
            files.apply(&*packed, &mut |_| Ok(digest)).unwrap();
            assert_eq!(files.public().len(), 1);
        }
    }
}
