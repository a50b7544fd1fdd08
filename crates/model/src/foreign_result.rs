//! Results that were made elsewhere, by a client or another server: what is checked of one, and what is kept.
//!
//! A client that takes a cached result writes to the paths in it. So a path that leaves the working
//! directory, and data that is not what its digest says, must not get into the cache.

use bytes::Bytes;

use crate::digest::Digest;
use crate::digest_error::DigestError;
use crate::digest_function::DigestFunction;
use crate::directory::MAX_SYMLINK_TARGET_BYTES;
use crate::path::{PathError, RelPath};
use crate::proto::{self, ActionResult};
use crate::result::referenced_digests;

/// Why a result of others must not get into the cache.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResultRefused {
    /// There is no result in it.
    #[error("action_result: the result is missing")]
    Missing,
    /// The result names a blob by something that is no digest.
    #[error("action_result")]
    Digest(#[from] DigestError),
    /// The path of an output leaves the working directory or is malformed.
    #[error("action_result: an output")]
    Path(#[from] PathError),
    /// An output file or symlink has the path of the working directory itself.
    #[error("action_result: the path of an output file or symlink is empty")]
    EmptyPath,
    /// The target of a symlink has a NUL byte or is longer than a path may be.
    #[error("action_result: the symlink {path:?} has an impossible target")]
    SymlinkTarget {
        /// The path of the symlink.
        path: RelPath,
    },
    /// The data inside of the result is not what the digest beside it says.
    #[error("action_result: the data of {what} is not {expected}")]
    Data {
        /// The stream, or the path of the file.
        what: String,
        /// The digest beside the data.
        expected: Digest,
    },
}

/// Checks the paths, the digests, and the data inside of a result against its digests.
///
/// # Errors
/// [`ResultRefused`] for the first mistake.
pub fn check(result: &ActionResult, function: DigestFunction) -> Result<(), ResultRefused> {
    referenced_digests(result, function)?;
    for file in &result.output_files {
        let path = entry_path(&file.path)?;
        check_data(path.as_str(), &file.contents, file.digest.as_ref(), function)?;
    }
    for directory in &result.output_directories {
        RelPath::parse(&directory.path)?;
    }
    check_symlinks(result)?;
    check_data("stdout", &result.stdout_raw, result.stdout_digest.as_ref(), function)?;
    check_data("stderr", &result.stderr_raw, result.stderr_digest.as_ref(), function)
}

/// The path of an output that is not a directory.
fn entry_path(path: &str) -> Result<RelPath, ResultRefused> {
    let path = RelPath::parse(path)?;
    if path.is_root() { Err(ResultRefused::EmptyPath) } else { Ok(path) }
}

#[expect(deprecated, reason = "clients of API 2.0 name symlinks in two lists")]
fn check_symlinks(result: &ActionResult) -> Result<(), ResultRefused> {
    let lists =
        [&result.output_symlinks, &result.output_file_symlinks, &result.output_directory_symlinks];
    for proto::OutputSymlink { path, target, .. } in lists.into_iter().flatten() {
        let path = entry_path(path)?;
        if target.len() > MAX_SYMLINK_TARGET_BYTES || target.contains('\0') {
            return Err(ResultRefused::SymlinkTarget { path });
        }
    }
    Ok(())
}

fn check_data(
    what: &str,
    data: &[u8],
    digest: Option<&proto::Digest>,
    function: DigestFunction,
) -> Result<(), ResultRefused> {
    let Some(digest) = digest.filter(|_| !data.is_empty()) else { return Ok(()) };
    let expected = Digest::from_proto(digest, function)?;
    if Digest::of(function, data) != expected {
        return Err(ResultRefused::Data { what: what.to_owned(), expected });
    }
    Ok(())
}

/// The result as it is kept, without the data inside of it, which is in blobs as well. The data of a stream
/// that has no digest has to become a blob, and comes beside the result.
pub fn without_data(
    mut result: ActionResult,
    function: DigestFunction,
) -> (ActionResult, Vec<Bytes>) {
    let mut blobs = Vec::new();
    result.output_files.iter_mut().for_each(|file| file.contents.clear());
    for (raw, digest) in [
        (&mut result.stdout_raw, &mut result.stdout_digest),
        (&mut result.stderr_raw, &mut result.stderr_digest),
    ] {
        let data = std::mem::take(raw);
        if digest.is_none() && !data.is_empty() {
            *digest = Some(Digest::of(function, &data).to_proto());
            blobs.push(data);
        }
    }
    (result, blobs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::PathProblem;

    const FUNCTION: DigestFunction = DigestFunction::Sha256;

    fn digest(content: &[u8]) -> Option<proto::Digest> {
        Some(Digest::of(FUNCTION, content).to_proto())
    }

    fn with_file(path: &str) -> ActionResult {
        let path = path.to_owned();
        let file = proto::OutputFile { path, digest: digest(b"x"), ..Default::default() };
        ActionResult { output_files: vec![file], ..Default::default() }
    }

    fn with_directory(path: &str) -> ActionResult {
        let (path, tree_digest) = (path.to_owned(), digest(b"tree"));
        let directory = proto::OutputDirectory { path, tree_digest, ..Default::default() };
        ActionResult { output_directories: vec![directory], ..Default::default() }
    }

    #[expect(deprecated, reason = "the two older lists must be checked too")]
    fn with_symlink(path: &str, target: &str, list: usize) -> ActionResult {
        let mut result = ActionResult::default();
        let symlink = proto::OutputSymlink {
            path: path.to_owned(),
            target: target.to_owned(),
            ..Default::default()
        };
        let lists = [
            &mut result.output_symlinks,
            &mut result.output_file_symlinks,
            &mut result.output_directory_symlinks,
        ];
        lists[list].push(symlink);
        result
    }

    #[test]
    fn paths_stay_below_the_working_directory() {
        use PathProblem::{Absolute, DotComponent, EmptyComponent, Nul};
        for (path, problem) in [
            ("../../etc/cron.d/x", DotComponent),
            ("a/../../b", DotComponent),
            ("/etc/passwd", Absolute),
            ("a//b", EmptyComponent),
            ("a/", EmptyComponent),
            ("a\0b", Nul),
        ] {
            let symlinks = (0..3).map(|list| with_symlink(path, "t", list));
            for result in [with_file(path), with_directory(path)].into_iter().chain(symlinks) {
                let refused = check(&result, FUNCTION).unwrap_err();
                let expected = PathError { path: path.to_owned(), problem };
                assert_eq!(refused, ResultRefused::Path(expected));
                let text = ::chain::Chain(&refused).to_string();
                assert!(text.contains(&format!("{path:?}")), "{text}");
            }
        }
        assert_eq!(check(&with_file(""), FUNCTION), Err(ResultRefused::EmptyPath));
        assert_eq!(check(&with_symlink("", "t", 0), FUNCTION), Err(ResultRefused::EmptyPath));
        for good in ["out", "bazel-out/k8-fastbuild/bin/a b/…"] {
            assert_eq!(check(&with_file(good), FUNCTION), Ok(()));
        }
        assert_eq!(check(&with_directory(""), FUNCTION), Ok(()));
    }

    #[test]
    fn targets_of_symlinks_can_be_made() {
        let long = "t".repeat(MAX_SYMLINK_TARGET_BYTES + 1);
        for (target, is_good) in [("../x", true), ("/x", true), ("a\0b", false), (&long, false)] {
            let outcome = check(&with_symlink("link", target, 0), FUNCTION);
            let path = RelPath::parse("link").unwrap();
            let expected =
                if is_good { Ok(()) } else { Err(ResultRefused::SymlinkTarget { path }) };
            assert_eq!(outcome, expected);
        }
    }

    #[test]
    fn data_is_what_its_digest_says() {
        let good = ActionResult {
            stdout_raw: "out".into(),
            stdout_digest: digest(b"out"),
            stderr_raw: "no digest".into(),
            ..with_file("file")
        };
        assert_eq!(check(&good, FUNCTION), Ok(()));
        let mut file = good.clone();
        file.output_files[0].contents = "y".into();
        let stdout = ActionResult { stdout_raw: "other".into(), ..good.clone() };
        let stderr = ActionResult { stderr_digest: digest(b"other"), ..good };
        for (result, expected) in [(file, "file"), (stdout, "stdout"), (stderr, "stderr")] {
            match check(&result, FUNCTION) {
                Err(ResultRefused::Data { what, .. }) => assert_eq!(what, expected),
                other => panic!("{expected}: {other:?}"),
            }
        }
    }

    #[test]
    fn data_without_a_digest_becomes_a_blob() {
        let result = ActionResult {
            stdout_raw: "out".into(),
            stderr_raw: "err".into(),
            stderr_digest: digest(b"err"),
            ..with_file("file")
        };
        let (kept, blobs) = without_data(result, FUNCTION);
        assert_eq!(blobs, [Bytes::from("out")]);
        assert_eq!(kept.stdout_digest, digest(b"out"));
        assert!(kept.stdout_raw.is_empty() && kept.stderr_raw.is_empty());
    }
}
