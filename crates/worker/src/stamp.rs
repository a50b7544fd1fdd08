//! The environment that a cached result was computed in.
//!
//! An action's digest says nothing of the compiler that its root file system brings: after an upgrade of
//! the host, or another image under the same name, the same action gives another result. So an entry of
//! the action cache begins with a stamp: which root the action asked for, and what that was. At a lookup
//! the same wish is resolved again, without reading the action. A result whose root is another by now is
//! no hit.
//!
//! ```text
//! entry = stamp, encoded ActionResult
//! stamp = field 1000 of ActionResult, a message, which readers that know nothing of stamps skip
//! ```

use bytes::{Bytes, BytesMut};
use model::{Properties, proto};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use runtimes::{Environment, Rootfs, Runtimes};

/// The number of the stamp's field, which `ActionResult` is far from using.
const FIELD: u32 = 1000;

/// The longest stamp: three names of a platform property each. Longer ones are not cached at all.
const MAX_BYTES: usize = 4 << 10;

/// The message of a stamp.
#[derive(Clone, PartialEq, Message)]
struct StampMessage {
    /// The hash of the environment; empty if a client uploaded the result.
    #[prost(bytes = "bytes", tag = "1")]
    environment: Bytes,
    #[prost(string, optional, tag = "2")]
    rootfs: Option<String>,
    #[prost(string, optional, tag = "3")]
    container_image: Option<String>,
    #[prost(string, optional, tag = "4")]
    libc: Option<String>,
    #[prost(bool, tag = "5")]
    requires_bash: bool,
    /// A client uploaded the result, and vouches for it in every environment.
    #[prost(bool, tag = "6")]
    uploaded: bool,
}

/// The environment of one action.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stamp(StampMessage);

impl Stamp {
    /// The stamp of an action with those properties that is about to run in `view`.
    pub(crate) fn of(properties: &Properties, view: &Rootfs) -> Self {
        let environment = view.environment();
        Self(StampMessage {
            environment: Bytes::copy_from_slice(environment.as_bytes()),
            rootfs: properties.rootfs.clone(),
            container_image: properties.container_image.clone(),
            libc: properties.libc.clone(),
            requires_bash: properties.requires_bash,
            uploaded: false,
        })
    }

    /// The stamp of a result that a client uploaded.
    fn uploaded() -> Self {
        Self(StampMessage { uploaded: true, ..StampMessage::default() })
    }

    /// Whether the action would find the same environment now.
    pub(crate) fn is_current(&self, runtimes: &Runtimes) -> bool {
        let Self(stamp) = self;
        if stamp.uploaded {
            return true;
        }
        let properties = Properties {
            rootfs: stamp.rootfs.clone(),
            container_image: stamp.container_image.clone(),
            libc: stamp.libc.clone(),
            requires_bash: stamp.requires_bash,
            ..Properties::default()
        };
        let is_same = |now: Environment| stamp.environment == now.as_bytes()[..];
        // A root that is not here any more is another environment as well.
        runtimes.view(&properties).is_ok_and(|view| is_same(view.environment()))
    }

    /// The entry of a result with this stamp; `None` if the stamp is longer than any that is read.
    pub(crate) fn entry(&self, result: &[u8]) -> Option<Vec<u8>> {
        let stamp = self.0.encode_to_vec();
        if stamp.len() > MAX_BYTES {
            return None;
        }
        let mut entry = BytesMut::with_capacity(stamp.len() + 8 + result.len());
        encode_key(FIELD, WireType::LengthDelimited, &mut entry);
        encode_varint(stamp.len() as u64, &mut entry);
        entry.extend_from_slice(&stamp);
        entry.extend_from_slice(result);
        Some(entry.into())
    }
}

/// The entry of the action cache for a result that a client uploaded. It is served in every environment:
/// the client computed it elsewhere and vouches for it.
pub fn entry_of_upload(result: &proto::ActionResult) -> Vec<u8> {
    Stamp::uploaded().entry(&result.encode_to_vec()).unwrap_or_default()
}

/// The type of the stamp among the auxiliary metadata of a result that is given to other servers.
const TYPE_URL: &str = "type.googleapis.com/actiond.Environment";

/// The result of an entry as other servers get it: its stamp is among the metadata, which every server keeps.
/// `None` for an entry that is never served.
pub fn result_for_others(entry: &Bytes) -> Option<proto::ActionResult> {
    let (stamp, message) = split(entry);
    let Stamp(stamp) = stamp?;
    let mut result = proto::ActionResult::decode(message).ok()?;
    if !stamp.uploaded {
        let stamp = proto::Any { type_url: TYPE_URL.to_owned(), value: stamp.encode_to_vec() };
        let metadata = result.execution_metadata.get_or_insert_default();
        metadata.auxiliary_metadata.push(stamp);
    }
    Some(result)
}

/// The entry for a result of another server. If an actiond made it, it belongs to its environment, and is no
/// hit in another one; a result of others is served in every environment, as one that a client uploads.
pub fn entry_of_others(mut result: proto::ActionResult) -> Vec<u8> {
    let mut stamp = None;
    if let Some(metadata) = &mut result.execution_metadata {
        metadata.auxiliary_metadata.retain(|any| {
            let is_stamp = any.type_url == TYPE_URL;
            if is_stamp {
                stamp = Some(StampMessage::decode(any.value.as_slice()).unwrap_or_default());
            }
            !is_stamp
        });
    }
    let stamp = stamp
        .map_or_else(Stamp::uploaded, |stamp| Stamp(StampMessage { uploaded: false, ..stamp }));
    stamp.entry(&result.encode_to_vec()).unwrap_or_default()
}

