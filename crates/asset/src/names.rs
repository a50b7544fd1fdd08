//! The URIs and qualifiers of a request, and the keys that they have in the store.

use model::{Digest, DigestFunction};
use proto::build::bazel::remote::asset::v1::Qualifier;

/// The number of URIs of one request: a file and all of its mirrors. Each is a look into the store or a record.
const MAX_URIS: usize = 64;

/// The length of a URI in bytes: what HTTP servers take.
const MAX_URI_BYTES: usize = 8 << 10;

/// The number of qualifiers of one request.
const MAX_QUALIFIERS: usize = 64;

/// The length of a qualifier's name and value together, in bytes.
const MAX_QUALIFIER_BYTES: usize = 8 << 10;

/// The kind of an asset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A blob.
    Blob,
    /// A tree of directories.
    Directory,
}

impl Kind {
    fn tag(self) -> &'static [u8] {
        match self {
            Self::Blob => b"blob",
            Self::Directory => b"directory",
        }
    }
}

/// An error of a request's URIs or qualifiers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NamesError {
    /// There is no URI.
    #[error("uris: the request has no URI")]
    NoUri,
    /// There are too many URIs.
    #[error("uris: {0} are more than {MAX_URIS}")]
    TooManyUris(usize),
    /// A URI is empty or too long.
    #[error("uris: one of {0} bytes; 1 to {MAX_URI_BYTES} are allowed")]
    UriLength(usize),
    /// There are too many qualifiers.
    #[error("qualifiers: {0} are more than {MAX_QUALIFIERS}")]
    TooManyQualifiers(usize),
    /// A qualifier has no name.
    #[error("qualifiers: one has no name")]
    NoName,
    /// A qualifier is too long.
    #[error("qualifiers: `{name}` has {size_bytes} bytes; {MAX_QUALIFIER_BYTES} is the most")]
    QualifierLength {
        /// The start of its name.
        name: String,
        /// The length of name and value.
        size_bytes: usize,
    },
    /// A name comes twice.
    #[error("qualifiers: `{0}` comes twice")]
    Twice(String),
}

/// The names of an asset: at least one URI, and qualifiers that hold for all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    kind: Kind,
    uris: Vec<String>,
    /// By name, each once.
    qualifiers: Vec<(String, String)>,
}

impl Names {
    /// Reads the fields of a request for that kind of asset.
    ///
    /// # Errors
    /// [`NamesError`] for what the API forbids, and for what is over a bound.
    pub fn parse(
        kind: Kind,
        uris: Vec<String>,
        qualifiers: Vec<Qualifier>,
    ) -> Result<Self, NamesError> {
        match uris.len() {
            0 => return Err(NamesError::NoUri),
            1..=MAX_URIS => {}
            many => return Err(NamesError::TooManyUris(many)),
        }
        let bad_length =
            uris.iter().map(String::len).find(|len| !(1..=MAX_URI_BYTES).contains(len));
        if let Some(length) = bad_length {
            return Err(NamesError::UriLength(length));
        }
        if qualifiers.len() > MAX_QUALIFIERS {
            return Err(NamesError::TooManyQualifiers(qualifiers.len()));
        }
        let mut qualifiers =
            qualifiers.into_iter().map(qualifier).collect::<Result<Vec<_>, _>>()?;
        qualifiers.sort();
        match qualifiers.windows(2).find(|two| two[0].0 == two[1].0) {
            Some(two) => Err(NamesError::Twice(start(&two[0].0))),
            None => Ok(Self { kind, uris, qualifiers }),
        }
    }

    /// The kind of the asset.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The same qualifiers for one URI of these.
    pub fn of_one(&self, uri: &str) -> Self {
        Self { uris: vec![uri.to_owned()], qualifiers: self.qualifiers.clone(), ..*self }
    }

    /// The names and values of the qualifiers, by name.
    pub fn qualifiers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.qualifiers.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Each URI with its key. The key stands for the kind, the URI and all qualifiers, so that content is found by
    /// exactly the qualifiers that it was pushed with.
    pub fn keys(&self) -> impl Iterator<Item = (&str, Digest)> {
        self.uris.iter().map(|uri| (uri.as_str(), self.key(uri)))
    }

