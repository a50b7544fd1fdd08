//! Every method that the server has, by the descriptors of its services: the request that takes most memory once it is
//! decoded, as large as the server takes it.

use anyhow::{Context as _, ensure};
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};
use testkit::{Kit, Outcome};
use tonic::Code;

use crate::{CALLS, MESSAGE_BYTES, call, flood_of, framed};

/// The depth at which a request is searched for the worst field.
const DEPTH: usize = 3;

/// Calls at once whose request becomes much more memory than its bytes. A hundred take a minute of a processor for each
/// method without optimization: the server decodes each, the clients share one message. Eight decoded at once already are more
/// than the budget and the rest, so a server that lets them all in fails the case; [`CALLS_VARIABLE`] asks for more.
const GROWING_CALLS: usize = 8;

/// Calls at once of which nothing is kept but their bytes, as of those with one long field, of which a hundred are made.
const SKIPPED_CALLS: usize = 20;

/// Names the number of calls at once for every method, in place of those above.
const CALLS_VARIABLE: &str = "ACTIOND_TEST_MEMORY_CALLS";

/// Services that must be among those found, or the descriptors are not the server's.
const KNOWN: [&str; 8] = [
    "ActionCache",
    "ByteStream",
    "Capabilities",
    "ContentAddressableStorage",
    "Execution",
    "Fetch",
    "Operations",
    "Push",
];

/// How much more memory than bytes on the wire a field stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Growth {
    /// Nothing is made of it.
    Unknown,
    /// Its bytes.
    Long,
    /// Many short strings.
    Strings,
    /// Many empty messages.
    Messages,
}

/// A content of a message, and what it stands for.
struct Worst {
    growth: Growth,
    content: Vec<u8>,
}

pub(super) async fn every_method_at_its_worst(kit: Kit) -> Outcome {
    kit.only_on_the_host("what a VM holds is bounded by its memory")?;
    let daemon = kit.daemon().start().await?;
    let files = FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET)?;
    let mut found = Vec::new();
    for file in &files.file {
        for service in &file.service {
            for method in &service.method {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                let empty = call(daemon.client(), path.clone(), framed(&[])).await?;
                // The descriptors are also of services that the server calls.
                if empty == Code::Unimplemented {
                    continue;
                }
                let Worst { growth, content } =
                    worst(&files, method.input_type(), MESSAGE_BYTES, DEPTH)?;
                let what = format!("{} of {growth:?}", method.name());
                let calls = chosen_calls()?.unwrap_or(match growth {
                    Growth::Unknown => SKIPPED_CALLS,
                    Growth::Long => CALLS,
                    Growth::Strings | Growth::Messages => GROWING_CALLS,
                });
                flood_of(calls, &daemon, &what, &path, &content).await?;
                found.push(service.name());
            }
        }
    }
    let absent: Vec<_> = KNOWN.iter().filter(|name| !found.contains(name)).collect();
    ensure!(absent.is_empty(), "no method of {absent:?} was tried");
    Ok(())
}

/// The number that [`CALLS_VARIABLE`] asks for.
fn chosen_calls() -> anyhow::Result<Option<usize>> {
    let Ok(number) = std::env::var(CALLS_VARIABLE) else { return Ok(None) };
    Ok(Some(number.parse().with_context(|| format!("{CALLS_VARIABLE}={number}"))?))
}

/// The worst content of the message type `name` with that many bytes.
fn worst(
    files: &FileDescriptorSet,
    name: &str,
    size_bytes: usize,
    depth: usize,
) -> anyhow::Result<Worst> {
    let message = message(files, name)?;
    let mut worst = field_of(15, &vec![b'n'; size_bytes], Growth::Unknown);
    for field in &message.field {
        let next = worst_of(files, field, size_bytes, depth)?;
        if next.growth > worst.growth {
            worst = next;
        }
    }
    Ok(worst)
}

fn worst_of(
    files: &FileDescriptorSet,
    field: &FieldDescriptorProto,
    size_bytes: usize,
    depth: usize,
) -> anyhow::Result<Worst> {
    /// A key and a length.
    const HEAD_BYTES: usize = 10;
    let number = field.number().unsigned_abs();
    let repeated = |content: &[u8], growth| {
        let one = field_of(number, content, growth).content;
        Worst { growth, content: one.repeat(size_bytes / one.len()) }
    };
    Ok(match (field.r#type(), field.label()) {
        (Type::Message, Label::Repeated) => repeated(&[], Growth::Messages),
        (Type::String | Type::Bytes, Label::Repeated) => repeated(b"a", Growth::Strings),
        (Type::String | Type::Bytes, _) => field_of(number, &vec![b'n'; size_bytes], Growth::Long),
        (Type::Message, _) if depth > 0 => {
            let inner = worst(files, field.type_name(), size_bytes - HEAD_BYTES, depth - 1)?;
            field_of(number, &inner.content, inner.growth)
        }
        _ => Worst { growth: Growth::Unknown, content: Vec::new() },
    })
}

fn field_of(number: u32, content: &[u8], growth: Growth) -> Worst {
    let mut field = Vec::with_capacity(content.len() + 10);
    encode_key(number, WireType::LengthDelimited, &mut field);
    encode_varint(content.len() as u64, &mut field);
    field.extend_from_slice(content);
    Worst { growth, content: field }
}

/// The message type with that full name, which begins with a dot.
fn message<'a>(files: &'a FileDescriptorSet, name: &str) -> anyhow::Result<&'a DescriptorProto> {
    files
        .file
        .iter()
        .find_map(|file| {
            let rest = name.strip_prefix('.')?.strip_prefix(file.package())?.strip_prefix('.')?;
            let mut names = rest.split('.');
            let first = names.next()?;
            let top = file.message_type.iter().find(|message| message.name() == first)?;
            names.try_fold(top, |outer, name| {
                outer.nested_type.iter().find(|message| message.name() == name)
            })
        })
        .with_context(|| format!("no descriptor of {name}"))
}
