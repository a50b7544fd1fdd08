//! Whether a message of an upload may come now: the rules of `ByteStream.Write`
//! as a pure object.

use proto::google::bytestream::WriteRequest;
use tonic::{Code, Status};

use crate::compression::Compression;
use crate::resource_name::Resource;
use crate::status;

/// An error of an upload's message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WriteRefused {
    /// The stream ended before its first message.
    #[error("the stream ended before a resource was named")]
    Empty,
    /// A later message names another resource than the first.
    #[error("a later message names another resource than the first")]
    NameChanged,
    /// The first offset is not 0: nothing was received before.
    #[error("writing starts at offset {0}, but nothing of the blob is here: start at 0")]
    Start(i64),
    /// The first offset is not where an earlier stream ended.
    #[error(
        "writing starts at offset {found}, but {committed} bytes are here: go on there, or start at 0"
    )]
    Resume {
        /// The offset of the message.
        found: i64,
        /// The bytes that are here.
        committed: u64,
    },
    /// An offset does not follow from what was sent before.
    #[error("a message is for offset {found}, but {expected} bytes were sent before it")]
    Offset {
        /// The offset of the message.
        found: i64,
        /// The offset that would be right.
        expected: u64,
    },
    /// More data than the resource name says.
    #[error("more data than the {0} bytes of the resource name")]
    TooMuch(u64),
    /// The write was finished with less data than the resource name says.
    #[error("the write was finished after {found} of the {expected} bytes of the resource name")]
    TooLittle {
        /// The bytes that were sent.
        found: u64,
        /// The size in the resource name, in bytes.
        expected: u64,
    },
    /// A message came after the one with `finish_write`.
    #[error("a message came after the write was finished")]
    AfterFinish,
}

impl From<WriteRefused> for Status {
    fn from(error: WriteRefused) -> Self {
        let code = match error {
            WriteRefused::Start(_) | WriteRefused::Resume { .. } => Code::OutOfRange,
            _ => Code::InvalidArgument,
        };
        status::of(code, &error)
    }
}

/// The progress of an upload.
#[derive(Debug)]
pub(crate) struct Progress {
    name: String,
    /// The size of the uploaded form; that of a compressed one is not known.
    size_bytes: Option<u64>,
    /// The offset that comes next: with a compressed form that goes on, the bytes of the blob that were here plus the
    /// compressed ones since, as REAPI has it.
    sent_bytes: u64,
    finished: bool,
}

impl Progress {
    /// An upload that named `resource` as `name`, and of which that many bytes were sent before.
    pub(crate) fn from(name: String, resource: &Resource, sent_bytes: u64) -> Self {
        let size_bytes = match resource.compression {
            Compression::Identity => Some(resource.digest.size_bytes()),
            Compression::Zstd | Compression::Deflate | Compression::Brotli => None,
        };
        Self { name, size_bytes, sent_bytes, finished: false }
    }

    /// Takes note of `message`, if it may come now.
    pub(crate) fn accept(&mut self, message: &WriteRequest) -> Result<(), WriteRefused> {
        if self.finished {
            return Err(WriteRefused::AfterFinish);
        }
        if !message.resource_name.is_empty() && message.resource_name != self.name {
            return Err(WriteRefused::NameChanged);
        }
        self.check_offset(message.write_offset)?;
        self.sent_bytes += message.data.len() as u64;
        self.finished = message.finish_write;
        self.check_size()
    }

    fn check_offset(&self, offset: i64) -> Result<(), WriteRefused> {
        if u64::try_from(offset) == Ok(self.sent_bytes) {
            return Ok(());
        }
        Err(match self.sent_bytes {
            0 => WriteRefused::Start(offset),
            expected => WriteRefused::Offset { found: offset, expected },
        })
    }

    fn check_size(&self) -> Result<(), WriteRefused> {
        match self.size_bytes {
            Some(size) if self.sent_bytes > size => Err(WriteRefused::TooMuch(size)),
            Some(expected) if self.finished && self.sent_bytes < expected => {
                Err(WriteRefused::TooLittle { found: self.sent_bytes, expected })
            }
            _ => Ok(()),
        }
    }

