//! The names by which ByteStream knows blobs.
//!
//! ```text
//! read:  [instance/]blobs/[function/]hash/size
//! write: [instance/]uploads/uuid/blobs/[function/]hash/size[/metadata]
//! ```
//! and with `compressed-blobs/compressor` in place of `blobs`. An instance name
//! may have several segments, none of them a keyword, so the first keyword ends
//! it. The function must stand in the name for those that came after REAPI 2.2; of the others the length
//! of the hash tells which it is.

use std::str::Split;

use model::{Digest, DigestError, DigestFunction, InstanceName, NoSuchInstance};
use tonic::{Code, Status};

use crate::compression::Compression;
use crate::offer::Offer;
use crate::status;

/// Longest resource name, in bytes: more than any instance name, UUID, digest and
/// file name need, so that names can be repeated in messages and logs.
const MAX_NAME_BYTES: usize = 4096;

/// A blob, and how it travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Resource {
    pub(crate) digest: Digest,
    pub(crate) compression: Compression,
}

/// An error of a name that is not a resource name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ResourceNameError {
    /// The shape is wrong.
    #[error("the resource name is not of the form {expected}")]
    Form {
        /// The form for this method.
        expected: &'static str,
    },
    /// The hash or size is wrong.
    #[error("in the resource name")]
    Digest(#[from] DigestError),
    /// The server does not have that instance.
    #[error("in the resource name")]
    NoSuchInstance(#[from] NoSuchInstance),
    /// The size is no decimal number.
    #[error("in the resource name: `{0}` is not a size in bytes")]
    Size(String),
    /// The compressor is not among the announced ones.
    #[error("compressor `{0}` is not supported; use zstd, deflate or brotli")]
    Compressor(String),
    /// The name is longer than any name can be.
    #[error("the resource name is longer than {MAX_NAME_BYTES} bytes")]
    TooLong,
}

impl From<ResourceNameError> for Status {
    fn from(error: ResourceNameError) -> Self {
        status::of(Code::InvalidArgument, &error)
    }
}

const READ_FORM: &str = "[instance/]blobs/[digest function/]hash/size";
const WRITE_FORM: &str = "[instance/]uploads/uuid/blobs/[digest function/]hash/size[/metadata]";

/// Reads the name in a `ReadRequest`.
pub(crate) fn parse_read(name: &str, offer: &Offer) -> Result<Resource, ResourceNameError> {
    check_length(name)?;
    let form = ResourceNameError::Form { expected: READ_FORM };
    let named = after_instance(name, &["blobs", "compressed-blobs"]);
    let (instance, mut segments) = named.ok_or_else(|| form.clone())?;
    offer.instances.check(instance)?;
    let resource = blob(&mut segments, &form, offer)?;
    if segments.next().is_some() { Err(form) } else { Ok(resource) }
}

/// Reads the name in a `WriteRequest` or a `QueryWriteStatusRequest`.
pub(crate) fn parse_write(name: &str, offer: &Offer) -> Result<Resource, ResourceNameError> {
    check_length(name)?;
    let form = ResourceNameError::Form { expected: WRITE_FORM };
    let named = after_instance(name, &["uploads"]);
    let (instance, mut segments) = named.ok_or_else(|| form.clone())?;
    offer.instances.check(instance)?;
    let uuid = segments.nth(1).unwrap_or_default();
    if uuid.is_empty() { Err(form) } else { blob(&mut segments, &form, offer) }
}

fn check_length(name: &str) -> Result<(), ResourceNameError> {
    if name.len() > MAX_NAME_BYTES { Err(ResourceNameError::TooLong) } else { Ok(()) }
}

/// The instance name, and the segments from the first keyword on, if what is before it is an instance name or nothing.
fn after_instance<'a>(name: &'a str, keywords: &[&str]) -> Option<(&'a str, Split<'a, char>)> {
    let mut start = 0;
    for segment in name.split('/') {
        if keywords.contains(&segment) {
            let instance = name[..start].strip_suffix('/');
            let is_valid = instance.is_none_or(|it| !it.is_empty() && InstanceName::is_valid(it));
            return is_valid.then(|| (instance.unwrap_or(""), name[start..].split('/')));
        }
        start += segment.len() + 1;
    }
    None
}

