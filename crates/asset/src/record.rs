//! An association: its content, its age, and what else must be there.

use std::time::{Duration, SystemTime};

use model::{Digest, DigestError, DigestFunction};
use prost::Message as _;
use proto::actiond::internal::v1::Asset;
use proto::build::bazel::remote::execution::v2 as reapi;
use proto::google::protobuf::Timestamp;

/// Blobs and directories that a record refers to at most: an artifact of BuildStream has a handful, and each is
/// asked for whenever the record is served.
const MAX_REFERENCES: usize = 10_000;

/// An error of a record's fields.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A digest is missing or malformed.
    #[error("{field}")]
    Digest {
        /// The field of the request.
        field: &'static str,
        /// The problem with it.
        source: DigestError,
    },
    /// It refers to too many blobs and directories.
    #[error("references: {0} are more than {MAX_REFERENCES}")]
    TooManyReferences(usize),
    /// A time is before 1970, or not one.
    #[error("{0}: not a time since 1970")]
    Time(&'static str),
}

/// The content of a URI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    digest: Digest,
    since: SystemTime,
    expire_at: Option<SystemTime>,
    blobs: Vec<Digest>,
    directories: Vec<Digest>,
}

/// The fields of a request from which a record is made.
#[derive(Debug, Default)]
pub struct Fields<'a> {
    /// The name of the field with the digest.
    pub digest_field: &'static str,
    /// The content.
    pub digest: Option<&'a reapi::Digest>,
    /// The time from which on it is not served.
    pub expire_at: Option<Timestamp>,
    /// Blobs that it refers to.
    pub blobs: &'a [reapi::Digest],
    /// Directories that it refers to.
    pub directories: &'a [reapi::Digest],
}

impl Record {
    /// The record of what a client pushes now.
    ///
    /// # Errors
    /// [`RecordError`] for fields that are malformed or over a bound.
    pub fn parse(
        fields: &Fields<'_>,
        function: DigestFunction,
        now: SystemTime,
    ) -> Result<Self, RecordError> {
        let references = fields.blobs.len() + fields.directories.len();
        if references > MAX_REFERENCES {
            return Err(RecordError::TooManyReferences(references));
        }
        let digest = Digest::from_proto_field(fields.digest, function)
            .map_err(|source| RecordError::Digest { field: fields.digest_field, source })?;
        let all = |field, list: &[reapi::Digest]| {
            let parse = |one| {
                Digest::from_proto(one, function)
                    .map_err(|source| RecordError::Digest { field, source })
            };
            list.iter().map(parse).collect::<Result<Vec<_>, _>>()
        };
        let expire_at = fields.expire_at.map(|time| parse_time("expire_at", &time)).transpose()?;
        Ok(Self {
            digest,
            since: now,
            expire_at,
            blobs: all("references_blobs", fields.blobs)?,
            directories: all("references_directories", fields.directories)?,
        })
    }

    /// The record of a blob whose retrieval from its origin began at that time.
    pub fn of_fetched(digest: Digest, since: SystemTime) -> Self {
        Self { digest, since, expire_at: None, blobs: Vec::new(), directories: Vec::new() }
    }

    /// The blob, or the root of the directory tree.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The blobs that it refers to.
    pub fn blobs(&self) -> &[Digest] {
        &self.blobs
    }

    /// The roots of the directory trees that it refers to.
    pub fn directories(&self) -> &[Digest] {
        &self.directories
    }

    /// The time from which on it is not served.
    pub fn expire_at(&self) -> Option<Timestamp> {
        self.expire_at.map(Timestamp::from)
    }

    /// Whether it may be served `now` to a client that wants nothing older than `oldest`.
    pub fn is_served(&self, now: SystemTime, oldest: Option<SystemTime>) -> bool {
        self.expire_at.is_none_or(|end| now < end)
            && oldest.is_none_or(|oldest| self.since >= oldest)
    }