/// The stamp of an entry and its result. Entries of versions before stamps have none.
pub(crate) fn split(entry: &Bytes) -> (Option<Stamp>, Bytes) {
    match read(entry) {
        Some((stamp, end)) => (Some(stamp), entry.slice(end..)),
        None => (None, entry.clone()),
    }
}

/// The stamp, and where it ends.
fn read(entry: &[u8]) -> Option<(Stamp, usize)> {
    let mut rest = entry;
    let key = prost::encoding::decode_varint(&mut rest).ok()?;
    if key != u64::from(FIELD << 3 | WireType::LengthDelimited as u32) {
        return None;
    }
    let length = usize::try_from(prost::encoding::decode_varint(&mut rest).ok()?).ok()?;
    let stamp = rest.get(..length).filter(|stamp| stamp.len() <= MAX_BYTES)?;
    let stamp = StampMessage::decode(stamp).ok()?;
    Some((Stamp(stamp), entry.len() - rest.len() + length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtimes::RuntimeOptions;

    fn runtimes(host: Option<&std::path::Path>) -> Runtimes {
        let host_rootfs = host.map(Into::into);
        Runtimes::open(&RuntimeOptions { host_rootfs, ..RuntimeOptions::default() }).unwrap()
    }

    #[test]
    fn a_stamp_goes_to_other_servers_and_comes_back() {
        let runtimes = runtimes(None);
        let made = stamp(&runtimes, &Properties::default());
        let result = proto::ActionResult { stdout_raw: "said".into(), ..Default::default() };
        let entry: Bytes = made.entry(&result.encode_to_vec()).unwrap().into();
        let sent = result_for_others(&entry).unwrap();
        assert_eq!(sent.execution_metadata.as_ref().unwrap().auxiliary_metadata.len(), 1);
        let (stamp, message) = split(&entry_of_others(sent.clone()).into());
        assert_eq!(stamp, Some(made));
        let received = proto::ActionResult::decode(message).unwrap();
        assert!(received.execution_metadata.unwrap().auxiliary_metadata.is_empty());
        // A stamp that nobody can read is of no environment, and one can't vouch for itself.
        for value in [b"\xff".to_vec(), Stamp::uploaded().0.encode_to_vec()] {
            let mut forged = sent.clone();
            forged.execution_metadata.as_mut().unwrap().auxiliary_metadata[0].value = value;
            let (stamp, _) = split(&entry_of_others(forged).into());
            assert!(!stamp.unwrap().is_current(&runtimes));
        }
    }

    #[test]
    fn results_without_a_stamp_are_as_those_that_clients_upload() {
        let result = proto::ActionResult { stdout_raw: "said".into(), ..Default::default() };
        let uploaded: Bytes = entry_of_upload(&result).into();
        assert_eq!(result_for_others(&uploaded), Some(result.clone()));
        assert_eq!(Bytes::from(entry_of_others(result.clone())), uploaded);
        assert_eq!(result_for_others(&result.encode_to_vec().into()), None);
    }

    fn stamp(runtimes: &Runtimes, properties: &Properties) -> Stamp {
        Stamp::of(properties, &runtimes.view(properties).unwrap())
    }

    #[test]
    fn an_entry_is_what_it_was_made_of() {
        let runtimes = runtimes(None);
        let stamp = stamp(&runtimes, &Properties::default());
        for result in [&b""[..], b"\x20\x01"] {
            let entry = Bytes::from(stamp.entry(result).unwrap());
            let (read, rest) = split(&entry);
            assert_eq!((read, &rest[..]), (Some(stamp.clone()), result));
            // A reader that knows nothing of stamps skips it.
            let decoded = proto::ActionResult::decode(entry).unwrap();
            assert_eq!(decoded, proto::ActionResult::decode(result).unwrap());
        }
        assert!(stamp.is_current(&runtimes));
    }

    #[test]
    fn what_is_no_stamp_is_none() {
        let result = proto::ActionResult { exit_code: 1, ..Default::default() }.encode_to_vec();
        for entry in [result, Vec::new(), vec![0xc2, 0x3e, 200], vec![0xc2, 0x3e, 1, 0xff]] {
            let entry = Bytes::from(entry);
            assert_eq!(split(&entry), (None, entry.clone()));
        }
        let long = Properties { libc: Some("x".repeat(MAX_BYTES)), ..Properties::default() };
        let stamp = Stamp::of(&long, &Rootfs::bare());
        assert_eq!(stamp.entry(b""), None);
    }

    #[test]
    fn a_result_of_a_root_that_changed_is_not_current() {
        let root = tempfile::tempdir().unwrap();
        let program = root.path().join("usr/bin/cc");
        std::fs::create_dir_all(program.parent().unwrap()).unwrap();
        std::fs::write(&program, "1").unwrap();
        let before = std::time::SystemTime::UNIX_EPOCH;
        std::fs::File::open(program.parent().unwrap()).unwrap().set_modified(before).unwrap();
        let host = Properties { rootfs: Some("host".into()), ..Properties::default() };
        let runtimes = runtimes(Some(root.path()));
        let (of_host, of_none) =
            (stamp(&runtimes, &host), stamp(&runtimes, &Properties::default()));
        assert!(of_host.is_current(&runtimes) && of_none.is_current(&runtimes));
        let uploaded = Stamp::uploaded();

        // As a package manager does it.
        std::fs::write(root.path().join("usr/bin/cc.new"), "2").unwrap();
        std::fs::rename(root.path().join("usr/bin/cc.new"), &program).unwrap();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while of_host.is_current(&runtimes) {
            assert!(std::time::Instant::now() < until, "the change was not noticed");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(of_none.is_current(&runtimes) && uploaded.is_current(&runtimes));

        let without_host = super::tests::runtimes(None);
        assert!(!of_host.is_current(&without_host), "a root that is not here any more");
    }
}
