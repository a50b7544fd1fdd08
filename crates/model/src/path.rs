//! A relative path that cannot leave the directory it is relative to.
//!
//! Purely lexical: whether a component is a symlink is for those to ask who open it.

use std::fmt;

use crate::directory::MAX_NAME_BYTES;

/// The longest path in bytes; with its NUL it fills Linux's `PATH_MAX`.
pub const MAX_PATH_BYTES: usize = 4095;
/// The most components of a path, and the most levels of an input tree: real trees stay below 40,
/// and whoever walks one can keep a descriptor per level.
pub const MAX_PATH_DEPTH: usize = 128;

/// A clean relative path: `/` between components, none of them empty, `.` or `..`, no NUL.
///
/// The empty path is the root itself. Components are at most 255 bytes, there are at most
/// [`MAX_PATH_DEPTH`] of them, and the whole is at most [`MAX_PATH_BYTES`] long.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RelPath(Box<str>);

/// An error of a text that is not a clean relative path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("path {path:?} {problem}")]
pub struct PathError {
    /// The path as it was given; its first 128 characters when it is longer.
    pub path: String,
    /// The problem with it.
    pub problem: PathProblem,
}

/// The problem with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathProblem {
    /// It starts with a slash.
    #[error("is absolute")]
    Absolute,
    /// Two slashes follow each other, or it ends in one.
    #[error("has an empty component")]
    EmptyComponent,
    /// It has a `.` or `..` component where those are not allowed.
    #[error("has a \".\" or \"..\" component")]
    DotComponent,
    /// Its `..` components lead above the root.
    #[error("leads out of the input root")]
    Escapes,
    /// It has a NUL byte.
    #[error("has a NUL byte")]
    Nul,
    /// It is longer than [`MAX_PATH_BYTES`].
    #[error("is longer than {MAX_PATH_BYTES} bytes")]
    TooLong,
    /// A component is longer than a file name may be.
    #[error("has a component of more than {MAX_NAME_BYTES} bytes")]
    ComponentTooLong,
    /// It has more than [`MAX_PATH_DEPTH`] components.
    #[error("has more than {MAX_PATH_DEPTH} components")]
    TooDeep,
}

impl RelPath {
    /// The empty path.
    pub fn root() -> Self {
        Self::default()
    }

    /// Takes a path that is clean already; `.` and `..` are refused.
    pub fn parse(path: &str) -> Result<Self, PathError> {
        Self::check(path).map_err(|problem| PathError::new(path, problem))?;
        Ok(Self(path.into()))
    }

    /// The path that `client_path` means when it is read in the directory `base`.
    ///
    /// REAPI gives output paths relative to the working directory, and some clients send `.` and
    /// `..` in them. They are resolved by the text, and may not lead above the root.
    pub fn resolve(base: &Self, client_path: &str) -> Result<Self, PathError> {
        Self::resolve_components(base, client_path)
            .map_err(|problem| PathError::new(client_path, problem))
    }

    fn resolve_components(base: &Self, client_path: &str) -> Result<Self, PathProblem> {
        if client_path.starts_with('/') {
            return Err(PathProblem::Absolute);
        }
        if client_path.len() > MAX_PATH_BYTES {
            return Err(PathProblem::TooLong);
        }
        let mut resolved: Vec<&str> = base.components().collect();
        for component in split(client_path) {
            match component {
                "" => return Err(PathProblem::EmptyComponent),
                "." => {}
                ".." => {
                    resolved.pop().ok_or(PathProblem::Escapes)?;
                }
                name => resolved.push(name),
            }
        }
        let path = resolved.join("/");
        Self::check(&path)?;
        Ok(Self(path.into()))
    }

    fn check(path: &str) -> Result<(), PathProblem> {
        if path.starts_with('/') {
            return Err(PathProblem::Absolute);
        }
        if path.len() > MAX_PATH_BYTES {
            return Err(PathProblem::TooLong);
        }
        let mut depth = 0;
        for component in split(path) {
            check_component(component)?;
            depth += 1;
        }
        if depth > MAX_PATH_DEPTH {
            return Err(PathProblem::TooDeep);
        }
        Ok(())
    }

