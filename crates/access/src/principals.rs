//! The file of principals: the clients that the operator knows by a token or a certificate, and what
//! they may do.
//!
//! ```toml
//! [[token]]
//! name = "ci"
//! sha256 = "2bb80d53…"            # of a random token
//! rights = ["read"]               # in every instance
//! instances = { "ci/*" = ["client"] }   # other rights in some of them
//!
//! [[certificate]]
//! name = "builder"
//! dns = "builder.example"         # or uri, or common_name
//! rights = ["client"]
//! ```
//!
//! The file contains hashes of tokens, so a reader of the file can't act as a principal. Tokens are random
//! and long, so one round of SHA-256 is enough: nobody can guess one.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::certificate::{CertificateNames, Name};
use crate::instances::InstanceRights;
use crate::rights::Rights;
use crate::trusted_file::{self, Content, TrustedFileError};

/// The longest token that is looked at; ours have 64 characters.
pub(crate) const MAX_TOKEN_BYTES: usize = 1024;

/// A principal: a name for the log, and its rights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Principal {
    pub(crate) name: Arc<str>,
    pub(crate) rights: Arc<InstanceRights>,
}

/// All principals, by the SHA-256 of their tokens and by the names in their certificates.
#[derive(Default, PartialEq, Eq)]
pub struct Principals {
    tokens: HashMap<[u8; 32], Principal>,
    certificates: HashMap<Name, Principal>,
}

impl fmt::Debug for Principals {
    /// Shows no hash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.tokens.values().chain(self.certificates.values()).map(|it| &it.name);
        f.debug_list().entries(names).finish()
    }
}

/// The reason why a file of principals can't be used. No variant contains a part of a token or a hash.
#[derive(Debug, thiserror::Error)]
pub enum PrincipalsError {
    /// The file can't be trusted.
    #[error(transparent)]
    File(#[from] TrustedFileError),
    /// The text is not TOML, or has another form.
    #[error("{}:{line}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The parser's error.
        message: String,
    },
    /// One principal is wrong.
    #[error("{}: principal {name:?}: {reason}", path.display())]
    Principal {
        /// The file.
        path: PathBuf,
        /// The name of the principal.
        name: String,
        /// The problem with it.
        reason: String,
    },
}

