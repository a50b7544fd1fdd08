//! Records in the store, and whether their content is there.
//!
//! A record is an entry of the store's action cache, under an instance name that no client can have and with the
//! asset's key in place of an action. So it is bounded, evicted, recovered and synced like cached results.

use std::collections::HashSet;
use std::time::SystemTime;

use model::{Digest, Directory, Entry, InstanceName};
use store::{Store, StoreError};

use crate::names::{Kind, Names};
use crate::record::Record;

/// The directories of the trees of one record that are looked at: as many as one of the largest input trees has. A
/// record with more is not served.
pub const MAX_DIRECTORIES: usize = 100_000;

/// The start of the instance names of records. A client's instance name has no segment `blobs`.
const INSTANCE_PREFIX: &str = "blobs/assets/";

/// An error of keeping or finding a record.
#[derive(Debug, thiserror::Error)]
pub enum AssetError {
    /// The record could not be stored.
    #[error("storing the record of `{uri}`")]
    Store {
        /// The URI.
        uri: String,
        /// The reason.
        source: StoreError,
    },
    /// The record could not be read.
    #[error("reading the record of `{uri}`")]
    Read {
        /// The URI.
        uri: String,
        /// The reason.
        source: StoreError,
    },
    /// A directory of its content could not be read.
    #[error("reading directory {digest}")]
    ReadDirectory {
        /// The directory.
        digest: Digest,
        /// The reason.
        source: StoreError,
    },
    /// The content is not in the store.
    #[error("{digest} is not here, or not all of its tree")]
    Absent {
        /// The blob or directory.
        digest: Digest,
    },
}

/// The records of one store. All of it may wait for the disk.
#[derive(Clone, Copy)]
pub struct Assets<'a> {
    store: &'a Store,
}

impl<'a> Assets<'a> {
    /// The records of that store.
    pub fn of(store: &'a Store) -> Self {
        Self { store }
    }

    /// Keeps a record for each URI, in place of older ones.
    ///
    /// # Errors
    /// [`AssetError::Absent`] when the content is not here, and what the store answers.
    pub fn push(
        &self,
        instance: &InstanceName,
        names: &Names,
        record: &Record,
    ) -> Result<(), AssetError> {
        if !self.is_content_here(names.kind(), record)? {
            return Err(AssetError::Absent { digest: record.digest() });
        }
        let value = record.encode();
        let instance = instance_of_records(instance);
        for (uri, key) in names.keys() {
            let stored = self.store.action_cache().put(&instance, &key, &value);
            stored.map_err(|source| AssetError::Store { uri: uri.to_owned(), source })?;
        }
        Ok(())
    }

    /// The record of a URI with that key, if it may be served now to a client that wants nothing older than
    /// `oldest`.
    ///
    /// # Errors
    /// [`AssetError::Read`] when the store cannot say it.
    pub fn record(
        &self,
        instance: &InstanceName,
        (uri, key): (&str, &Digest),
        now: SystemTime,
        oldest: Option<SystemTime>,
    ) -> Result<Option<Record>, AssetError> {
        let entry = self.store.action_cache().get(&instance_of_records(instance), key);
        let entry = entry.map_err(|source| AssetError::Read { uri: uri.to_owned(), source })?;
        let record = entry.and_then(|entry| Record::decode(&entry));
        Ok(record.filter(|record| record.is_served(now, oldest)))
    }

    /// Whether all that a record names is here. To be asked for is a use of each blob, which extends its lifetime.
    ///
    /// # Errors
    /// [`AssetError::ReadDirectory`] when the store cannot say it.
    pub fn is_complete(&self, kind: Kind, record: &Record) -> Result<bool, AssetError> {
        let cas = self.store.cas();
        Ok(self.is_content_here(kind, record)?
            && cas.missing(record.blobs()).is_empty()
            && self.are_trees_here(record.directories())?)
    }

    fn is_content_here(&self, kind: Kind, record: &Record) -> Result<bool, AssetError> {
        match kind {
            Kind::Blob => Ok(self.store.cas().missing(&[record.digest()]).is_empty()),
            Kind::Directory => self.are_trees_here(&[record.digest()]),
        }
    }

