//! The headers that every call to an upstream carries, such as `authorization`.
//!
//! They are secrets: they come from a file, and neither an error nor the log shows a value.

use std::fmt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tonic::metadata::{Ascii, MetadataKey, MetadataMap, MetadataValue};

/// The largest file: HTTP/2 servers take some 16 KiB of headers.
const BYTES_MAX: u64 = 16 << 10;

/// The bits of a file's mode by which others than its owner and its group read it.
const OTHERS_READ: u32 = 0o004;

/// Headers of HTTP/2 and of gRPC itself.
const RESERVED: [&str; 6] =
    ["content-type", "te", "host", "connection", "user-agent", "content-length"];

/// Names and values of headers.
#[derive(Clone, Default)]
pub struct Headers(Vec<(MetadataKey<Ascii>, MetadataValue<Ascii>)>);

/// Why a file of headers can't be used.
#[derive(Debug, thiserror::Error)]
pub enum HeadersError {
    /// The file can't be read.
    #[error("can't read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// Everybody on the machine can read the file.
    #[error("{path} has mode {mode:04o}: everybody can read the secrets in it; `chmod 600` it")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is larger than headers may be.
    #[error("{path} has {size_bytes} bytes, and headers have at most {BYTES_MAX}")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        size_bytes: u64,
    },
    /// A line is not a header, or one that is not the operator's to set.
    #[error("line {line} of {path} is not a header of the form `name: value`")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
}

impl Headers {
    /// Reads a file with a header a line, as in `authorization: Bearer …`. Empty lines and those that begin
    /// with `#` are skipped.
    ///
    /// # Errors
    /// When the file can't be read, everybody can read it, or a line in it is no header.
    pub fn read(path: &Path) -> Result<Self, HeadersError> {
        let failed = |source| HeadersError::Read { path: path.to_owned(), source };
        let status = std::fs::metadata(path).map_err(failed)?;
        let mode = status.permissions().mode() & 0o7777;
        if mode & OTHERS_READ != 0 {
            return Err(HeadersError::Exposed { path: path.to_owned(), mode });
        }
        if status.len() > BYTES_MAX {
            return Err(HeadersError::TooLarge { path: path.to_owned(), size_bytes: status.len() });
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        Self::parse(&text).map_err(|line| HeadersError::Line { path: path.to_owned(), line })
    }

    /// The headers in `text`, or the number of the first line that is none.
    fn parse(text: &str) -> Result<Self, usize> {
        let lines = text.lines().zip(1..).map(|(line, number)| (line.trim(), number));
        let lines = lines.filter(|(line, _)| !line.is_empty() && !line.starts_with('#'));
        let headers = lines.map(|(line, number)| header(line).ok_or(number));
        headers.collect::<Result<_, _>>().map(Self)
    }

    /// The headers in a list `name=value,name=value`, whose values are percent-encoded: the form of
    /// OpenTelemetry's variables. `None` if a part is no header.
    pub fn from_list(list: &str) -> Option<Self> {
        if list.len() as u64 > BYTES_MAX {
            return None;
        }
        let parts = list.split(',').map(str::trim).filter(|part| !part.is_empty());
        let headers = parts.map(|part| {
            let (name, value) = part.split_once('=')?;
            header(&format!("{}:{}", name.trim(), percent_decoded(value.trim())?))
        });
        headers.collect::<Option<_>>().map(Self)
    }

    /// Whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds them to the headers of a call.
    pub fn add_to(&self, metadata: &mut MetadataMap) {
        for (name, value) in &self.0 {
            metadata.append(name.clone(), value.clone());
        }
    }
}

/// The text that was percent-encoded; `None` if it was not, or is no UTF-8.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            bytes.extend(hex::decode(digits).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

fn header(line: &str) -> Option<(MetadataKey<Ascii>, MetadataValue<Ascii>)> {
    let (name, value) = line.split_once(':')?;
    let name = name.trim().to_ascii_lowercase();
    if RESERVED.contains(&name.as_str()) || name.starts_with("grpc-") {
        return None;
    }
    let mut value: MetadataValue<Ascii> = value.trim().parse().ok()?;
    value.set_sensitive(true);
    Some((name.parse().ok()?, value))
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name.as_str())).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_header_a_line() {
        let headers =
            Headers::parse("# a comment\n\nAuthorization: Bearer a:b\nx-api-key:  k \n").unwrap();
        let mut metadata = MetadataMap::new();
        headers.add_to(&mut metadata);
        let value = |name: &str| metadata.get(name).and_then(|value| value.to_str().ok());
        assert_eq!(value("authorization"), Some("Bearer a:b"));
        assert_eq!(value("x-api-key"), Some("k"));
    }

    #[test]
    fn what_is_no_header_is_refused_by_its_line() {
        for (text, line) in [
            ("x: 1\nnonsense", 2),
            ("a name: 1", 1),
            ("x: \u{7f}", 1),
            ("te: trailers", 1),
            ("grpc-timeout: 1S", 1),
            ("x-bin: 1", 1),
        ] {
            assert_eq!(Headers::parse(text).map(|_| ()), Err(line), "{text}");
        }
    }

    #[test]
    fn a_list_has_percent_encoded_values() {
        let check = |list: &str, expected: Option<&[(&str, &str)]>| {
            let headers = Headers::from_list(list).map(|headers| {
                let mut metadata = MetadataMap::new();
                headers.add_to(&mut metadata);
                metadata.into_headers()
            });
            let expected = expected.map(|expected| {
                let mut metadata = MetadataMap::new();
                Headers(
                    expected
                        .iter()
                        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
                        .collect(),
                )
                .add_to(&mut metadata);
                metadata.into_headers()
            });
            assert_eq!(headers, expected, "{list}");
        };
        check("", Some(&[]));
        check("api-key=a%20b%2Cc=d", Some(&[("api-key", "a b,c=d")]));
        check(
            " X-Scope = 1 ,authorization=Basic%20eDp5,",
            Some(&[("x-scope", "1"), ("authorization", "Basic eDp5")]),
        );
        for wrong in ["nonsense", "a=%2", "a=%zz", "a=%ff", "te=trailers", "a b=1", "a=1%0ab"] {
            check(wrong, None);
        }
    }

    #[test]
    fn values_are_never_printed() {
        let headers = Headers::parse("authorization: secret").unwrap();
        assert_eq!(format!("{headers:?}"), r#"["authorization"]"#);
    }

    #[test]
    fn a_file_that_everybody_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("headers");
        std::fs::write(&path, "authorization: secret\n").unwrap();
        let set =
            |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        set(0o644);
        let refused = Headers::read(&path).unwrap_err();
        assert!(matches!(refused, HeadersError::Exposed { mode: 0o644, .. }), "{refused:?}");
        set(0o640);
        assert!(Headers::read(&path).is_ok());
        std::fs::write(&path, "secret").unwrap();
        let refused = Headers::read(&path).unwrap_err();
        assert!(!format!("{refused:?} {refused}").contains("secret"), "{refused}");
    }
}
