//! The demands of qualifiers on a fetch: hashes of the content, and headers of the request.
//!
//! | qualifier | meaning |
//! |---|---|
//! | `checksum.sri` | hashes as in Subresource Integrity: `sha256-BASE64`, several with spaces between |
//! | `http_header:NAME` | a header for each URI |
//! | `http_header_url:NUMBER:NAME` | a header for the URI of that number, from 0 |
//! | `bazel.canonical_id` | a part of the name of the content, and nothing for the origin |

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::{BlobHasher, DigestFunction};

use crate::names::Names;

/// The qualifier with the hashes.
const CHECKSUM: &str = "checksum.sri";

/// The qualifier that only names.
const CANONICAL_ID: &str = "bazel.canonical_id";

/// The beginning of qualifiers with a header for all URIs.
const HEADER: &str = "http_header:";

/// The beginning of qualifiers with a header for one URI.
const HEADER_OF_ONE: &str = "http_header_url:";

/// Headers that belong to the connection or decide what the answer is: a client's word there would have the server read
/// another host's file, a part of one, or a compressed form.
const FORBIDDEN_HEADERS: [&str; 14] = [
    "accept-encoding",
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// An error of qualifiers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DemandsError {
    /// Qualifiers that mean nothing here.
    #[error("qualifiers: {} not supported for content that is fetched from its origin", quoted(.0))]
    Unsupported(Vec<String>),
    /// A checksum that can't be read.
    #[error(
        "qualifiers: `{CHECKSUM}` is not a checksum such as `sha256-` with 32 bytes in base64; sha256, sha384, \
         sha512, sha1 and blake3 are known"
    )]
    Checksum,
    /// A header that no client may set.
    #[error("qualifiers: the header `{0}` can't be set by a client")]
    Header(String),
}

impl DemandsError {
    /// The names of the qualifiers that are not supported.
    pub fn unsupported(&self) -> &[String] {
        match self {
            Self::Unsupported(names) => names,
            Self::Checksum | Self::Header(_) => &[],
        }
    }
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

/// The demands of a request on a fetch. It has no `Debug` form, since headers are secrets.
#[derive(Default, PartialEq, Eq)]
pub struct Demands {
    checksums: Vec<Checksum>,
    headers: Vec<Header>,
}

/// A hash that the content may have.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Checksum {
    function: DigestFunction,
    hex: String,
}

#[derive(PartialEq, Eq)]
struct Header {
    /// The URI that it is for; none for all.
    index: Option<usize>,
    name: String,
    value: String,
}

/// The hashes of content that streams by.
pub struct Checker {
    hashers: Vec<(DigestFunction, BlobHasher)>,
    checksums: Vec<Checksum>,
}

/// A hash that none of the demanded ones is.
#[derive(Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The function.
    pub function: DigestFunction,
    /// The hash of the content, in hexadecimal digits.
    pub found: String,
    /// The demanded ones.
    pub expected: String,
}

impl Demands {
    /// Reads the qualifiers of a request.
    ///
    /// # Errors
    /// [`DemandsError`] for qualifiers that can't be followed.
    pub fn of(names: &Names) -> Result<Self, DemandsError> {
        let mut demands = Self::default();
        let mut unsupported = Vec::new();
        for (name, value) in names.qualifiers() {
            if name == CHECKSUM {
                demands.checksums = checksums(value)?;
            } else if let Some((index, name)) = header_name(name) {
                let header = Header { index, name: name.to_owned(), value: value.to_owned() };
                demands.headers.push(header.checked()?);
            } else if name != CANONICAL_ID {
                unsupported.push(name.chars().take(80).collect());
            }
        }
        if unsupported.is_empty() {
            Ok(demands)
        } else {
            Err(DemandsError::Unsupported(unsupported))
        }
    }

    /// The headers of a request for the URI of that number.
    pub fn headers(&self, index: usize) -> impl Iterator<Item = (&str, &str)> {
        let is_for = move |header: &&Header| header.index.is_none_or(|only| only == index);
        self.headers.iter().filter(is_for).map(|it| (it.name.as_str(), it.value.as_str()))
    }

    /// Makes a checker of the demanded hashes.
    pub fn checker(&self) -> Checker {
        let mut functions: Vec<_> =
            self.checksums.iter().map(|checksum| checksum.function).collect();
        functions.sort();
        functions.dedup();
        let hashers = functions.into_iter().map(|function| (function, BlobHasher::new(function)));
        Checker { hashers: hashers.collect(), checksums: self.checksums.clone() }
    }
}

impl Header {
    fn checked(self) -> Result<Self, DemandsError> {
        let is_forbidden =
            FORBIDDEN_HEADERS.iter().any(|name| self.name.eq_ignore_ascii_case(name));
        let is_token =
            |char: char| char.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(char);
        let is_name = !self.name.is_empty() && self.name.chars().all(is_token);
        let is_value = self.value.chars().all(|char| char == '\t' || (' '..='~').contains(&char));
        if is_forbidden || !is_name || !is_value {
            return Err(DemandsError::Header(self.name.escape_default().take(80).collect()));
        }
        Ok(self)
    }
}

impl Checker {
    /// Takes in the next piece.
    pub fn update(&mut self, content: &[u8]) {
        for (_, hasher) in &mut self.hashers {
            hasher.update(content);
        }
    }

