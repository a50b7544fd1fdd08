//! One configuration file: TOML, with one key for each setting.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The largest file, in bytes. A hand-written configuration has a few kilobytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Permission bits of a file that others than its owner may write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// One key of a file with its value, not yet checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) values: Vec<Value>,
    /// From 1.
    pub(crate) line: usize,
}

/// A value as a flag has it: text, or present and absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    Switch(bool),
}

/// An error of a configuration file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file could not be read.
    #[error("reading the configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The file is there, and this user may not read it.
    #[error(
        "the configuration file {} may not be read by the user that starts the server; allow that, or name \
         another file with --config or ACTIOND_CONFIG",
        .0.display()
    )]
    Denied(PathBuf),
    /// The file is larger than 1 MiB.
    #[error("the configuration file {} is larger than {MAX_FILE_BYTES} bytes", .0.display())]
    TooLarge(PathBuf),
    /// The owner of the file is another user, who can change what this process does.
    #[error(
        "the configuration file {} belongs to another user; it must belong to root or to the user that starts the \
         server",
        .0.display()
    )]
    NotOurs(PathBuf),
    /// Other users than the owner can change the file, as where logins have the umask 002.
    #[error(
        "the configuration file {path} can be changed by its group or by everybody, and only its owner may; run \
         `chmod go-w {path}`",
        path = .0.display()
    )]
    Writable(PathBuf),
    /// In a user namespace, the owner can't be told from other users.
    #[error(
        "the configuration file {} belongs to root or to another user, which a server in a user namespace can't \
         tell apart; start the server again to have it read, or give it to the user that starts the server",
        .0.display()
    )]
    UnknownOwner(PathBuf),
    /// The text is not TOML.
    #[error("{}:{line}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The parser's error.
        message: String,
    },
    /// The value has a type that no setting has.
    #[error(
        "{}:{line}: {key}: expected text, a whole number, true, false, or a list of these",
        path.display()
    )]
    Type {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key.
        key: String,
    },
}

/// Reads a file. `user` is the effective user of this process.
pub(crate) fn read(path: &Path, user: u32) -> Result<Vec<Entry>, FileError> {
    let failed = |source| FileError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied if path.symlink_metadata().is_ok() => {
            FileError::Denied(path.to_owned())
        }
        _ => failed(error),
    })?;
    let metadata = file.metadata().map_err(failed)?;
    let is_ours = metadata.uid() == 0 || metadata.uid() == user;
    if metadata.is_file() && sys::user_namespace::is_unknown_owner(metadata.uid()) {
        return Err(FileError::UnknownOwner(path.to_owned()));
    }
    if metadata.is_file() && !is_ours {
        return Err(FileError::NotOurs(path.to_owned()));
    }
    if metadata.is_file() && metadata.mode() & WRITABLE_BY_OTHERS != 0 {
        return Err(FileError::Writable(path.to_owned()));
    }
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(FileError::TooLarge(path.to_owned()));
    }
    parse(path, &text)
}

/// Parses the text of the file at `path`.
pub(crate) fn parse(path: &Path, text: &str) -> Result<Vec<Entry>, FileError> {
    let line_of =
        |offset: usize| 1 + text.bytes().take(offset).filter(|&byte| byte == b'\n').count();
    let table = DeTable::parse(text).map_err(|error| FileError::Syntax {
        path: path.to_owned(),
        line: line_of(error.span().map_or(0, |span| span.start)),
        message: error.message().to_owned(),
    })?;
    let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
        let key_text: &std::borrow::Cow<'_, str> = key.get_ref();
        let line = line_of(key.span().start);
        let key = key_text.clone().into_owned();
        match values(value.get_ref()) {
            Some(values) => Ok(Entry { key, values, line }),
            None => Err(FileError::Type { path: path.to_owned(), line, key }),
        }
    };
    let mut entries = table.get_ref().iter().map(entry).collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(|entry| entry.line);
    Ok(entries)
}

fn values(value: &DeValue<'_>) -> Option<Vec<Value>> {
    match value {
        DeValue::Array(values) => {
            values.iter().map(|value| single(value.get_ref())).collect::<Option<Vec<_>>>()
        }
        value => single(value).map(|value| vec![value]),
    }
}

fn single(value: &DeValue<'_>) -> Option<Value> {
    match value {
        DeValue::String(text) => Some(Value::Text(text.clone().into_owned())),
        // As it is written, without underscores: `10_000` is a number of flags too.
        DeValue::Integer(number) if number.radix() == 10 => {
            Some(Value::Text(number.as_str().replace('_', "")))
        }
        DeValue::Boolean(is_set) => Some(Value::Switch(*is_set)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn entries(text: &str) -> Result<Vec<Entry>, String> {
        parse(Path::new("c.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn keys_have_values_and_lines() {
        let text =
            "# comment\njobs = 4\n\nroot = '/srv'\nplatform = [\n 'a=b', 'c=d',\n]\nflag = true\n";
        let text_value = |text: &str| Value::Text(text.to_owned());
        let entry = |key: &str, line, values| Entry { key: key.to_owned(), values, line };
        let expected = [
            entry("jobs", 2, vec![text_value("4")]),
            entry("root", 4, vec![text_value("/srv")]),
            entry("platform", 5, vec![text_value("a=b"), text_value("c=d")]),
            entry("flag", 8, vec![Value::Switch(true)]),
        ];
        assert_eq!(entries(text), Ok(expected.to_vec()));
        assert_eq!(entries("a = 10_000").unwrap()[0].values, [text_value("10000")]);
        assert_eq!(entries(""), Ok(vec![]));
    }

    #[test]
    fn errors_name_file_line_and_key() {
        let check = |text: &str, expected: &[&str]| {
            let error = entries(text).unwrap_err();
            for part in expected {
                assert!(error.contains(part), "{part} in {error}");
            }
        };
        check("a = 1\nb = ", &["c.toml:2:"]);
        check("a = 1\na = 2", &["c.toml:2:"]);
        check("a = 1\n[table]\nb = 1", &["c.toml:2:", "table"]);
        check("\n\na = 1.5", &["c.toml:3:", "a:"]);
        check("a = [[1]]", &["c.toml:1:", "a:"]);
        check("a = 0x10", &["c.toml:1:", "a:"]);
        check("a = 2026-01-01", &["c.toml:1:", "a:"]);
    }

    #[test]
    fn a_file_that_others_can_write_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "jobs = 4\n").unwrap();
        let user = file.as_file().metadata().unwrap().uid();
        let with = |mode| {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(file.path(), permissions).unwrap();
            read(file.path(), user)
        };
        assert_eq!(with(0o644).unwrap().len(), 1);
        for mode in [0o666, 0o664, 0o646] {
            let error = with(mode).unwrap_err();
            assert!(matches!(error, FileError::Writable(_)), "{mode:o}: {error}");
            let cure = format!("`chmod go-w {}`", file.path().display());
            assert!(error.to_string().ends_with(&cure), "{error}");
        }
        let nowhere = file.path().join("nowhere");
        assert!(matches!(read(&nowhere, user), Err(FileError::Read { .. })));
        std::fs::write(file.path(), "#".repeat(2 << 20)).unwrap();
        assert!(matches!(with(0o600), Err(FileError::TooLarge(_))));
        assert_eq!(read(Path::new("/dev/null"), user).unwrap(), []);
    }
}
