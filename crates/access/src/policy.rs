//! The decision whether a call may go on.

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use parking_lot::RwLock;
use tonic::Status;
use tonic::codegen::http::{HeaderMap, HeaderValue, header};

use crate::connections::Caller;
use crate::granted::Granted;
use crate::instances::InstanceRights;
use crate::permit::Permit;
use crate::principals::{MAX_TOKEN_BYTES, Principal, Principals, PrincipalsError};
use crate::rights::{Needed, Right, Rights, needed};

/// Decides by the caller's token, else by its certificate, else by what its connection grants to callers
/// without credentials.
pub struct Policy {
    token_file: Option<PathBuf>,
    has_certificates: bool,
    principals: RwLock<Arc<Principals>>,
    /// The rights of calls whose connection does not tell of its caller.
    unknown_connection: Rights,
    /// The rights that nobody has here, whatever else is granted.
    withheld: Rights,
}

/// Principals that were read and checked, and are not in use yet.
pub struct NewPrincipals(Option<Principals>);

/// The caller, as far as it is known.
enum Identity {
    Principal(Principal),
    Anonymous(Rights),
}

impl Policy {
    /// A policy with the principals of `token_file`, if there is one.
    ///
    /// # Errors
    /// [`PrincipalsError`] for a file that can't be used.
    pub fn open(token_file: Option<PathBuf>) -> Result<Self, PrincipalsError> {
        let principals = match &token_file {
            Some(path) => Principals::read(path)?,
            None => Principals::default(),
        };
        let principals = RwLock::new(Arc::new(principals));
        let unknown_connection = Rights::NONE;
        let withheld = Rights::NONE;
        Ok(Self { token_file, has_certificates: false, principals, unknown_connection, withheld })
    }

    /// The same policy for a server that asks its clients for certificates.
    #[must_use]
    pub fn with_certificates(self) -> Self {
        Self { has_certificates: true, ..self }
    }

    /// A policy that grants every caller the same rights, for a server behind another one that
    /// has decided already.
    pub fn same_for_all(rights: Rights) -> Self {
        Self {
            token_file: None,
            has_certificates: false,
            principals: RwLock::default(),
            unknown_connection: rights,
            withheld: Rights::NONE,
        }
    }

    /// The same policy for a server that withholds these rights from everybody.
    #[must_use]
    pub fn withholding(self, withheld: Rights) -> Self {
        Self { withheld, ..self }
    }

    /// Whether nobody has that right here.
    pub fn withholds(&self, right: Right) -> bool {
        self.withheld.has_one_of(Rights::of([right]))
    }

    /// Whether callers can be principals, by tokens or certificates.
    pub fn has_principals(&self) -> bool {
        self.token_file.is_some() || self.has_certificates
    }

    /// Whether callers send tokens, which must not travel in the clear.
    pub fn has_tokens(&self) -> bool {
        self.token_file.is_some()
    }

    /// Reads the file of principals again, without effect until [`Self::replace`].
    ///
    /// # Errors
    /// [`PrincipalsError`] for a file that can't be used.
    pub fn read_again(&self) -> Result<NewPrincipals, PrincipalsError> {
        self.token_file.as_deref().map(Principals::read).transpose().map(NewPrincipals)
    }

    /// Uses the new principals for new calls. Calls that were let in go on.
    pub fn replace(&self, new: NewPrincipals) {
        if let NewPrincipals(Some(principals)) = new {
            *self.principals.write() = Arc::new(principals);
        }
    }