    /// Whether these trees are here, each directory looked at once.
    fn are_trees_here(&self, roots: &[Digest]) -> Result<bool, AssetError> {
        let cas = self.store.cas();
        let mut seen: HashSet<Digest> = roots.iter().copied().collect();
        let mut left: Vec<Digest> = seen.iter().copied().collect();
        while let Some(digest) = left.pop() {
            if seen.len() > MAX_DIRECTORIES || Directory::check_size(digest.size_bytes()).is_err() {
                return Ok(false);
            }
            let message = cas.read(&digest);
            let message = message.map_err(|source| AssetError::ReadDirectory { digest, source })?;
            let directory = message.and_then(|it| Directory::parse(it, digest.function()).ok());
            let Some(directory) = directory else { return Ok(false) };
            let mut files = Vec::new();
            for entry in directory.entries() {
                match entry {
                    Entry::File { digest, .. } => files.push(digest),
                    Entry::Directory { digest, .. } if seen.insert(digest) => left.push(digest),
                    Entry::Directory { .. } | Entry::Symlink { .. } => {}
                }
            }
            if !cas.missing(&files).is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The instance name under which the records of that instance are stored.
fn instance_of_records(instance: &InstanceName) -> String {
    format!("{INSTANCE_PREFIX}{instance}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Fields;
    use model::DigestFunction;
    use model::proto::{Directory as Message, DirectoryNode, FileNode};
    use prost::Message as _;
    use proto::build::bazel::remote::asset::v1::Qualifier;
    use std::time::Duration;
    use store::StoreOptions;

    const FUNCTION: DigestFunction = DigestFunction::Sha256;

    fn put(store: &Store, content: &[u8]) -> Digest {
        store.cas().put(FUNCTION, content).unwrap()
    }

    fn names(kind: Kind, uris: &[&str], qualifier: Option<&str>) -> Names {
        let uris = uris.iter().map(|uri| (*uri).to_owned()).collect();
        let qualifiers = qualifier.map(|value| Qualifier { name: "n".into(), value: value.into() });
        Names::parse(kind, uris, qualifiers.into_iter().collect()).unwrap()
    }

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000)
    }

    fn record(digest: &Digest, blobs: &[Digest]) -> Record {
        let digest = digest.to_proto();
        let blobs: Vec<_> = blobs.iter().map(Digest::to_proto).collect();
        let fields = Fields { digest: Some(&digest), blobs: &blobs, ..Fields::default() };
        Record::parse(&fields, FUNCTION, now()).unwrap()
    }

    fn instance(name: &str) -> InstanceName {
        InstanceName::parse(name).unwrap()
    }

    /// The URIs whose records are found and complete.
    fn found<'n>(store: &Store, instance_name: &str, names: &'n Names) -> Vec<&'n str> {
        let assets = Assets::of(store);
        let is_found = |(uri, key): &(&str, Digest)| {
            let record = assets.record(&instance(instance_name), (uri, key), now(), None).unwrap();
            record.is_some_and(|record| assets.is_complete(names.kind(), &record).unwrap())
        };
        names.keys().filter(is_found).map(|(uri, _)| uri).collect()
    }

    #[test]
    fn what_was_pushed_is_found_by_the_same_names_only() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path(), StoreOptions::default()).unwrap();
        let digest = put(&store, b"content");
        let pushed = names(Kind::Blob, &["urn:a", "urn:b"], Some("v"));
        Assets::of(&store).push(&instance("i"), &pushed, &record(&digest, &[])).unwrap();
        assert_eq!(found(&store, "i", &pushed), ["urn:a", "urn:b"]);
        assert_eq!(
            found(&store, "i", &names(Kind::Blob, &["urn:c", "urn:b"], Some("v"))),
            ["urn:b"]
        );
        assert!(found(&store, "", &pushed).is_empty());
        assert!(found(&store, "i", &names(Kind::Blob, &["urn:a"], None)).is_empty());
        assert!(found(&store, "i", &names(Kind::Blob, &["urn:a"], Some("w"))).is_empty());
        assert!(found(&store, "i", &names(Kind::Directory, &["urn:a"], Some("v"))).is_empty());
        let later = now() + Duration::from_secs(1);
        let (uri, key) = pushed.keys().next().unwrap();
        let newer = Assets::of(&store).record(&instance("i"), (uri, &key), later, Some(later));
        assert_eq!(newer.unwrap(), None);
    }

    #[test]
    fn a_record_is_found_while_all_that_it_names_is_here() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path(), StoreOptions::default()).unwrap();
        let (digest, reference) = (put(&store, b"content"), put(&store, b"reference"));
        let pushed = names(Kind::Blob, &["urn:a"], None);
        Assets::of(&store).push(&instance(""), &pushed, &record(&digest, &[reference])).unwrap();
        assert_eq!(found(&store, "", &pushed), ["urn:a"]);
        store.cas().delete(&reference).unwrap();
        assert!(found(&store, "", &pushed).is_empty());
        put(&store, b"reference");
        assert_eq!(found(&store, "", &pushed), ["urn:a"]);
        let absent = Digest::of(FUNCTION, b"absent");
        let refused = Assets::of(&store).push(&instance(""), &pushed, &record(&absent, &[]));
        assert!(matches!(refused, Err(AssetError::Absent { digest }) if digest == absent));
    }

    #[test]
    fn a_directory_is_found_while_its_whole_tree_is_here() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path(), StoreOptions::default()).unwrap();
        let file = put(&store, b"file");
        let node =
            FileNode { name: "f".into(), digest: Some(file.to_proto()), ..FileNode::default() };
        let leaf = Message { files: vec![node], ..Message::default() };
        let leaf = put(&store, &leaf.encode_to_vec());
        let node = |name: &str| DirectoryNode { name: name.into(), digest: Some(leaf.to_proto()) };
        let top = Message { directories: vec![node("a"), node("b")], ..Message::default() };
        let top = put(&store, &top.encode_to_vec());
        let pushed = names(Kind::Directory, &["urn:a"], None);
        let push = || Assets::of(&store).push(&instance(""), &pushed, &record(&top, &[]));
        push().unwrap();
        assert_eq!(found(&store, "", &pushed), ["urn:a"]);
        for absent in [file, leaf, top] {
            let content = store.cas().read(&absent).unwrap().unwrap();
            store.cas().delete(&absent).unwrap();
            assert!(found(&store, "", &pushed).is_empty());
            assert!(matches!(push(), Err(AssetError::Absent { .. })));
            put(&store, &content);
            assert_eq!(found(&store, "", &pushed), ["urn:a"]);
        }
        // A blob that is no Directory is no tree.
        let other = put(&store, b"\xff\xff");
        let refused = Assets::of(&store).push(&instance(""), &pushed, &record(&other, &[]));
        assert!(matches!(refused, Err(AssetError::Absent { .. })));
    }
}
