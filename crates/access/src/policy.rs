//! The decision: may this call go on?

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::RwLock;
use tonic::Status;
use tonic::codegen::http::{HeaderMap, header};

use crate::connections::Caller;
use crate::principals::{MAX_TOKEN_BYTES, Principal, Principals, PrincipalsError};
use crate::rights::{Needed, Right, Rights, needed};

/// Decides by the caller's token, else by what its connection grants to anonymous callers.
pub struct Policy {
    token_file: Option<PathBuf>,
    principals: RwLock<Arc<Principals>>,
    /// The rights of calls whose connection does not tell of its caller.
    unknown_connection: Rights,
}

impl Policy {
    /// A policy with the principals of `token_file`, if there is one.
    ///
    /// # Errors
    /// When the file can't be used.
    pub fn open(token_file: Option<PathBuf>) -> Result<Self, PrincipalsError> {
        let principals = match &token_file {
            Some(path) => Principals::read(path)?,
            None => Principals::default(),
        };
        let principals = RwLock::new(Arc::new(principals));
        Ok(Self { token_file, principals, unknown_connection: Rights::NONE })
    }

    /// A policy that grants every caller the same rights, for a server behind another one that
    /// has decided already.
    pub fn same_for_all(rights: Rights) -> Self {
        let principals = RwLock::default();
        Self { token_file: None, principals, unknown_connection: rights }
    }

    /// Whether there are principals, beside anonymous ones.
    pub fn has_principals(&self) -> bool {
        self.token_file.is_some()
    }

    /// Reads the token file again. Calls that were let in go on.
    ///
    /// # Errors
    /// When the file can't be used. The principals then stay as they were.
    pub fn reload(&self) -> Result<(), PrincipalsError> {
        if let Some(path) = &self.token_file {
            let principals = Arc::new(Principals::read(path)?);
            *self.principals.write() = principals;
        }
        Ok(())
    }

    /// Lets a call in, or says why not.
    pub(crate) fn check(
        &self,
        path: &str,
        headers: &HeaderMap,
        caller: Option<&Caller>,
    ) -> Result<(), Status> {
        let (needed, is_listed) = match needed(path) {
            Needed::Nothing => return Ok(()),
            Needed::OneOf(rights) => (rights, true),
            Needed::Unlisted => (Rights::of([Right::Admin]), false),
        };
        // A client that asks for a method of a newer API falls back if it hears UNIMPLEMENTED.
        let refusal = |name: &str| {
            if is_listed {
                denied(name, needed)
            } else {
                Status::unimplemented(format!("no such method: {}", shown(path)))
            }
        };
        let granted = match headers.get(header::AUTHORIZATION) {
            // A token that is wrong is an error even where anonymous callers may do the same:
            // the client believes that it is somebody.
            Some(value) if self.has_principals() => {
                let principal = value.to_str().ok().and_then(|value| self.principal(value));
                let Some(principal) = principal else {
                    tracing::debug!(method = shown(path), "a call with an unknown token");
                    return Err(Status::unauthenticated("the token is not known here"));
                };
                if !principal.rights.has_one_of(needed) {
                    let name = &principal.name;
                    tracing::debug!(principal = &**name, method = shown(path), "a call was denied");
                    return Err(refusal(&format!("principal {name}")));
                }
                return Ok(());
            }
            _ => caller.map_or(self.unknown_connection, |caller| caller.anonymous),
        };
        if granted.has_one_of(needed) {
            return Ok(());
        }
        if self.has_principals() {
            return Err(Status::unauthenticated("this call needs a bearer token"));
        }
        Err(refusal("anonymous callers"))
    }

    fn principal(&self, value: &str) -> Option<Principal> {
        let (scheme, token) = value.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") || token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        self.principals.read().by_token(token.trim()).cloned()
    }
}

fn denied(name: &str, needed: Rights) -> Status {
    Status::permission_denied(format!("{name} may not do this: it needs the right {needed}"))
}