    /// Lets a call in, or says why not. A principal's call is let in if the principal may do this in
    /// some instance; the services know which one it is about.
    pub(crate) fn check(
        &self,
        path: &str,
        headers: &HeaderMap,
        caller: Option<&Caller>,
    ) -> Result<Option<Permit>, Status> {
        let (needed, is_listed) = match needed(path) {
            Needed::Nothing => return Ok(None),
            Needed::OneOf(rights) if rights.without(self.withheld).is_empty() => {
                return Err(Status::permission_denied(format!(
                    "this server does not offer it: its operator withholds the right {rights}"
                )));
            }
            Needed::OneOf(rights) => (rights.without(self.withheld), true),
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
        match self.identify(headers, caller) {
            Err(status) => {
                tracing::debug!(method = shown(path), "a call with an unknown token");
                Err(status)
            }
            Ok(Identity::Principal(Principal { name, rights })) => {
                if rights.anywhere().has_one_of(needed) {
                    return Ok(Some(Permit { principal: name, rights, needed }));
                }
                tracing::debug!(principal = &*name, method = shown(path), "a call was denied");
                Err(refusal(&format!("principal {name}")))
            }
            Ok(Identity::Anonymous(rights)) if rights.has_one_of(needed) => Ok(None),
            Ok(Identity::Anonymous(_)) if self.has_principals() => {
                Err(Status::unauthenticated(self.credentials_wanted()))
            }
            Ok(Identity::Anonymous(_)) => Err(refusal("anonymous callers")),
        }
    }

    /// The rights of a caller; none for one whose token is wrong.
    pub(crate) fn granted(&self, headers: &HeaderMap, caller: Option<&Caller>) -> Option<Granted> {
        let rights = match self.identify(headers, caller).ok()? {
            Identity::Principal(principal) => principal.rights,
            Identity::Anonymous(rights) => Arc::new(InstanceRights::everywhere(rights)),
        };
        Some(Granted { rights, withheld: self.withheld })
    }

    fn identify(&self, headers: &HeaderMap, caller: Option<&Caller>) -> Result<Identity, Status> {
        // A wrong token is an error even where callers without one may do the same: the client
        // believes that it is somebody.
        if let Some(value) = headers.get(header::AUTHORIZATION).filter(|_| self.has_tokens()) {
            return match self.by_token(value) {
                Some(principal) => Ok(Identity::Principal(principal)),
                None => Err(Status::unauthenticated("the token is not known here")),
            };
        }
        let Some(caller) = caller else { return Ok(Identity::Anonymous(self.unknown_connection)) };
        let names = caller.certificate.as_deref();
        let principal = names.and_then(|names| self.principals.read().by_certificate(names));
        Ok(principal.map_or(Identity::Anonymous(caller.anonymous), Identity::Principal))
    }

    /// Whether an HTTP request with these headers may read, at a listener that grants `anonymous` to
    /// callers without credentials. A browser can send a token as the password of HTTP's own scheme
    /// (RFC 7617), with any name.
    pub fn lets_read(&self, headers: &HeaderMap, anonymous: Rights) -> bool {
        self.http_rights(headers, anonymous, InstanceRights::anywhere)
    }

    /// As [`Policy::lets_read`], for what is of all instances: the right must be there in every one.
    pub fn lets_read_all(&self, headers: &HeaderMap, anonymous: Rights) -> bool {
        self.http_rights(headers, anonymous, InstanceRights::in_all)
    }

    fn http_rights(
        &self,
        headers: &HeaderMap,
        anonymous: Rights,
        of: fn(&InstanceRights) -> Rights,
    ) -> bool {
        let read = Rights::of([Right::Read]);
        match headers.get(header::AUTHORIZATION).filter(|_| self.has_tokens()) {
            None => anonymous.has_one_of(read),
            Some(value) => {
                let principal = self.by_token(value).or_else(|| self.by_password(value));
                principal.is_some_and(|principal| of(&principal.rights).has_one_of(read))
            }
        }
    }

    fn by_token(&self, value: &HeaderValue) -> Option<Principal> {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") || token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        self.principals.read().by_token(token.trim()).cloned()
    }

    fn by_password(&self, value: &HeaderValue) -> Option<Principal> {
        let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") || encoded.len() > 2 * MAX_TOKEN_BYTES {
            return None;
        }
        let decoded = base64::engine::general_purpose::STANDARD.decode(encoded.trim()).ok()?;
        let (_name, token) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
        self.principals.read().by_token(token).cloned()
    }

    fn credentials_wanted(&self) -> &'static str {
        match (self.has_tokens(), self.has_certificates) {
            (true, true) => {
                "this call needs a bearer token, or a client certificate that is listed"
            }
            (false, true) => "this call needs a client certificate that is listed",
            _ => "this call needs a bearer token",
        }
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
    use crate::certificate::CertificateNames;
    use tonic::Code;

    const READ: &str = "/google.bytestream.ByteStream/Read";
    const WRITE: &str = "/google.bytestream.ByteStream/Write";
    const DELETE: &str = "/actiond.internal.v1.CAS/DeleteBlobs";

