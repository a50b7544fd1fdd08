//! From the table to protobuf's own form of description (`descriptor.proto`).

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto,
    FileDescriptorProto, FileDescriptorSet, MessageOptions, MethodDescriptorProto,
    OneofDescriptorProto, ServiceDescriptorProto,
};

/// A file of the interface.
pub(super) struct File {
    pub(super) name: &'static str,
    pub(super) package: &'static str,
    pub(super) imports: &'static [&'static str],
    pub(super) messages: &'static [Message],
    pub(super) enumerations: &'static [Enumeration],
    pub(super) services: &'static [Service],
}

/// A message; those inside another are named `Outer.Inner`.
pub(super) struct Message {
    pub(super) name: &'static str,
    pub(super) fields: &'static [&'static str],
}

/// An enumeration; those inside a message are named `Message.Enumeration`.
pub(super) struct Enumeration {
    pub(super) name: &'static str,
    pub(super) values: &'static [&'static str],
}

/// A service.
pub(super) struct Service {
    pub(super) name: &'static str,
    pub(super) methods: &'static [&'static str],
}

/// A line of the table that can't be read.
#[derive(Debug, thiserror::Error)]
#[error("the table of the interface has a line `{0}`")]
pub(crate) struct TableError(&'static str);

/// Describes all of `files`.
pub(super) fn describe(files: &[File]) -> Result<FileDescriptorSet, TableError> {
    Ok(FileDescriptorSet { file: files.iter().map(file).collect::<Result<_, _>>()? })
}

fn file(file: &File) -> Result<FileDescriptorProto, TableError> {
    // The top level, as if it were a message.
    let mut top = DescriptorProto::default();
    for message in file.messages {
        let descriptor = nested(&mut top, message.name);
        for line in message.fields {
            add_field(descriptor, line, file.package)?;
        }
        if message.name.ends_with("Entry") {
            let options = MessageOptions { map_entry: Some(true), ..Default::default() };
            descriptor.options = Some(options);
        }
    }
    for enumeration in file.enumerations {
        let (outer, name) = enumeration.name.rsplit_once('.').unwrap_or(("", enumeration.name));
        let descriptor = describe_enumeration(name, enumeration.values)?;
        nested(&mut top, outer).enum_type.push(descriptor);
    }
    let service = |service: &Service| describe_service(service, file.package);
    Ok(FileDescriptorProto {
        name: Some(file.name.to_owned()),
        package: Some(file.package.to_owned()),
        dependency: file.imports.iter().map(|import| (*import).to_owned()).collect(),
        message_type: top.nested_type,
        enum_type: top.enum_type,
        service: file.services.iter().map(service).collect::<Result<_, _>>()?,
        syntax: Some("proto3".to_owned()),
        ..FileDescriptorProto::default()
    })
}

/// The message at `path` below `outer`, made where it is not there yet.
fn nested<'a>(outer: &'a mut DescriptorProto, path: &str) -> &'a mut DescriptorProto {
    if path.is_empty() {
        return outer;
    }
    let (name, rest) = path.split_once('.').unwrap_or((path, ""));
    let known = outer.nested_type.iter().position(|message| message.name() == name);
    let at = known.unwrap_or_else(|| {
        let name = Some(name.to_owned());
        outer.nested_type.push(DescriptorProto { name, ..DescriptorProto::default() });
        outer.nested_type.len() - 1
    });
    nested(&mut outer.nested_type[at], rest)
}

/// Reads `number name [repeated] [enum] type [in oneof]`.
fn add_field(
    message: &mut DescriptorProto,
    line: &'static str,
    package: &str,
) -> Result<(), TableError> {
    let error = || TableError(line);
    let mut words = line.split(' ').peekable();
    let mut next = || words.next().ok_or_else(error);
    let number = next()?.parse().map_err(|_| error())?;
    let name = next()?;
    let label = words.next_if_eq(&"repeated").map_or(Label::Optional, |_| Label::Repeated);
    let is_enumeration = words.next_if_eq(&"enum").is_some();
    let type_name = words.next().ok_or_else(error)?;
    let oneof_index = match (words.next(), words.next()) {
        (None, _) => None,
        (Some("in"), Some(oneof)) => Some(oneof_index(message, oneof)),
        _ => return Err(error()),
    };
    let scalar = scalar(type_name);
    let named = if is_enumeration { Type::Enum } else { Type::Message };
    message.field.push(FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        label: Some(label.into()),
        r#type: Some(scalar.unwrap_or(named).into()),
        type_name: scalar.is_none().then(|| absolute(type_name, package)),
        oneof_index,
        ..FieldDescriptorProto::default()
    });
    Ok(())
}