/// Reads the keyword `blobs` or `compressed-blobs` and what follows it.
fn blob<'a>(
    segments: &mut impl Iterator<Item = &'a str>,
    form: &ResourceNameError,
    offer: &Offer,
) -> Result<Resource, ResourceNameError> {
    let mut next = || segments.next().ok_or_else(|| form.clone());
    let compression = match next()? {
        "blobs" => Compression::Identity,
        "compressed-blobs" => compressor(next()?)?,
        _ => return Err(form.clone()),
    };
    let mut hash = next()?;
    let named = DigestFunction::from_name(hash);
    if named.is_some() {
        hash = next()?;
    }
    let size = next()?;
    let function = match named {
        Some(function) => offer.functions.read(function.to_proto(), [])?,
        None => offer.functions.infer(hash.len())?,
    };
    Ok(Resource { digest: Digest::parse_hex(function, hash, size_bytes(size)?)?, compression })
}

fn compressor(name: &str) -> Result<Compression, ResourceNameError> {
    let unknown = || ResourceNameError::Compressor(name.chars().take(40).collect());
    Compression::from_name(name).ok_or_else(unknown)
}

/// Reads a decimal number; `parse` alone would allow a sign.
fn size_bytes(text: &str) -> Result<u64, ResourceNameError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits
        .then(|| text.parse().ok())
        .flatten()
        .ok_or_else(|| ResourceNameError::Size(text.chars().take(40).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::DigestFunctions;

    const HASH: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn resource(function: DigestFunction, compression: Compression) -> Resource {
        let digest = Digest::parse_hex(function, HASH, 3).unwrap();
        Resource { digest, compression }
    }

    type Parse = fn(&str, &Offer) -> Result<Resource, ResourceNameError>;

    fn check(parse: Parse, name: &str, good: Resource) {
        let name = name.replace("HASH", HASH);
        assert_eq!(parse(&name, &Offer::default()), Ok(good), "{name}");
    }

    fn refuse(parse: Parse, name: &str) {
        let name = name.replace("HASH", HASH);
        assert!(parse(&name, &Offer::default()).is_err(), "{name}");
    }

    #[test]
    fn names_of_every_function() {
        let offer = |functions| Offer { functions, ..Offer::default() };
        let all = offer(DigestFunctions::of(DigestFunction::ALL));
        for function in DigestFunction::ALL {
            let digest = Digest::of(function, b"abc");
            let good = Ok(Resource { digest, compression: Compression::Identity });
            assert_eq!(parse_read(&format!("blobs/{function}/{digest}"), &all), good);
            assert_eq!(parse_write(&format!("uploads/u/blobs/{function}/{digest}"), &all), good);
            if function.resource_name_segment().is_none() {
                assert_eq!(parse_read(&format!("a/blobs/{digest}"), &all), good);
                let others = DigestFunction::ALL.into_iter().filter(|other| *other != function);
                let others = offer(DigestFunctions::of(others));
                let refused = parse_read(&format!("blobs/{function}/{digest}"), &others);
                let not_offered = matches!(
                    refused,
                    Err(ResourceNameError::Digest(DigestError::NotOffered { .. }))
                );
                assert!(not_offered, "{refused:?}");
            }
        }
    }

    #[test]
    fn names_to_read() {
        use Compression::{Brotli, Deflate, Identity, Zstd};
        use DigestFunction::{Blake3, Sha256};
        check(parse_read, "blobs/HASH/3", resource(Sha256, Identity));
        check(parse_read, "instance/blobs/HASH/3", resource(Sha256, Identity));
        check(parse_read, "a/b/c/blobs/HASH/3", resource(Sha256, Identity));
        check(parse_read, "blobs/sha256/HASH/3", resource(Sha256, Identity));
        check(parse_read, "a/blobs/blake3/HASH/3", resource(Blake3, Identity));
        check(parse_read, "compressed-blobs/zstd/HASH/3", resource(Sha256, Zstd));
        check(parse_read, "a/compressed-blobs/zstd/blake3/HASH/3", resource(Blake3, Zstd));
        check(parse_read, "compressed-blobs/deflate/HASH/3", resource(Sha256, Deflate));
        check(parse_read, "compressed-blobs/brotli/sha256/HASH/3", resource(Sha256, Brotli));
    }

    #[test]
    fn names_to_write() {
        use Compression::{Brotli, Deflate, Identity, Zstd};
        use DigestFunction::{Blake3, Sha256};
        check(parse_write, "uploads/u/blobs/HASH/3", resource(Sha256, Identity));
        check(parse_write, "a/b/uploads/u/blobs/HASH/3", resource(Sha256, Identity));
        check(parse_write, "uploads/u/blobs/HASH/3/some/file.txt", resource(Sha256, Identity));
        check(parse_write, "uploads/u/blobs/blake3/HASH/3/x", resource(Blake3, Identity));
        check(parse_write, "uploads/u/compressed-blobs/zstd/HASH/3/x", resource(Sha256, Zstd));
        check(parse_write, "uploads/u/compressed-blobs/deflate/HASH/3", resource(Sha256, Deflate));
        check(parse_write, "uploads/u/compressed-blobs/brotli/HASH/3", resource(Sha256, Brotli));
        check(parse_write, "uploads/blobs/blobs/HASH/3", resource(Sha256, Identity));
    }

    #[test]
    fn names_in_other_instances_are_refused() {
        let offer = Offer { instances: "main,team/a".parse().unwrap(), ..Offer::default() };
        let check = |name: &str, is_good: bool| {
            let name = name.replace("HASH", HASH);
            let parse = if name.contains("uploads") { parse_write } else { parse_read };
            let outcome = parse(&name, &offer);
            let is_refused = matches!(outcome, Err(ResourceNameError::NoSuchInstance(_)));
            assert_eq!((outcome.is_ok(), is_refused), (is_good, !is_good), "{name}");
        };
        check("main/blobs/HASH/3", true);
        check("team/a/uploads/u/blobs/HASH/3", true);
        check("blobs/HASH/3", false);
        check("team/compressed-blobs/zstd/HASH/3", false);
        check("uploads/u/blobs/HASH/3", false);
    }

    #[test]
    fn names_that_are_refused() {
        for name in [
            "",
            "/",
            "blobs",
            "blobs/HASH",
            "/blobs/HASH/3",
            "a//blobs/HASH/3",
            "blobs/HASH/3/more",
            "blobs/HASH/",
            "blobs/HASH/+3",
            "blobs/HASH/-3",
            "blobs/HASH/3x",
            "blobs/HASH/99999999999999999999",
            "blobs/HASHa/3",
            "blobs/md5/HASH/3",
            "blobs/../HASH/3",
            "actions/blobs/HASH/3",
            "a/actions/b/blobs/HASH/3",
            "uploads/u/blobs/HASH/3",
            "compressed-blobs/HASH/3",
            "compressed-blobs/gzip/HASH/3",
            "compressed-blobs/Brotli/HASH/3",
            "compressed-blobs/identity/HASH/3",
        ] {
            refuse(parse_read, name);
        }
        for name in [
            "",
            "blobs/HASH/3",
            "uploads/blobs/HASH/3",
            "uploads//blobs/HASH/3",
            "uploads/u/HASH/3",
            "uploads/u/v/blobs/HASH/3",
            "uploads/u/blobs/HASH",
            "uploads/u/compressed-blobs/lz4/HASH/3",
        ] {
            refuse(parse_write, name);
        }
        refuse(parse_read, &format!("{}blobs/HASH/3", "a/".repeat(4000)));
        refuse(parse_read, &format!("{}/blobs/HASH/3", "a".repeat(256)));
    }
}
