//! Reads the files that decide who may do what: tokens, certificates and keys.
//!
//! Such a file must belong to root or to the user of this process, and no one else may be able to change
//! it. A file with a secret must not be readable by all users either. In a user namespace root's files can't be
//! told from those of most other users, and only files of this process's user are read.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// The largest file in bytes: a token file with about 8,000 principals, or some hundred certificates.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Permission bits of a file that others than its owner can change.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Permission bits of a file that every user can read.
const READABLE_BY_ALL: u32 = 0o004;

/// Whether other users may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// Hashes or certificates.
    Public,
    /// A private key. Its group may read it, as a service's group often has to.
    #[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "only TLS has private keys"))]
    Secret,
}

/// The reason why a file can't be trusted. No variant contains a part of the file.
#[derive(Debug, thiserror::Error)]
pub enum TrustedFileError {
    /// The file could not be read.
    #[error("reading {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The file is larger than 1 MiB.
    #[error("{} is larger than {MAX_FILE_BYTES} bytes", .0.display())]
    TooLarge(PathBuf),
    /// The owner of the file is another user, who can give itself rights.
    #[error(
        "{} belongs to another user; it must belong to root or to the user that starts the server",
        .0.display()
    )]
    NotOurs(PathBuf),
    /// Other users than the owner can change the file, as where logins have the umask 002.
    #[error(
        "{path} can be changed by its group or by everybody, and only its owner may; run `chmod go-w {path}`",
        path = .0.display()
    )]
    Writable(PathBuf),
    /// In a user namespace, the owner can't be told from other users.
    #[error(
        "{} belongs to root or to another user, which a server in a user namespace can't tell apart; give it to \
         the user that starts the server, or a copy of it",
        .0.display()
    )]
    UnknownOwner(PathBuf),
    /// Every user can read the secret.
    #[error("{} contains a private key that every user can read; chmod o-r it", .0.display())]
    Exposed(PathBuf),
}

/// Reads the file at `path`, following symlinks.
pub(crate) fn read(path: &Path, content: Content) -> Result<Vec<u8>, TrustedFileError> {
    let failed = |source| TrustedFileError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let status = rustix::fs::fstat(&file).map_err(|errno| failed(errno.into()))?;
    if sys::user_namespace::is_unknown_owner(status.st_uid) {
        return Err(TrustedFileError::UnknownOwner(path.to_owned()));
    }
    let is_ours = status.st_uid == 0 || status.st_uid == rustix::process::geteuid().as_raw();
    if !is_ours {
        return Err(TrustedFileError::NotOurs(path.to_owned()));
    }
    if status.st_mode & WRITABLE_BY_OTHERS != 0 {
        return Err(TrustedFileError::Writable(path.to_owned()));
    }
    if content == Content::Secret && status.st_mode & READABLE_BY_ALL != 0 {
        return Err(TrustedFileError::Exposed(path.to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(TrustedFileError::TooLarge(path.to_owned()));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn files_that_others_can_change_or_read_are_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "text").unwrap();
        let with = |mode, content| {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(file.path(), permissions).unwrap();
            read(file.path(), content)
        };
        for mode in [0o600, 0o640, 0o644] {
            assert_eq!(with(mode, Content::Public).unwrap(), b"text", "{mode:o}");
        }
        for mode in [0o666, 0o620, 0o602] {
            let error = with(mode, Content::Public).unwrap_err();
            assert!(matches!(error, TrustedFileError::Writable(_)), "{mode:o}: {error}");
            assert!(error.to_string().contains("`chmod go-w /"), "{error}");
        }
        assert_eq!(with(0o640, Content::Secret).unwrap(), b"text");
        let exposed = with(0o644, Content::Secret);
        assert!(matches!(exposed, Err(TrustedFileError::Exposed(_))), "{exposed:?}");
        let nowhere = file.path().join("nowhere");
        assert!(matches!(read(&nowhere, Content::Public), Err(TrustedFileError::Read { .. })));
        std::fs::write(file.path(), "#".repeat(2 << 20)).unwrap();
        assert!(matches!(with(0o600, Content::Public), Err(TrustedFileError::TooLarge(_))));
    }
}