fn oneof_index(message: &mut DescriptorProto, name: &str) -> i32 {
    let known = message.oneof_decl.iter().position(|oneof| oneof.name() == name);
    let at = known.unwrap_or_else(|| {
        let name = Some(name.to_owned());
        message.oneof_decl.push(OneofDescriptorProto { name, ..Default::default() });
        message.oneof_decl.len() - 1
    });
    at as i32
}

fn scalar(name: &str) -> Option<Type> {
    Some(match name {
        "bool" => Type::Bool,
        "bytes" => Type::Bytes,
        "int32" => Type::Int32,
        "int64" => Type::Int64,
        "string" => Type::String,
        "uint32" => Type::Uint32,
        "uint64" => Type::Uint64,
        _ => return None,
    })
}

/// A type's full name: packages begin with a lower-case letter, types do not.
fn absolute(name: &str, package: &str) -> String {
    if name.starts_with(|first: char| first.is_ascii_lowercase()) {
        format!(".{name}")
    } else {
        format!(".{package}.{name}")
    }
}

/// Reads values, `number name` each.
fn describe_enumeration(
    name: &str,
    values: &[&'static str],
) -> Result<EnumDescriptorProto, TableError> {
    let value = |line: &&'static str| {
        let (number, name) = line.split_once(' ').ok_or(TableError(line))?;
        Ok(EnumValueDescriptorProto {
            name: Some(name.to_owned()),
            number: Some(number.parse().map_err(|_| TableError(line))?),
            ..EnumValueDescriptorProto::default()
        })
    };
    Ok(EnumDescriptorProto {
        name: Some(name.to_owned()),
        value: values.iter().map(value).collect::<Result<_, _>>()?,
        ..EnumDescriptorProto::default()
    })
}

/// Reads methods, `name [stream] request > [stream] response` each.
fn describe_service(
    service: &Service,
    package: &str,
) -> Result<ServiceDescriptorProto, TableError> {
    let method = |line: &&'static str| {
        let (left, response) = line.split_once(" > ").ok_or(TableError(line))?;
        let (name, request) = left.split_once(' ').ok_or(TableError(line))?;
        let (client_streaming, request) = streamed(request);
        let (server_streaming, response) = streamed(response);
        Ok(MethodDescriptorProto {
            name: Some(name.to_owned()),
            input_type: Some(absolute(request, package)),
            output_type: Some(absolute(response, package)),
            client_streaming: Some(client_streaming),
            server_streaming: Some(server_streaming),
            ..MethodDescriptorProto::default()
        })
    };
    Ok(ServiceDescriptorProto {
        name: Some(service.name.to_owned()),
        method: service.methods.iter().map(method).collect::<Result<_, _>>()?,
        ..ServiceDescriptorProto::default()
    })
}