    fn code(policy: &Policy, path: &str, token: Option<&str>, anonymous: Rights) -> Code {
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            headers.insert(header::AUTHORIZATION, token.parse().unwrap());
        }
        let caller = Caller { anonymous, certificate: None, is_owner: false };
        policy.check(path, &headers, Some(&caller)).err().map_or(Code::Ok, |status| status.code())
    }

    #[test]
    fn what_a_server_withholds_nobody_may() {
        let withheld = Rights::of([Right::WriteCas, Right::WriteAc]);
        let policy = Policy::same_for_all(Rights::ALL).withholding(withheld);
        assert!(policy.withholds(Right::WriteAc) && !policy.withholds(Right::Read));
        let check = |path: &str, expected| {
            assert_eq!(code(&policy, path, None, Rights::ALL), expected, "{path}");
        };
        check(READ, Code::Ok);
        check(WRITE, Code::PermissionDenied);
        check(DELETE, Code::Ok);
        let v2 = "/build.bazel.remote.execution.v2.";
        check(&format!("{v2}ActionCache/UpdateActionResult"), Code::PermissionDenied);
        check(&format!("{v2}ActionCache/GetActionResult"), Code::Ok);
        check(&format!("{v2}ContentAddressableStorage/FindMissingBlobs"), Code::Ok);
        check(&format!("{v2}Execution/Execute"), Code::Ok);
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
    fn to_read_what_is_of_all_instances_needs_the_right_in_every_one() {
        let check = |rights: &str, all: bool| {
            let file = tempfile::NamedTempFile::new().unwrap();
            let sha256 = hex::encode(crate::hash_of_token("secret"));
            let text = format!("[[token]]\nname = 'ci'\nsha256 = '{sha256}'\n{rights}\n");
            std::fs::write(file.path(), text).unwrap();
            let policy = Policy::open(Some(file.path().to_owned())).unwrap();
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, "Bearer secret".parse().unwrap());
            assert!(policy.lets_read(&headers, Rights::NONE), "{rights}");
            assert_eq!(policy.lets_read_all(&headers, Rights::NONE), all, "{rights}");
        };
        check("rights = ['read']", true);
        check("rights = ['none']\ninstances = { main = ['read'] }", false);
        check("rights = ['read']\ninstances = { main = ['none'] }", false);
        check("rights = ['read']\ninstances = { main = ['client'] }", true);
    }

    #[test]
    fn a_browser_sends_a_token_as_a_password() {
        let (_file, policy) = with_reader();
        let check = |value: Option<&str>, anonymous: Rights, expected| {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            }
            assert_eq!(policy.lets_read(&headers, anonymous), expected, "{value:?}");
            assert_eq!(policy.lets_read_all(&headers, anonymous), expected, "{value:?}");
        };
        let basic = |text: &str| {
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text))
        };
        check(None, Rights::NONE, false);
        check(None, Rights::CLIENT, true);
        check(Some("Bearer secret"), Rights::NONE, true);
        check(Some("Bearer wrong"), Rights::CLIENT, false);
        check(Some(&basic("anybody:secret")), Rights::NONE, true);
        check(Some(&basic(":secret")), Rights::NONE, true);
        for wrong in ["anybody:wrong", "secret", "secret:", "", ":"] {
            check(Some(&basic(wrong)), Rights::CLIENT, false);
        }
        check(Some("Basic ?"), Rights::CLIENT, false);
        check(Some("Basic"), Rights::CLIENT, false);
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
    fn new_principals_replace_the_old_ones_or_change_nothing() {
        let (file, policy) = with_reader();
        write(&file, "new");
        let new = policy.read_again().unwrap();
        assert_eq!(code(&policy, READ, Some("Bearer secret"), Rights::NONE), Code::Ok);
        policy.replace(new);
        assert_eq!(code(&policy, READ, Some("Bearer secret"), Rights::NONE), Code::Unauthenticated);
        assert_eq!(code(&policy, READ, Some("Bearer new"), Rights::NONE), Code::Ok);
        std::fs::write(file.path(), "nonsense").unwrap();
        assert!(policy.read_again().is_err());
        assert_eq!(code(&policy, READ, Some("Bearer new"), Rights::NONE), Code::Ok);
    }

    #[test]
    fn a_right_in_one_instance_lets_the_call_in_for_that_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let sha256 = hex::encode(crate::hash_of_token("secret"));
        let text = format!(
            "[[token]]\nname = 'ci'\nsha256 = '{sha256}'\nrights = ['read']\n\
             instances = {{ main = ['read', 'write-ac'] }}\n"
        );
        std::fs::write(file.path(), text).unwrap();
        let policy = Policy::open(Some(file.path().to_owned())).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, "Bearer secret".parse().unwrap());
        let update = "/build.bazel.remote.execution.v2.ActionCache/UpdateActionResult";
        let permit = policy.check(update, &headers, None).unwrap().unwrap();
        assert_eq!(permit.principal(), "ci");
        assert!(permit.is_for("main"));
        assert!(!permit.is_for("") && !permit.is_for("main/below"));
        let mut extensions = tonic::Extensions::new();
        extensions.insert(permit);
        assert!(crate::check_instance(&extensions, "main").is_ok());
        let refused = crate::check_instance(&extensions, "other").unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert!(refused.message().contains("principal ci"), "{refused}");
        // The principal has the right to run actions nowhere.
        let execute = "/build.bazel.remote.execution.v2.Execution/Execute";
        let refused = policy.check(execute, &headers, None).unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
    }

    #[test]
    fn a_service_learns_what_else_a_caller_may() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "[[certificate]]\nname = 'ci'\ndns = 'ci.example'\nrights = ['read']\n\
                    instances = { 'main' = ['read', 'write-cas'] }\n";
        std::fs::write(file.path(), text).unwrap();
        let policy = Policy::open(Some(file.path().to_owned())).unwrap().with_certificates();
        let names = CertificateNames::new([].into_iter(), ["ci.example"].into_iter(), &[]);
        let certificate = Some(names.into());
        let ci = Caller { anonymous: Rights::NONE, certificate, is_owner: false };
        let anonymous = |anonymous| Caller { anonymous, certificate: None, is_owner: false };
        let check = |policy: &Policy, caller: &Caller, instance: &str, expected| {
            let mut extensions = tonic::Extensions::new();
            if let Some(granted) = policy.granted(&HeaderMap::new(), Some(caller)) {
                granted.attach(&mut extensions);
            }
            let has = crate::has_right(&extensions, instance, Right::WriteCas);
            assert_eq!(has, expected, "{instance:?}");
        };
        check(&policy, &ci, "main", true);
        check(&policy, &ci, "", false);
        check(&policy, &anonymous(Rights::CLIENT), "", true);
        check(&policy, &anonymous(Rights::of([Right::Read])), "", false);
        let read_only = policy.withholding(Rights::of([Right::WriteCas]));
        check(&read_only, &ci, "main", false);
        check(&read_only, &anonymous(Rights::ALL), "", false);
        assert!(!crate::has_right(&tonic::Extensions::new(), "", Right::WriteCas));
    }

    #[test]
    fn a_certificate_grants_what_its_principal_may() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "[[certificate]]\nname = 'ci'\ndns = 'ci.example'\nrights = ['read']\n";
        std::fs::write(file.path(), text).unwrap();
        let listed = Policy::open(Some(file.path().to_owned())).unwrap().with_certificates();
        let unlisted = Policy::open(None).unwrap().with_certificates();
        let check = |policy: &Policy, path, dns_name: &str, expected| {
            let names = CertificateNames::new([].into_iter(), [dns_name].into_iter(), &[]);
            let anonymous = Rights::NONE;
            let caller = Caller { anonymous, certificate: Some(names.into()), is_owner: false };
            let code = policy.check(path, &HeaderMap::new(), Some(&caller));
            assert_eq!(code.err().map_or(Code::Ok, |it| it.code()), expected, "{path} {dns_name}");
        };
        check(&listed, READ, "ci.example", Code::Ok);
        check(&listed, WRITE, "ci.example", Code::PermissionDenied);
        check(&listed, READ, "other.example", Code::Unauthenticated);
        check(&unlisted, WRITE, "other.example", Code::Ok);
        check(&unlisted, DELETE, "other.example", Code::PermissionDenied);
        assert_eq!(code(&unlisted, READ, None, Rights::NONE), Code::Unauthenticated);
    }
}
