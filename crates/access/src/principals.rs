//! The principals that the operator knows, and the tokens by which they are known.
//!
//! The file has hashes, so that a reader of the file can't act as a principal. Tokens are random
//! and long, so one round of SHA-256 is enough: there is nothing to guess.

use std::collections::HashMap;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::rights::Rights;

/// The largest token file: about 8,000 principals.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The longest token that is looked at; ours have 64 characters.
pub(crate) const MAX_TOKEN_BYTES: usize = 1024;

/// A principal: a name for the log, and what it may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Principal {
    pub(crate) name: Arc<str>,
    pub(crate) rights: Rights,
}

/// All principals, by the SHA-256 of their tokens.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Principals(HashMap<[u8; 32], Principal>);

/// Why a token file can't be used. No variant has a part of the file's content.
#[derive(Debug, thiserror::Error)]
pub enum PrincipalsError {
    /// The file could not be read.
    #[error("reading the token file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The file is larger than 1 MiB.
    #[error("the token file {} is larger than {MAX_FILE_BYTES} bytes", .0.display())]
    TooLarge(PathBuf),
    /// Another user can grant itself rights.
    #[error(
        "the token file {} can be changed by other users; it must belong to root or to the user \
         that starts the server, and only its owner may write to it",
        .0.display()
    )]
    NotOurs(PathBuf),
    /// The text is not TOML, or has another form.
    #[error("{}:{line}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// One token is wrong.
    #[error("{}: token {name:?}: {reason}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// The name of the principal.
        name: String,
        /// The problem with it.
        reason: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenFile {
    #[serde(default)]
    token: Vec<TokenEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenEntry {
    name: String,
    sha256: String,
    rights: Vec<String>,
}

/// The hash under which a token file has `token`.
pub fn hash_of_token(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

impl Principals {
    /// Reads a token file.
    ///
    /// # Errors
    /// When it can't be read or is wrong.
    pub fn read(path: &Path) -> Result<Self, PrincipalsError> {
        let failed = |source| PrincipalsError::Read { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(failed)?;
        let status = rustix::fs::fstat(&file).map_err(|errno| failed(errno.into()))?;
        let is_ours = status.st_uid == 0 || status.st_uid == rustix::process::geteuid().as_raw();
        if !is_ours || status.st_mode & 0o022 != 0 {
            return Err(PrincipalsError::NotOurs(path.to_owned()));
        }
        let mut text = String::new();
        file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(PrincipalsError::TooLarge(path.to_owned()));
        }
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, PrincipalsError> {
        let file: TokenFile = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let line = 1 + text.bytes().take(start).filter(|&byte| byte == b'\n').count();
            let message = error.message().to_owned();
            PrincipalsError::Syntax { path: path.to_owned(), line, message }
        })?;
        let mut principals = HashMap::with_capacity(file.token.len());
        for TokenEntry { name, sha256, rights } in file.token {
            let refuse = |reason: String| PrincipalsError::Token {
                path: path.to_owned(),
                name: name.clone(),
                reason,
            };
            let is_name =
                (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic());
            if !is_name {
                return Err(refuse("a name has 1 to 64 printable characters".to_owned()));
            }
            let mut hash = [0; 32];
            hex::decode_to_slice(&sha256, &mut hash)
                .map_err(|_| refuse("sha256 is not a hash of 64 hexadecimal digits".to_owned()))?;
            let rights: Rights =
                rights.join("+").parse().map_err(|error| refuse(format!("rights: {error}")))?;
            let principal = Principal { name: name.as_str().into(), rights };
            if principals.insert(hash, principal).is_some() {
                return Err(refuse("another principal has the same token".to_owned()));
            }
        }
        Ok(Self(principals))
    }

    /// The principal whose token this is. The look-up compares hashes, so its time says nothing
    /// about tokens.
    pub(crate) fn by_token(&self, token: &str) -> Option<&Principal> {
        self.0.get(&hash_of_token(token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn parse(text: &str) -> Result<Principals, String> {
        Principals::parse(Path::new("tokens.toml"), text).map_err(|error| error.to_string())
    }

    fn entry(name: &str, token: &str, rights: &str) -> String {
        let sha256 = hex::encode(hash_of_token(token));
        format!("[[token]]\nname = '{name}'\nsha256 = '{sha256}'\nrights = {rights}\n")
    }

    #[test]
    fn a_token_leads_to_its_principal() {
        let text =
            entry("ci", "secret", "['read', 'execute']") + &entry("root", "other", "['all']");
        let principals = parse(&text).unwrap();
        let ci = principals.by_token("secret").unwrap();
        assert_eq!((&*ci.name, ci.rights), ("ci", "read+execute".parse().unwrap()));
        assert_eq!(principals.by_token("other").unwrap().rights, Rights::ALL);
        for wrong in ["", "Secret", "secret ", &hex::encode(hash_of_token("secret"))] {
            assert_eq!(principals.by_token(wrong), None, "{wrong}");
        }
        assert_eq!(parse("").unwrap(), Principals::default());
    }

    #[test]
    fn mistakes_are_told_without_secrets() {
        let check = |text: &str, expected: &str| {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected) && error.contains("tokens.toml"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        };
        check("[[token]]\nname = 'a'\nrights = []\nsha256 = 'hunter2'", "not a hash");
        check(&entry("a", "x", "['write']"), "rights");
        check(&entry("", "x", "['read']"), "name");
        check(&entry("a\u{1b}", "x", "['read']").replace('\'', "\""), ":2:");
        check(&(entry("a", "x", "['read']") + &entry("b", "x", "['read']")), "same token");
        check("\n[[token]]\nsecret = 'hunter2'", ":3:");
        check("token = ", ":1:");
    }

    #[test]
    fn a_file_that_others_can_write_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), entry("a", "x", "['read']")).unwrap();
        let with = |mode| {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(file.path(), permissions).unwrap();
            Principals::read(file.path())
        };
        assert!(with(0o600).is_ok());
        assert!(matches!(with(0o666), Err(PrincipalsError::NotOurs(_))));
    }
}
