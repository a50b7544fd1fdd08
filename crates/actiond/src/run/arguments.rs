//! The flags of `run`, and those that the server gets.

use std::ffi::{OsStr, OsString};

/// The flags of `run` itself; all others are of `serve`.
const SHARED: &str = "--shared";
const BAZELRC_OUT: &str = "--bazelrc-out";

/// The words before the command, sorted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Words {
    /// The flags of `serve`.
    pub(super) of_serve: Vec<OsString>,
}

impl Words {
    /// Takes the words after `run`, which clap has accepted.
    pub(super) fn split(words: Vec<OsString>) -> Self {
        let mut of_serve = Vec::new();
        let mut words = words.into_iter().take_while(|word| word != "--");
        while let Some(word) = words.next() {
            if word == BAZELRC_OUT {
                words.next();
            } else if word != SHARED && !starts_with(&word, &format!("{BAZELRC_OUT}=")) {
                of_serve.push(word);
            }
        }
        Self { of_serve }
    }
}

/// Whether one of the words is that flag of `serve`, with its value in it or after it.
pub(super) fn has_flag(words: &[OsString], flag: &str) -> bool {
    let with_value = format!("{flag}=");
    words.iter().any(|word| word == flag || starts_with(word, &with_value))
}

fn starts_with(word: &OsStr, start: &str) -> bool {
    word.as_encoded_bytes().starts_with(start.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_sorted() {
        let check = |words: &[&str], expected: &[&str]| {
            let words = words.iter().map(OsString::from).collect();
            assert_eq!(Words::split(words).of_serve, expected);
        };
        check(&["--", "bazel", "--root=x"], &[]);
        check(&["--root", "a", "--shared", "--jobs=2", "--", "true"], &["--root", "a", "--jobs=2"]);
        check(&["--bazelrc-out", "rc", "--root=a", "--", "true"], &["--root=a"]);
        check(&["--bazelrc-out=rc", "--root=a", "--", "true", "--", "x"], &["--root=a"]);
    }

    #[test]
    fn flags_are_found() {
        let words = ["--root=a", "--jobs", "2", "--listen-mode=600"].map(OsString::from);
        let found = ["--root", "--jobs", "--listen", "--http"].map(|flag| has_flag(&words, flag));
        assert_eq!(found, [true, true, false, false]);
    }
}
