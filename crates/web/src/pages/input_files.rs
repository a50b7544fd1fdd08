//! The search for input files by a part of their path: a walk through the input trees of the last actions.
//!
//! No index of names is kept: a build has millions of them, of which few are ever asked for. The trees of a build share
//! most of their directories, so a search reads each of those once. It ends after some time and says how far it came.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use history::reader::Tree;
use model::{Digest, Directory, Entry};
use store::{Store, StoreError};

use super::message;

/// The time of a search: a part of the 100 ms that a page may take.
const TIME: Duration = Duration::from_millis(40);

/// Directories that a search reads and remembers the matches of, at some 100 bytes each.
const DIRECTORIES_MAX: usize = 20_000;

/// Matches that are remembered for a directory with all below it.
const MATCHES_MAX: usize = 20;

/// Different files that a search lists.
const FILES_MAX: usize = 50;

/// Levels of directories that are looked at. Sources have a dozen.
const DEPTH_MAX: usize = 64;

/// A file of input trees.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InputFile {
    /// Its path from the root of the tree.
    pub(crate) path: String,
    /// Its content; `None` for a symbolic link.
    pub(crate) content: Option<Digest>,
    /// The number of the last record of an action with such a tree.
    pub(crate) last_event: i64,
    /// The number of trees among those of the search that have it.
    pub(crate) trees: usize,
}

/// The answer to a search.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// The files, those of the latest actions first.
    pub(crate) files: Vec<InputFile>,
    /// The number of trees that were looked through.
    pub(crate) trees: usize,
}

/// A file whose name matches, with its path from the directory that it was found in.
#[derive(Debug, Clone)]
struct Match {
    path: String,
    content: Option<Digest>,
}

/// Looks for files with `text` in their path and its part after the last `/` in their name. `trees` are those of the
/// last actions, the latest first. Directories that the store has no more are passed over.
pub(crate) fn search(store: &Store, trees: &[Tree], text: &str) -> Result<Answer, StoreError> {
    let read = |digest: &Digest| message(store, digest);
    search_until(&read, trees, text, Instant::now() + TIME)
}

type Read<'a> = &'a dyn Fn(&Digest) -> Result<Option<bytes::Bytes>, StoreError>;

fn search_until(
    read: Read<'_>,
    trees: &[Tree],
    text: &str,
    end: Instant,
) -> Result<Answer, StoreError> {
    let name = text.rsplit('/').next().unwrap_or_default();
    let mut walk = Walk { read, name, end, known: HashMap::new(), is_over: false };
    let mut answer = Answer::default();
    let mut places: HashMap<(String, Option<Digest>), usize> = HashMap::new();
    for tree in trees {
        let matches = walk.matches(&tree.root, 0)?;
        if walk.is_over {
            break;
        }
        answer.trees += 1;
        for Match { path, content } in matches.iter() {
            if !path.contains(text) {
                continue;
            }
            let key = (path.clone(), *content);
            if let Some(file) = places.get(&key).and_then(|place| answer.files.get_mut(*place)) {
                file.trees += 1;
            } else if answer.files.len() < FILES_MAX {
                places.insert(key, answer.files.len());
                let (path, content) = (path.clone(), *content);
                answer.files.push(InputFile {
                    path,
                    content,
                    last_event: tree.last_event,
                    trees: 1,
                });
            }
        }
    }
    Ok(answer)
}

struct Walk<'a> {
    read: Read<'a>,
    name: &'a str,
    end: Instant,
    known: HashMap<Digest, Rc<[Match]>>,
    /// Whether the search has to end before it looked at everything.
    is_over: bool,
}

