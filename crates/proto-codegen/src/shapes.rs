//! The tables from which `proto::shape` tells how much memory a message takes.

use std::fmt::Write as _;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};

use crate::{ENCODED_PACKAGES, PACKAGES};

/// The module with the messages of a package; `None` if they have no tables.
pub(crate) fn module(package: &str) -> Option<String> {
    PACKAGES.contains(&package).then(|| format!("crate::{}", package.replace('.', "::")))
}

/// The same for the messages with encoded fields. The messages that they have in them and that
/// have no such field are those of [`module`].
pub(crate) fn encoded_module(package: &str) -> Option<String> {
    let name = match ENCODED_PACKAGES.iter().position(|encoded| *encoded == package)? {
        0 => "actiond",
        _ => "reapi",
    };
    Some(format!("crate::encoded::{name}"))
}

/// The tables of every message in `files` whose package has a module.
pub(crate) fn generate(files: &FileDescriptorSet, module: fn(&str) -> Option<String>) -> String {
    let mut tables = String::new();
    for file in &files.file {
        if let Some(module) = module(file.package()) {
            for message in &file.message_type {
                let name = format!(".{}.{}", file.package(), message.name());
                add(&mut tables, &module, &name, message, files);
            }
        }
    }
    tables
}

/// Adds the table of the message `name`, which is in the Rust module `module`, and of those inside.
fn add(
    tables: &mut String,
    module: &str,
    name: &str,
    message: &DescriptorProto,
    files: &FileDescriptorSet,
) {
    let rust = format!("{module}::{}", message.name());
    let fields: String = message.field.iter().filter_map(|one| field(one, module, files)).collect();
    // Writing to a String does not fail.
    let _ = write!(
        tables,
        "impl Shaped for {rust} {{\n    const SHAPE: &'static Shape = &Shape {{\n        \
         size_bytes: size_of::<{rust}>(),\n        fields: &[{fields}],\n    }};\n}}\n"
    );
    let inside = format!("{module}::{}", snake_case(message.name()));
    for nested in message.nested_type.iter().filter(|nested| !is_map_entry(nested)) {
        add(tables, &inside, &format!("{name}.{}", nested.name()), nested, files);
    }
}

fn is_map_entry(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(|options| options.map_entry())
}

/// The entry of a field; `None` for one that has no memory of its own.
fn field(field: &FieldDescriptorProto, module: &str, files: &FileDescriptorSet) -> Option<String> {
    let repeated = field.label() == Label::Repeated;
    let kind = match field.r#type() {
        Type::String => "Text".to_owned(),
        Type::Bytes => "Bytes".to_owned(),
        Type::Message => format!("Message({})", shape_of(field.type_name(), module, files)),
        _ if repeated => "Number".to_owned(),
        _ => return None,
    };
    let number = field.number();
    Some(format!("Field {{ number: {number}, repeated: {repeated}, kind: Kind::{kind} }}, "))
}

/// The table of the message type `name`, as an expression.
fn shape_of(name: &str, module: &str, files: &FileDescriptorSet) -> String {
    let encoded = module.starts_with("crate::encoded");
    for file in &files.file {
        let Some(path) = name.strip_prefix(&format!(".{}.", file.package())) else { continue };
        let own = if encoded { encoded_module(file.package()) } else { None };
        let (Some(module), false) =
            (own.or_else(|| self::module(file.package())), is_entry(path, &file.message_type))
        else {
            continue;
        };
        if !exists(path, &file.message_type) {
            continue;
        }
        let mut names: Vec<&str> = path.split('.').collect();
        let last = names.pop().unwrap_or_default();
        let outer: String = names.iter().map(|name| format!("{}::", snake_case(name))).collect();
        return format!("<{module}::{outer}{last} as Shaped>::SHAPE");
    }
    "&OTHER".to_owned()
}

fn find<'a>(path: &str, messages: &'a [DescriptorProto]) -> Option<&'a DescriptorProto> {
    let (name, rest) = path.split_once('.').unwrap_or((path, ""));
    let message = messages.iter().find(|message| message.name() == name)?;
    if rest.is_empty() { Some(message) } else { find(rest, &message.nested_type) }
}

fn exists(path: &str, messages: &[DescriptorProto]) -> bool {
    find(path, messages).is_some()
}

fn is_entry(path: &str, messages: &[DescriptorProto]) -> bool {
    find(path, messages).is_some_and(is_map_entry)
}

/// `BatchUpdateBlobsRequest` as `batch_update_blobs_request`.
fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for character in name.chars() {
        if character.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(character.to_ascii_lowercase());
    }
    snake
}