    /// The path as text; empty for the root.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path as bytes; empty for the root.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Whether this is the empty path.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The components from the root on; none for the root itself.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        split(&self.0)
    }

    /// The number of components.
    pub fn depth(&self) -> usize {
        self.components().count()
    }

    /// The last component; `None` for the root.
    pub fn file_name(&self) -> Option<&str> {
        self.components().next_back()
    }

    /// The path without its last component; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let end = self.0.rfind('/').unwrap_or(0);
        Some(Self(self.0[..end].into()))
    }

    /// `below` read in this directory; fails where the whole grows too long or too deep.
    pub fn join(&self, below: &Self) -> Result<Self, PathError> {
        if self.is_root() || below.is_root() {
            return Ok(if self.is_root() { below } else { self }.clone());
        }
        Self::parse(&format!("{self}/{below}"))
    }

    /// Whether this path is `above` or lies below it.
    pub fn starts_with(&self, above: &Self) -> bool {
        above.is_root()
            || self
                .0
                .strip_prefix(&*above.0)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// The components of `path`: none where it is empty, unlike `str::split`.
fn split(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    let is_root = path.is_empty();
    path.split('/').filter(move |_| !is_root)
}

fn check_component(component: &str) -> Result<(), PathProblem> {
    match component {
        "" => Err(PathProblem::EmptyComponent),
        "." | ".." => Err(PathProblem::DotComponent),
        _ if component.contains('\0') => Err(PathProblem::Nul),
        _ if component.len() > MAX_NAME_BYTES => Err(PathProblem::ComponentTooLong),
        _ => Ok(()),
    }
}

impl PathError {
    /// Error texts travel to clients and logs: a path of megabytes must not travel with them.
    fn new(path: &str, problem: PathProblem) -> Self {
        Self { path: path.chars().take(128).collect(), problem }
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text).unwrap()
    }

    #[test]
    fn parse() {
        use PathProblem::*;
        let deepest = ["a"; MAX_PATH_DEPTH].join("/");
        let check = |text: &str, expected: Result<(), PathProblem>| {
            let parsed = RelPath::parse(text).map_err(|error| error.problem);
            assert_eq!(parsed, expected.map(|()| RelPath(text.into())), "{text:?}");
        };
        check("", Ok(()));
        check("a", Ok(()));
        check("a/b.c/...", Ok(()));
        check(&deepest, Ok(()));
        check(&"n".repeat(255), Ok(()));
        check("/", Err(Absolute));
        check("/a", Err(Absolute));
        check("a//b", Err(EmptyComponent));
        check("a/", Err(EmptyComponent));
        check(".", Err(DotComponent));
        check("a/../b", Err(DotComponent));
        check("a\0b", Err(Nul));
        check(&"n".repeat(256), Err(ComponentTooLong));
        check(&format!("{deepest}/a"), Err(TooDeep));
        check(&vec!["n".repeat(200); 21].join("/"), Err(TooLong));
    }

    #[test]
    fn resolve() {
        let check = |base: &str, text: &str, expected: Result<&str, PathProblem>| {
            let resolved = RelPath::resolve(&path(base), text).map_err(|error| error.problem);
            assert_eq!(resolved, expected.map(path), "{text:?} in {base:?}");
        };
        check("", "", Ok(""));
        check("a/b", "", Ok("a/b"));
        check("a/b", ".", Ok("a/b"));
        check("a/b", "./c/./d", Ok("a/b/c/d"));
        check("a/b", "..", Ok("a"));
        check("a/b", "../..", Ok(""));
        check("a/b", "../../c/../d", Ok("d"));
        check("a/b", "../../..", Err(PathProblem::Escapes));
        check("", "..", Err(PathProblem::Escapes));
        check("", "a/../../a", Err(PathProblem::Escapes));
        check("a", "/b", Err(PathProblem::Absolute));
        check("a", "b/", Err(PathProblem::EmptyComponent));
        check("a", "b\0", Err(PathProblem::Nul));
        check("a", &"../".repeat(5000), Err(PathProblem::TooLong));
        check(&["a"; 128].join("/"), "b", Err(PathProblem::TooDeep));
    }

    #[test]
    fn taking_apart_and_putting_together() {
        assert_eq!(path("a/b/c").parent(), Some(path("a/b")));
        assert_eq!(path("a").parent(), Some(RelPath::root()));
        assert_eq!(RelPath::root().parent(), None);
        assert_eq!(path("a/b").file_name(), Some("b"));
        assert_eq!(RelPath::root().file_name(), None);
        assert_eq!(RelPath::root().components().count(), 0);
        assert_eq!(path("a/b").components().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(path("a").join(&path("b/c")), Ok(path("a/b/c")));
        assert_eq!(RelPath::root().join(&path("b")), Ok(path("b")));
        assert_eq!(path("a").join(&RelPath::root()), Ok(path("a")));
        assert!(path(&["a"; 128].join("/")).join(&path("b")).is_err());
        assert!(path("a/b").starts_with(&path("a")));
        assert!(path("a/b").starts_with(&RelPath::root()));
        assert!(!path("ab").starts_with(&path("a")));
    }

    #[test]
    fn an_error_does_not_carry_a_huge_path() {
        let error = RelPath::parse(&"x".repeat(1_000_000)).unwrap_err();
        assert!(error.to_string().len() < 300);
    }
}