/// A path of a client for the log: short, and in one line.
fn shown(path: &str) -> String {
    path.chars().take(128).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    const READ: &str = "/google.bytestream.ByteStream/Read";
    const WRITE: &str = "/google.bytestream.ByteStream/Write";
    const DELETE: &str = "/actiond.internal.v1.CAS/DeleteBlobs";

    fn code(policy: &Policy, path: &str, token: Option<&str>, anonymous: Rights) -> Code {
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            headers.insert(header::AUTHORIZATION, token.parse().unwrap());
        }
        let caller = Caller { anonymous };
        policy.check(path, &headers, Some(&caller)).err().map_or(Code::Ok, |status| status.code())
    }

    fn with_reader() -> (tempfile::NamedTempFile, Policy) {
        let file = tempfile::NamedTempFile::new().unwrap();
        write(&file, "secret");
        let policy = Policy::open(Some(file.path().to_owned())).unwrap();
        (file, policy)
    }

    fn write(file: &tempfile::NamedTempFile, token: &str) {
        let sha256 = hex::encode(crate::hash_of_token(token));
        let text = format!("[[token]]\nname = 'ci'\nsha256 = '{sha256}'\nrights = ['read']\n");
        std::fs::write(file.path(), text).unwrap();
    }

    #[test]
    fn a_token_grants_what_its_principal_may() {
        let (_file, policy) = with_reader();
        let check = |path, token, expected| {
            assert_eq!(code(&policy, path, token, Rights::NONE), expected, "{path} {token:?}");
        };
        check(READ, Some("Bearer secret"), Code::Ok);
        check(READ, Some("bearer secret"), Code::Ok);
        check(WRITE, Some("Bearer secret"), Code::PermissionDenied);
        for wrong in ["Bearer Secret", "Bearer", "secret", "Basic secret", "Bearer ", ""] {
            check(READ, Some(wrong), Code::Unauthenticated);
        }
        check(READ, None, Code::Unauthenticated);
        check("/grpc.health.v1.Health/Check", None, Code::Ok);
    }

    #[test]
    fn a_wrong_token_is_worse_than_none() {
        let (_file, policy) = with_reader();
        assert_eq!(code(&policy, WRITE, None, Rights::CLIENT), Code::Ok);
        assert_eq!(code(&policy, WRITE, Some("Bearer x"), Rights::CLIENT), Code::Unauthenticated);
        // A principal has its own rights, not those of anonymous callers.
        let denied = code(&policy, WRITE, Some("Bearer secret"), Rights::CLIENT);
        assert_eq!(denied, Code::PermissionDenied);
    }

    #[test]
    fn anonymous_callers_have_what_their_listener_grants() {
        let policy = Policy::open(None).unwrap();
        assert_eq!(code(&policy, READ, None, Rights::CLIENT), Code::Ok);
        assert_eq!(code(&policy, DELETE, None, Rights::CLIENT), Code::PermissionDenied);
        assert_eq!(code(&policy, DELETE, None, Rights::ALL), Code::Ok);
        assert_eq!(code(&policy, "/new.v3/Method", None, Rights::CLIENT), Code::Unimplemented);
        assert_eq!(code(&policy, "/new.v3/Method", None, Rights::ALL), Code::Ok);
        // Without principals a token means nothing.
        assert_eq!(code(&policy, READ, Some("Bearer x"), Rights::CLIENT), Code::Ok);
        let unknown = policy.check(READ, &HeaderMap::new(), None).unwrap_err();
        assert_eq!(unknown.code(), Code::PermissionDenied);
    }

    #[test]
    fn a_reload_replaces_the_tokens_or_changes_nothing() {
        let (file, policy) = with_reader();
        write(&file, "new");
        policy.reload().unwrap();
        assert_eq!(code(&policy, READ, Some("Bearer secret"), Rights::NONE), Code::Unauthenticated);
        assert_eq!(code(&policy, READ, Some("Bearer new"), Rights::NONE), Code::Ok);
        std::fs::write(file.path(), "nonsense").unwrap();
        assert!(policy.reload().is_err());
        assert_eq!(code(&policy, READ, Some("Bearer new"), Rights::NONE), Code::Ok);
    }
}