impl Walk<'_> {
    /// The matches in a directory and below it.
    fn matches(&mut self, root: &Digest, depth: usize) -> Result<Rc<[Match]>, StoreError> {
        if let Some(known) = self.known.get(root) {
            return Ok(Rc::clone(known));
        }
        self.is_over |= self.known.len() >= DIRECTORIES_MAX || Instant::now() >= self.end;
        if self.is_over || depth > DEPTH_MAX {
            return Ok(Rc::default());
        }
        let bytes = (self.read)(root)?;
        let directory = bytes.and_then(|it| Directory::parse(it, root.function()).ok());
        let mut found = Vec::new();
        for entry in directory.iter().flat_map(Directory::entries) {
            let name = String::from_utf8_lossy(entry.name());
            let content = match entry {
                Entry::Directory { digest, .. } => {
                    let below = self.matches(&digest, depth + 1)?;
                    let paths = below.iter().map(|it| Match {
                        path: format!("{name}/{}", it.path),
                        content: it.content,
                    });
                    found.extend(paths.take(MATCHES_MAX - found.len()));
                    continue;
                }
                Entry::File { digest, .. } => Some(digest),
                Entry::Symlink { .. } => None,
            };
            if found.len() < MATCHES_MAX && name.contains(self.name) {
                found.push(Match { path: name.into_owned(), content });
            }
        }
        let found: Rc<[Match]> = found.into();
        if !self.is_over {
            self.known.insert(*root, Rc::clone(&found));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use events::InputTotals;
    use model::proto::{self, Message as _};
    use model::{DigestFunction, proto::DirectoryNode, proto::FileNode};

    use super::*;

    /// A store of directories.
    #[derive(Default)]
    struct Directories(HashMap<Digest, Vec<u8>>);

    impl Directories {
        fn add(&mut self, files: &[&str], directories: &[(&str, Digest)]) -> Digest {
            let file = |name: &&str| FileNode {
                name: (*name).to_owned(),
                digest: Some(Digest::of(DigestFunction::Sha256, name.as_bytes()).to_proto()),
                ..FileNode::default()
            };
            let directory = |(name, digest): &(&str, Digest)| DirectoryNode {
                name: (*name).to_owned(),
                digest: Some(digest.to_proto()),
            };
            let message = proto::Directory {
                files: files.iter().map(file).collect(),
                directories: directories.iter().map(directory).collect(),
                ..proto::Directory::default()
            };
            let bytes = message.encode_to_vec();
            let digest = Digest::of(DigestFunction::Sha256, &bytes);
            self.0.insert(digest, bytes);
            digest
        }
    }

    fn tree(root: Digest, last_event: i64) -> Tree {
        Tree { root, totals: InputTotals { files: 0, bytes: 0 }, last_event }
    }

    #[test]
    fn files_are_found_by_their_names() {
        let mut all = Directories::default();
        let shared = all.add(&["map.h", "set.h"], &[]);
        let gone = Digest::of(DigestFunction::Sha256, b"gone");
        let first = all.add(&["a.c"], &[("gone", gone), ("include", shared)]);
        let second = all.add(&["b.c", "map.h"], &[("include", shared)]);
        let trees = [tree(second, 9), tree(first, 5)];
        let reads = Cell::new(0);
        let read = |digest: &Digest| {
            reads.set(reads.get() + 1);
            Ok(all.0.get(digest).map(|bytes| bytes.clone().into()))
        };
        let later = Instant::now() + Duration::from_secs(600);
        let check = |text: &str, expected: &[(&str, i64, usize)]| {
            let answer = search_until(&read, &trees, text, later).unwrap();
            let found = answer.files.iter().map(|it| (&*it.path, it.last_event, it.trees));
            assert_eq!(found.collect::<Vec<_>>(), expected, "{text}");
            assert_eq!(answer.trees, 2);
        };
        check("a.c", &[("a.c", 5, 1)]);
        check("set", &[("include/set.h", 9, 2)]);
        check("map.h", &[("include/map.h", 9, 2), ("map.h", 9, 1)]);
        check("include/map", &[("include/map.h", 9, 2)]);
        check("clude/map.h", &[("include/map.h", 9, 2)]);
        check("include", &[]);
        check("c.c", &[]);
        assert_eq!(reads.get(), 7 * 4, "each directory once for a search");
    }

    #[test]
    fn a_search_has_an_end() {
        let mut all = Directories::default();
        let mut root = all.add(&["deep"], &[]);
        for _ in 0..DEPTH_MAX * 2 {
            root = all.add(&[], &[("d", root)]);
        }
        let many: Vec<String> = (0..100).map(|number| format!("many{number:03}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let wide = all.add(&many, &[]);
        let read = |digest: &Digest| Ok(all.0.get(digest).map(|bytes| bytes.clone().into()));
        let later = Instant::now() + Duration::from_secs(600);
        let trees = [tree(root, 2), tree(wide, 1)];
        let search = |text: &str, end| search_until(&read, &trees, text, end).unwrap();
        assert!(search("deep", later).files.is_empty(), "too deep");
        assert_eq!(search("many", later).files.len(), MATCHES_MAX);
        let late = search("many", Instant::now());
        assert_eq!((late.files.len(), late.trees), (0, 0));
    }
}