/// The file, before it is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    token: Vec<TokenEntry>,
    #[serde(default)]
    certificate: Vec<CertificateEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenEntry {
    name: String,
    sha256: String,
    rights: Vec<String>,
    #[serde(default)]
    instances: Instances,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CertificateEntry {
    name: String,
    uri: Option<String>,
    dns: Option<String>,
    common_name: Option<String>,
    rights: Vec<String>,
    #[serde(default)]
    instances: Instances,
}

/// Rights by instance name or pattern.
type Instances = BTreeMap<String, Vec<String>>;

/// The hash under which a token file has `token`.
pub fn hash_of_token(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

impl Principals {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// [`PrincipalsError`] for a file that can't be trusted, or is wrong.
    pub fn read(path: &Path) -> Result<Self, PrincipalsError> {
        let bytes = trusted_file::read(path, Content::Public)?;
        let text = std::str::from_utf8(&bytes).map_err(|error| PrincipalsError::Syntax {
            path: path.to_owned(),
            line: line_of(&bytes, error.valid_up_to()),
            message: "not UTF-8".to_owned(),
        })?;
        Self::parse(path, text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, PrincipalsError> {
        let file: File = toml::from_str(text).map_err(|error| PrincipalsError::Syntax {
            path: path.to_owned(),
            line: line_of(text.as_bytes(), error.span().map_or(0, |span| span.start)),
            message: error.message().to_owned(),
        })?;
        let mut principals = Self::default();
        for entry in file.token {
            let name = entry.name.clone();
            principals.add_token(entry).map_err(|reason| PrincipalsError::Principal {
                path: path.to_owned(),
                name,
                reason,
            })?;
        }
        for entry in file.certificate {
            let name = entry.name.clone();
            principals.add_certificate(entry).map_err(|reason| PrincipalsError::Principal {
                path: path.to_owned(),
                name,
                reason,
            })?;
        }
        Ok(principals)
    }

    fn add_token(&mut self, entry: TokenEntry) -> Result<(), String> {
        let mut hash = [0; 32];
        hex::decode_to_slice(&entry.sha256, &mut hash)
            .map_err(|_| "sha256 is not a hash of 64 hexadecimal digits".to_owned())?;
        let principal = Principal::new(&entry.name, &entry.rights, entry.instances)?;
        let other = self.tokens.insert(hash, principal);
        if other.is_some() {
            Err("another principal has the same token".to_owned())
        } else {
            Ok(())
        }
    }

    fn add_certificate(&mut self, entry: CertificateEntry) -> Result<(), String> {
        let principal = Principal::new(&entry.name, &entry.rights, entry.instances)?;
        let certificate_name = match (entry.uri, entry.dns, entry.common_name) {
            (Some(uri), None, None) => Name::Uri(uri),
            (None, Some(dns), None) => Name::Dns(dns.to_ascii_lowercase()),
            (None, None, Some(common_name)) => Name::Common(common_name),
            _ => return Err("it needs one of uri, dns and common_name".to_owned()),
        };
        let other = self.certificates.insert(certificate_name, principal);
        if other.is_some() {
            return Err("another principal has a certificate with the same name".to_owned());
        }
        Ok(())
    }

    /// The principal with this token. The look-up compares hashes, so its time reveals nothing about
    /// tokens.
    pub(crate) fn by_token(&self, token: &str) -> Option<&Principal> {
        self.tokens.get(&hash_of_token(token))
    }

    /// The principal with a certificate of these names. Where the file lists no certificate at all,
    /// whoever the CA has signed for is a client.
    pub(crate) fn by_certificate(&self, names: &CertificateNames) -> Option<Principal> {
        if self.certificates.is_empty() {
            let name = names.shown().into();
            let rights = Arc::new(InstanceRights::everywhere(Rights::CLIENT));
            return Some(Principal { name, rights });
        }
        names.iter().find_map(|name| self.certificates.get(name)).cloned()
    }
}

impl Principal {
    fn new(name: &str, rights: &[String], instances: Instances) -> Result<Self, String> {
        let is_name =
            (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_name {
            return Err("a name has 1 to 64 printable characters".to_owned());
        }
        let rights: Rights =
            rights.join("+").parse().map_err(|error| format!("rights: {error}"))?;
        let rights = InstanceRights::everywhere(rights).but_in(instances);
        let rights = rights.map_err(|error| chain::Chain(&error).to_string())?;
        Ok(Self { name: name.into(), rights: Arc::new(rights) })
    }
}

/// The line of that byte, from 1.
fn line_of(text: &[u8], offset: usize) -> usize {
    1 + text.iter().take(offset).filter(|&&byte| byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let rights = |text: &str| text.parse::<Rights>().unwrap();
        assert_eq!((&*ci.name, ci.rights.within("")), ("ci", rights("read+execute")));
        assert_eq!(principals.by_token("other").unwrap().rights.within("x"), Rights::ALL);
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

    fn names(uris: &[&str], dns_names: &[&str]) -> CertificateNames {
        let (uris, dns_names) = (uris.iter().copied(), dns_names.iter().copied());
        CertificateNames::new(uris, dns_names, &[])
    }

    #[test]
    fn a_certificate_leads_to_its_principal() {
        let text = "[[certificate]]\nname = 'a'\nuri = 'spiffe://x/a'\nrights = ['read']\n\
                    [[certificate]]\nname = 'b'\ndns = 'B.example'\nrights = ['all']\n";
        let principals = parse(text).unwrap();
        let check = |names: CertificateNames, expected: Option<&str>| {
            let principal = principals.by_certificate(&names);
            assert_eq!(principal.as_ref().map(|it| &*it.name), expected, "{names:?}");
        };
        check(names(&["spiffe://x/a"], &["b.example"]), Some("a"));
        check(names(&["spiffe://x/c"], &["b.EXAMPLE"]), Some("b"));
        check(names(&["spiffe://x/c"], &["sub.b.example", "*.example"]), None);
        check(names(&["b.example"], &["spiffe://x/a"]), None);
        check(CertificateNames::default(), None);
    }

    #[test]
    fn without_a_list_of_certificates_each_is_a_client() {
        let principals = parse("").unwrap();
        let principal = principals.by_certificate(&names(&[], &["a.example"])).unwrap();
        let rights = principal.rights.within("");
        assert_eq!((&*principal.name, rights), ("a.example", Rights::CLIENT));
    }

    #[test]
    fn instances_have_rights_of_their_own() {
        let text = entry("ci", "x", "['read']") + "instances = { 'ci/*' = ['client'] }\n";
        let principals = parse(&text).unwrap();
        let rights = &principals.by_token("x").unwrap().rights;
        assert_eq!(rights.within("ci/main"), Rights::CLIENT);
        assert_eq!(rights.within("main"), "read".parse().unwrap());
        let wrong = entry("ci", "x", "['read']") + "instances = { '*' = ['client'] }\n";
        assert!(parse(&wrong).unwrap_err().contains("principal \"ci\": instance \"*\""));
    }

    #[test]
    fn certificates_are_checked() {
        let check = |fields: &str, expected: &str| {
            let text = format!("[[certificate]]\nname = 'a'\nrights = ['read']\n{fields}");
            let error = parse(&text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check("", "one of uri, dns and common_name");
        check("uri = 'a'\ndns = 'b'", "one of uri, dns and common_name");
        check("email = 'a'", "tokens.toml:4:");
        check("dns = 'a'\n[[certificate]]\nname = 'b'\nrights = []\ndns = 'A'", "rights");
        let same = "dns = 'a'\n[[certificate]]\nname = 'b'\nrights = ['read']\ndns = 'A'";
        check(same, "same name");
    }

    #[test]
    fn no_form_shows_a_hash() {
        let text = entry("ci", "secret", "['read']");
        let shown = format!("{:?}", parse(&text).unwrap());
        assert_eq!(shown, "[\"ci\"]");
    }
}