    /// Whether the content has a demanded hash of each function that has one.
    ///
    /// # Errors
    /// [`Mismatch`] for the first function of which it has none.
    pub fn finish(self) -> Result<(), Mismatch> {
        let Self { hashers, checksums } = self;
        for (function, hasher) in hashers {
            let found = hasher.finish().hex();
            let demanded = checksums.iter().filter(|checksum| checksum.function == function);
            let demanded: Vec<_> = demanded.map(|checksum| checksum.hex.as_str()).collect();
            if !demanded.contains(&found.as_str()) {
                return Err(Mismatch { function, found, expected: demanded.join(" or ") });
            }
        }
        Ok(())
    }
}

/// The URI and the name of the header that a qualifier is for.
fn header_name(qualifier: &str) -> Option<(Option<usize>, &str)> {
    if let Some(name) = qualifier.strip_prefix(HEADER) {
        return Some((None, name));
    }
    let (index, name) = qualifier.strip_prefix(HEADER_OF_ONE)?.split_once(':')?;
    Some((Some(index.parse().ok()?), name))
}

/// Reads a list of checksums; options behind a question mark mean nothing (W3C Subresource Integrity, 3.1).
fn checksums(text: &str) -> Result<Vec<Checksum>, DemandsError> {
    let all: Option<Vec<_>> = text.split_ascii_whitespace().map(checksum).collect();
    all.filter(|all| !all.is_empty()).ok_or(DemandsError::Checksum)
}

fn checksum(text: &str) -> Option<Checksum> {
    let text = text.split('?').next()?;
    let (function, hash) = text.split_once('-')?;
    // Anybody can make two files with one MD5.
    let function = DigestFunction::from_name(function).filter(|it| *it != DigestFunction::Md5)?;
    let hash = STANDARD.decode(hash).ok().filter(|hash| hash.len() == function.hash_bytes())?;
    let hex = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(Checksum { function, hex })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Kind;
    use model::Digest;
    use proto::build::bazel::remote::asset::v1::Qualifier;

    fn demands(list: &[(&str, &str)]) -> Result<Demands, DemandsError> {
        let qualifier =
            |&(name, value): &(&str, &str)| Qualifier { name: name.into(), value: value.into() };
        let qualifiers = list.iter().map(qualifier).collect();
        let uris = vec!["http://a/".to_owned(), "http://b/".to_owned()];
        Demands::of(&Names::parse(Kind::Blob, uris, qualifiers).unwrap())
    }

    /// The checksum of `content` as a client writes it.
    fn sri(function: DigestFunction, content: &[u8]) -> String {
        let hex = Digest::of(function, content).hex();
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        let hash: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        format!("{function}-{}", STANDARD.encode(hash))
    }

    fn is_accepted(checksum: &str, content: &[u8]) -> bool {
        let mut checker = demands(&[(CHECKSUM, checksum)]).unwrap().checker();
        content.chunks(3).for_each(|piece| checker.update(piece));
        checker.finish().is_ok()
    }

    #[test]
    fn content_has_the_hashes_that_are_demanded() {
        use DigestFunction::{Blake3, Sha1, Sha256, Sha384, Sha512};
        for function in [Sha256, Sha384, Sha512, Sha1, Blake3] {
            let right = sri(function, b"content");
            assert!(is_accepted(&right, b"content"), "{function}");
            assert!(is_accepted(&format!("{right}?option"), b"content"), "{function}");
            assert!(!is_accepted(&right, b"contents"), "{function}");
        }
        let two = format!("{}  {}", sri(Sha256, b"other"), sri(Sha256, b"content"));
        assert!(is_accepted(&two, b"content") && is_accepted(&two, b"other"));
        // A hash of each function must be right.
        let both = format!("{} {}", sri(Sha256, b"content"), sri(Sha512, b"other"));
        assert!(!is_accepted(&both, b"content") && !is_accepted(&both, b"other"));
        assert!(demands(&[]).unwrap().checker().finish().is_ok());
    }

    #[test]
    fn checksums_that_are_refused() {
        let md5 = sri(DigestFunction::Md5, b"content");
        for bad in ["", " ", "sha256", "sha256-", "sha256-!", "sha256-YWJj", "sha999-YWJj", &md5] {
            assert_eq!(demands(&[(CHECKSUM, bad)]).err(), Some(DemandsError::Checksum), "{bad:?}");
        }
    }

    #[test]
    fn headers_are_for_all_uris_or_for_one() {
        let list = [
            ("http_header:X-All", "a"),
            ("http_header_url:1:X-One", "b"),
            ("bazel.canonical_id", "c"),
        ];
        let demands = demands(&list).unwrap();
        let of = |index| demands.headers(index).collect::<Vec<_>>();
        assert_eq!(of(0), [("X-All", "a")]);
        assert_eq!(of(1), [("X-All", "a"), ("X-One", "b")]);
    }

    #[test]
    fn qualifiers_that_are_refused() {
        let header = |name: &str| Some(DemandsError::Header(name.to_owned()));
        for name in ["Host", "range", "Transfer-Encoding", "Accept-Encoding", "a b", ""] {
            assert_eq!(demands(&[(&format!("{HEADER}{name}"), "v")]).err(), header(name));
        }
        assert_eq!(demands(&[("http_header:X", "a\r\nHost: b")]).err(), header("X"));
        let unsupported =
            DemandsError::Unsupported(vec!["http_header_url:x:N".into(), "vcs".into()]);
        let list = [("vcs", "git"), ("http_header_url:x:N", "v"), ("bazel.canonical_id", "c")];
        assert_eq!(demands(&list).err(), Some(unsupported));
    }
}