fn streamed(message: &str) -> (bool, &str) {
    match message.strip_prefix("stream ") {
        Some(message) => (true, message),
        None => (false, message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reflection::table::FILES;
    use std::collections::{BTreeMap, BTreeSet};
    use std::fmt::Debug;

    /// Full names of all messages, with their descriptors.
    fn messages() -> BTreeMap<String, DescriptorProto> {
        fn collect(
            outer: &str,
            messages: &[DescriptorProto],
            all: &mut BTreeMap<String, DescriptorProto>,
        ) {
            for message in messages {
                let name = format!("{outer}.{}", message.name());
                collect(&name, &message.nested_type, all);
                all.insert(name, message.clone());
            }
        }
        let mut all = BTreeMap::new();
        for file in describe(FILES).unwrap().file {
            collect(&format!(".{}", file.package()), &file.message_type, &mut all);
        }
        all
    }

    #[test]
    fn every_type_is_described() {
        let messages = messages();
        let mut enumerations = BTreeSet::new();
        for (name, message) in &messages {
            let inner = message.enum_type.iter();
            enumerations.extend(inner.map(|inner| format!("{name}.{}", inner.name())));
        }
        for (name, message) in &messages {
            for field in &message.field {
                let known = match field.r#type() {
                    Type::Message => messages.contains_key(field.type_name()),
                    Type::Enum => enumerations.contains(field.type_name()),
                    _ => true,
                };
                assert!(known, "{name}: {field:?}");
            }
        }
        for file in describe(FILES).unwrap().file {
            for method in file.service.iter().flat_map(|service| &service.method) {
                assert!(messages.contains_key(method.input_type()), "{method:?}");
                assert!(messages.contains_key(method.output_type()), "{method:?}");
            }
        }
    }

    #[test]
    fn names_are_those_of_the_generated_types() {
        use model::proto;
        use model::proto::google::{bytestream, longrunning};
        let messages = messages();
        let check = |name: &str, generated: &dyn Debug, oneofs: &[&str]| {
            let described = &messages[name];
            let fields = described.field.iter().filter(|field| field.oneof_index.is_none());
            let described: BTreeSet<_> = fields.map(FieldDescriptorProto::name).collect();
            let text = format!("{generated:#?}");
            let generated: BTreeSet<_> = text
                .lines()
                .filter_map(|line| line.strip_prefix("    ")?.split_once(':'))
                .map(|(name, _)| name)
                .filter(|name| !name.starts_with(' ') && !oneofs.contains(name))
                .collect();
            assert_eq!(described, generated, "{name}");
        };
        macro_rules! check_all {
            ($package:literal, $module:path => $($name:ident),+ $(,)?) => {{
                use $module as module;
                $(check(concat!(".", $package, ".", stringify!($name)), &module::$name::default(), &[]);)+
            }};
        }
        check_all!("build.bazel.remote.execution.v2", proto =>
            Action, ActionCacheUpdateCapabilities, ActionResult, BatchReadBlobsRequest,
            BatchReadBlobsResponse, BatchUpdateBlobsRequest, BatchUpdateBlobsResponse,
            CacheCapabilities, Command, Digest, Directory, DirectoryNode, ExecuteOperationMetadata,
            ExecuteRequest, ExecuteResponse, ExecutedActionMetadata, ExecutionCapabilities,
            ExecutionPolicy, FileNode, FindMissingBlobsRequest, FindMissingBlobsResponse,
            GetActionResultRequest, GetCapabilitiesRequest, GetTreeRequest, GetTreeResponse, LogFile,
            NodeProperties, NodeProperty, OutputDirectory, OutputFile, OutputSymlink, Platform,
            PriorityCapabilities, RequestMetadata, ResultsCachePolicy, ServerCapabilities,
            SymlinkNode, ToolDetails, Tree, UpdateActionResultRequest, WaitExecutionRequest,
        );
        check_all!("google.bytestream", bytestream =>
            ReadRequest, ReadResponse, WriteRequest, WriteResponse, QueryWriteStatusRequest,
            QueryWriteStatusResponse,
        );
        check_all!("google.longrunning", longrunning =>
            CancelOperationRequest, GetOperationRequest, ListOperationsRequest,
            ListOperationsResponse, WaitOperationRequest,
        );
        check(".google.longrunning.Operation", &longrunning::Operation::default(), &["result"]);
    }

    #[test]
    fn a_line_that_can_not_be_read_is_an_error() {
        for line in ["", "x name string", "1", "1 name", "1 name string out a", "1 name string in"]
        {
            let mut message = DescriptorProto::default();
            assert!(add_field(&mut message, line, "package").is_err(), "{line}");
        }
    }

    #[test]
    fn the_service_takes_the_descriptors() {
        assert!(crate::reflection::v1().is_ok());
        assert!(crate::reflection::v1alpha().is_ok());
    }
}