    /// Whether the last message was the one with `finish_write`.
    pub(crate) fn finished(&self) -> bool {
        self.finished
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Digest, DigestFunction};

    /// A message: name, offset, data, finish.
    type Sent = (&'static str, i64, &'static str, bool);

    fn check(compression: Compression, sent: &[Sent], expected: Result<bool, WriteRefused>) {
        check_from(0, compression, sent, expected);
    }

    fn check_from(
        start: u64,
        compression: Compression,
        sent: &[Sent],
        expected: Result<bool, WriteRefused>,
    ) {
        let digest = Digest::of(DigestFunction::Sha256, b"abcdef");
        let resource = Resource { digest, compression };
        let mut progress = Progress::from("name".to_owned(), &resource, start);
        let outcome = sent.iter().try_for_each(|&(name, write_offset, data, finish_write)| {
            progress.accept(&WriteRequest {
                resource_name: name.to_owned(),
                write_offset,
                finish_write,
                data: data.into(),
            })
        });
        assert_eq!(outcome.map(|()| progress.finished()), expected, "{sent:?}");
    }

    #[test]
    fn codes() {
        assert_eq!(Status::from(WriteRefused::Start(3)).code(), Code::OutOfRange);
        let elsewhere = WriteRefused::Resume { found: 3, committed: 2 };
        assert_eq!(Status::from(elsewhere).code(), Code::OutOfRange);
        assert_eq!(Status::from(WriteRefused::AfterFinish).code(), Code::InvalidArgument);
    }

    #[test]
    fn the_rules_of_an_upload() {
        use Compression::{Identity, Zstd};
        use WriteRefused::{AfterFinish, NameChanged, Offset, Start, TooLittle, TooMuch};
        check(Identity, &[("name", 0, "abcdef", true)], Ok(true));
        check(Identity, &[("name", 0, "abc", false), ("", 3, "def", true)], Ok(true));
        check(Identity, &[("name", 0, "abc", false), ("name", 3, "def", false)], Ok(false));
        check(Identity, &[("name", 0, "abcdef", false), ("", 6, "", true)], Ok(true));
        check(Identity, &[("name", 3, "def", true)], Err(Start(3)));
        check(Identity, &[("name", -1, "", false)], Err(Start(-1)));
        let jump = &[("name", 0, "abc", false), ("", 4, "ef", true)];
        check(Identity, jump, Err(Offset { found: 4, expected: 3 }));
        check(Identity, &[("name", 0, "abc", false), ("other", 3, "", false)], Err(NameChanged));
        check(Identity, &[("name", 0, "abcdefg", true)], Err(TooMuch(6)));
        let little = Err(TooLittle { found: 3, expected: 6 });
        check(Identity, &[("name", 0, "abc", true)], little);
        let late = &[("name", 0, "abcdef", true), ("", 6, "", true)];
        check(Identity, late, Err(AfterFinish));
        check(Zstd, &[("name", 0, "abcdefgh", false), ("", 8, "i", true)], Ok(true));
        check(Zstd, &[("name", 0, "a", true)], Ok(true));
    }
    #[test]
    fn the_rules_of_an_upload_that_goes_on() {
        use Compression::{Identity, Zstd};
        use WriteRefused::{Offset, TooLittle, TooMuch};
        check_from(3, Identity, &[("name", 3, "def", true)], Ok(true));
        check_from(6, Identity, &[("name", 6, "", true)], Ok(true));
        check_from(3, Identity, &[("name", 3, "defg", true)], Err(TooMuch(6)));
        let little = Err(TooLittle { found: 4, expected: 6 });
        check_from(3, Identity, &[("name", 3, "d", true)], little);
        let back = &[("name", 3, "d", false), ("", 1, "ef", true)];
        check_from(3, Identity, back, Err(Offset { found: 1, expected: 4 }));
        check_from(3, Zstd, &[("name", 3, "compressed", false), ("", 13, "more", true)], Ok(true));
    }
}