    /// Its form in the store.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let all = |list: &[Digest]| list.iter().map(Digest::to_proto).collect();
        let message = Asset {
            digest: Some(self.digest.to_proto()),
            digest_function: self.digest.function().to_proto(),
            since: Some(self.since.into()),
            expire_at: self.expire_at.map(Timestamp::from),
            blobs: all(&self.blobs),
            directories: all(&self.directories),
        };
        message.encode_to_vec()
    }

    /// Reads the form in the store. `None` for what no version of this server has written.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let message = Asset::decode(bytes).ok()?;
        let function = DigestFunction::from_proto(message.digest_function).ok()??;
        let all = |list: &[reapi::Digest]| {
            list.iter().map(|one| Digest::from_proto(one, function)).collect::<Result<Vec<_>, _>>()
        };
        Some(Self {
            digest: Digest::from_proto_field(message.digest.as_ref(), function).ok()?,
            since: parse_time("since", &message.since?).ok()?,
            expire_at: message
                .expire_at
                .map(|time| parse_time("expire_at", &time))
                .transpose()
                .ok()?,
            blobs: all(&message.blobs).ok()?,
            directories: all(&message.directories).ok()?,
        })
    }
}

/// Reads a time of a request.
///
/// # Errors
/// [`RecordError::Time`] with the name of the field.
pub fn parse_time(field: &'static str, time: &Timestamp) -> Result<SystemTime, RecordError> {
    let seconds = u64::try_from(time.seconds).ok();
    let nanos = u32::try_from(time.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    let (Some(seconds), Some(nanos)) = (seconds, nanos) else {
        return Err(RecordError::Time(field));
    };
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::new(seconds, nanos))
        .ok_or(RecordError::Time(field))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FUNCTION: DigestFunction = DigestFunction::Blake3;

    fn time(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn parse(change: impl FnOnce(&mut Fields<'_>)) -> Result<Record, RecordError> {
        let digest = Digest::of(FUNCTION, b"content").to_proto();
        let mut fields =
            Fields { digest_field: "blob_digest", digest: Some(&digest), ..Fields::default() };
        change(&mut fields);
        Record::parse(&fields, FUNCTION, time(1000))
    }

    #[test]
    fn a_record_comes_back_from_the_store() {
        let references =
            [Digest::of(FUNCTION, b"a").to_proto(), Digest::of(FUNCTION, b"b").to_proto()];
        let digest = Digest::of(FUNCTION, b"content").to_proto();
        let fields = Fields {
            digest_field: "blob_digest",
            digest: Some(&digest),
            expire_at: Some(Timestamp { seconds: 2000, nanos: 7 }),
            blobs: &references,
            directories: &references[1..],
        };
        let record = Record::parse(&fields, FUNCTION, time(1000)).unwrap();
        assert_eq!((record.blobs().len(), record.directories().len()), (2, 1));
        assert_eq!(Record::decode(&record.encode()), Some(record));
        let plain = parse(|_| {}).unwrap();
        assert_eq!(Record::decode(&plain.encode()), Some(plain));
        for damaged in [&b""[..], b"\xff", &[0x12, 1]] {
            assert_eq!(Record::decode(damaged), None);
        }
    }

    #[test]
    fn fields_that_are_refused() {
        let missing = parse(|fields| fields.digest = None).unwrap_err();
        assert!(matches!(missing, RecordError::Digest { field: "blob_digest", .. }), "{missing}");
        let bad = [reapi::Digest { hash: "x".into(), size_bytes: 1 }];
        let digest = Digest::of(FUNCTION, b"content").to_proto();
        let check = |blobs: &[reapi::Digest], directories: &[reapi::Digest], expected: &str| {
            let fields = Fields { digest: Some(&digest), blobs, directories, ..Fields::default() };
            let refused = Record::parse(&fields, FUNCTION, time(0)).unwrap_err();
            assert_eq!(refused.to_string(), expected);
        };
        check(&bad, &[], "references_blobs");
        check(&[], &bad, "references_directories");
        let many = vec![digest.clone(); MAX_REFERENCES];
        check(&many, &many[..1], "references: 10001 are more than 10000");
        for wrong in [(-1, 0), (0, -1), (0, 1_000_000_000)] {
            let expire_at = Some(Timestamp { seconds: wrong.0, nanos: wrong.1 });
            let refused = parse(|fields| fields.expire_at = expire_at);
            assert_eq!(refused, Err(RecordError::Time("expire_at")));
        }
    }

    #[test]
    fn a_record_has_a_beginning_and_an_end() {
        let record = parse(|fields| {
            fields.expire_at = Some(Timestamp { seconds: 2000, nanos: 0 });
        })
        .unwrap();
        assert!(record.is_served(time(1999), None));
        assert!(!record.is_served(time(2000), None));
        assert!(record.is_served(time(1500), Some(time(1000))));
        assert!(!record.is_served(time(1500), Some(time(1001))));
        assert!(parse(|_| {}).unwrap().is_served(time(u64::from(u32::MAX)), None));
    }
}