    fn key(&self, uri: &str) -> Digest {
        let mut text = Vec::new();
        // With their lengths before them, two lists of fields never make the same text.
        let mut add = |field: &[u8]| {
            text.extend_from_slice(&(field.len() as u64).to_le_bytes());
            text.extend_from_slice(field);
        };
        add(self.kind.tag());
        add(uri.as_bytes());
        for (name, value) in &self.qualifiers {
            add(name.as_bytes());
            add(value.as_bytes());
        }
        Digest::of(DigestFunction::Sha256, &text)
    }
}

fn qualifier(Qualifier { name, value }: Qualifier) -> Result<(String, String), NamesError> {
    let size_bytes = name.len() + value.len();
    if name.is_empty() {
        Err(NamesError::NoName)
    } else if size_bytes > MAX_QUALIFIER_BYTES {
        Err(NamesError::QualifierLength { name: start(&name), size_bytes })
    } else {
        Ok((name, value))
    }
}

/// As much of a client's text as a message needs.
fn start(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn qualifiers(list: &[(&str, &str)]) -> Vec<Qualifier> {
        let qualifier =
            |&(name, value): &(&str, &str)| Qualifier { name: name.into(), value: value.into() };
        list.iter().map(qualifier).collect()
    }

    fn key(kind: Kind, uri: &str, list: &[(&str, &str)]) -> Digest {
        let names = Names::parse(kind, vec![uri.to_owned()], qualifiers(list)).unwrap();
        names.keys().next().unwrap().1
    }

    #[test]
    fn a_key_stands_for_all_that_names_an_asset_and_not_for_an_order() {
        use Kind::{Blob, Directory};
        let keys = [
            key(Blob, "urn:a", &[]),
            key(Directory, "urn:a", &[]),
            key(Blob, "urn:b", &[]),
            key(Blob, "urn:a", &[("n", "v")]),
            key(Blob, "urn:a", &[("n", "w")]),
            key(Blob, "urn:a", &[("nv", "")]),
            key(Blob, "urn:a", &[("n", "v"), ("o", "")]),
        ];
        assert_eq!(keys.iter().map(Digest::hex).collect::<BTreeSet<_>>().len(), keys.len());
        let one = key(Blob, "urn:a", &[("n", "v"), ("o", "w")]);
        assert_eq!(one, key(Blob, "urn:a", &[("o", "w"), ("n", "v")]));
    }

    /// The keys of records that are in stores.
    #[test]
    fn keys_stay_what_they_are() {
        let found = key(Kind::Blob, "urn:a", &[("n", "v")]);
        let text =
            b"\x04\0\0\0\0\0\0\0blob\x05\0\0\0\0\0\0\0urn:a\x01\0\0\0\0\0\0\0n\x01\0\0\0\0\0\0\0v";
        assert_eq!(found, Digest::of(DigestFunction::Sha256, text));
    }

    #[test]
    fn names_that_are_refused() {
        let check = |uris: Vec<String>, list: &[(&str, &str)], expected: NamesError| {
            assert_eq!(Names::parse(Kind::Blob, uris, qualifiers(list)), Err(expected));
        };
        let one = || vec!["urn:a".to_owned()];
        check(vec![], &[], NamesError::NoUri);
        check(vec!["u".into(); 65], &[], NamesError::TooManyUris(65));
        check(vec!["u".into(), String::new()], &[], NamesError::UriLength(0));
        check(vec!["u".repeat(8193)], &[], NamesError::UriLength(8193));
        check(one(), &[("", "v")], NamesError::NoName);
        check(one(), &[("n", "v"), ("m", ""), ("n", "w")], NamesError::Twice("n".into()));
        let long = "v".repeat(8192);
        let too_long = NamesError::QualifierLength { name: "n".into(), size_bytes: 8193 };
        check(one(), &[("n", &long)], too_long);
        let many: Vec<String> = (0..65).map(|number| number.to_string()).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "")).collect();
        check(one(), &many, NamesError::TooManyQualifiers(65));
        assert!(Names::parse(Kind::Blob, vec!["u".repeat(8192); 64], vec![]).is_ok());
    }
}
