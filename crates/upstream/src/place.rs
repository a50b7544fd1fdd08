//! Where an upstream is: at a server of the Remote Execution API, or in an object store.
//!
//! `file:///PATH`, `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` and `az://CONTAINER/PREFIX` are object stores; the prefix is
//! optional. Everything else about one, its credentials above all, comes from the environment.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use crate::address::{Address, AddressError};

/// The place of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A server of the Remote Execution API.
    Server(Address),
    /// An object store.
    Objects(ObjectsAddress),
}

/// The address of objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectsAddress {
    /// A directory of this machine or of a network file system.
    Files(PathBuf),
    /// A bucket of a service.
    Bucket {
        /// The service.
        service: Service,
        /// The name of the bucket, or of the container.
        bucket: String,
        /// The beginning of the name of each object, without slashes at its ends; may be empty.
        prefix: String,
    },
}

/// A service that keeps objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Amazon's S3, or another server that speaks its protocol.
    S3,
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage.
    Azure,
}

impl Service {
    const ALL: [Self; 3] = [Self::S3, Self::Google, Self::Azure];

    /// The scheme of its addresses.
    pub(crate) fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Google => "gs",
            Self::Azure => "az",
        }
    }
}

/// An error of the text of a place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// There is no such scheme.
    #[error(
        "use grpc://HOST:PORT/INSTANCE, grpcs://HOST:PORT/INSTANCE, file:///PATH, s3://BUCKET/PREFIX, \
         gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"
    )]
    Scheme,
    /// The address of a server is malformed.
    #[error(transparent)]
    Server(#[from] AddressError),
    /// The path is not absolute and clean.
    #[error("use file:///PATH, an absolute path without `..`")]
    Path,
    /// The bucket is malformed.
    #[error("the name of a bucket has 1 to 255 letters, digits, `.`, `-` and `_`")]
    Bucket,
    /// The prefix is malformed.
    #[error(
        "a prefix has words of letters, digits and `.-_=+` between single slashes, 512 bytes at most"
    )]
    Prefix,
    /// There is a user, a password or a signature in it, which everybody on the machine could read.
    #[error("credentials do not belong into an address: give them in the environment")]
    Credentials,
}

impl Place {
    /// The address of the server, if it is one.
    pub fn server(&self) -> Option<&Address> {
        match self {
            Self::Server(address) => Some(address),
            Self::Objects(_) => None,
        }
    }
}

impl FromStr for Place {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        let (scheme, rest) = text.split_once("://").ok_or(PlaceError::Scheme)?;
        if matches!(scheme, "grpc" | "grpcs") {
            return Ok(Self::Server(text.parse()?));
        }
        if scheme == "file" {
            return files(rest).map(Self::Objects);
        }
        let service = Service::ALL.into_iter().find(|service| service.scheme() == scheme);
        bucket(service.ok_or(PlaceError::Scheme)?, rest).map(Self::Objects)
    }
}

fn files(path: &str) -> Result<ObjectsAddress, PlaceError> {
    let path = Path::new(path);
    let is_clean = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    if !path.is_absolute() || !path.components().all(is_clean) {
        return Err(PlaceError::Path);
    }
    Ok(ObjectsAddress::Files(path.components().collect()))
}

fn bucket(service: Service, rest: &str) -> Result<ObjectsAddress, PlaceError> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if rest.contains(['@', '?']) {
        return Err(PlaceError::Credentials);
    }
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    if !(1..=255).contains(&bucket.len()) || !bucket.bytes().all(is_name) {
        return Err(PlaceError::Bucket);
    }
    if prefix.starts_with('/') {
        return Err(PlaceError::Prefix);
    }
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    let is_word = |word: &str| {
        !matches!(word, "" | "." | "..")
            && word.bytes().all(|byte| is_name(byte) || b"=+".contains(&byte))
    };
    if prefix.len() > 512 || !(prefix.is_empty() || prefix.split('/').all(is_word)) {
        return Err(PlaceError::Prefix);
    }
    Ok(ObjectsAddress::Bucket { service, bucket: bucket.to_owned(), prefix: prefix.to_owned() })
}

impl From<Address> for Place {
    fn from(address: Address) -> Self {
        Self::Server(address)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(address) => address.fmt(f),
            Self::Objects(address) => address.fmt(f),
        }
    }
}

impl fmt::Display for ObjectsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files(path) => write!(f, "file://{}", path.display()),
            Self::Bucket { service, bucket, prefix } if prefix.is_empty() => {
                write!(f, "{}://{bucket}", service.scheme())
            }
            Self::Bucket { service, bucket, prefix } => {
                write!(f, "{}://{bucket}/{prefix}", service.scheme())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, PlaceError>) {
        let found = text.parse::<Place>().map(|place| place.to_string());
        assert_eq!(found, expected.map(str::to_owned), "{text}");
    }

    #[test]
    fn places() {
        for text in
            ["grpc://cache:1", "grpcs://[::1]:443/team", "file:///", "file:///var/cache/a b"]
        {
            check(text, Ok(text));
        }
        for text in ["s3://bucket", "gs://my.bucket_1/team/project", "az://container/a=b"] {
            check(text, Ok(text));
        }
        check("s3://bucket/", Ok("s3://bucket"));
        check("file:///a//b/", Ok("file:///a/b"));
        check("file:///a/./b", Ok("file:///a/b"));
        check("http://cache:1", Err(PlaceError::Scheme));
        check("bucket/prefix", Err(PlaceError::Scheme));
        check("S3://bucket", Err(PlaceError::Scheme));
        check("grpc://cache", Err(PlaceError::Server(AddressError::Form)));
        for wrong in ["file://a/b", "file://", "file:///a/../etc"] {
            check(wrong, Err(PlaceError::Path));
        }
        for wrong in ["s3://", "s3:///prefix", "gs://a b", "az://a:b"] {
            check(wrong, Err(PlaceError::Bucket));
        }
        for wrong in
            ["s3://b/a//b", "s3://b//", "s3://b/../c", "s3://b/.", "s3://b/a%2fb", "s3://b/#"]
        {
            check(wrong, Err(PlaceError::Prefix));
        }
        check(&format!("s3://b/{}", "x".repeat(513)), Err(PlaceError::Prefix));
        for wrong in ["s3://key:secret@bucket", "az://container?sv=1&sig=secret"] {
            check(wrong, Err(PlaceError::Credentials));
        }
    }
}
