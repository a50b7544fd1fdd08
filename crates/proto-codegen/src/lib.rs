//! Compiles `proto/*.proto` to the code in `crates/proto/src/generated`.
//!
//! `cargo xtask proto` runs the binary. The compiler is a pure Rust one, so nothing has to be
//! installed, and the products do not depend on it: they build the code that is checked in.
//!
//! Four things come out, all of them from the same descriptors:
//!
//! - a file for each package with its messages and clients;
//! - a file for each package with the messages of [`ENCODED_FIELDS`], in which those fields are
//!   left encoded;
//! - a table of each message for `proto::shape`;
//! - the descriptors themselves, which the server's reflection service hands out.

mod shapes;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use prost::Message as _;
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet};

/// The files to compile, beside those that they import.
const FILES: [&str; 14] = [
    "build/bazel/remote/asset/v1/remote_asset.proto",
    "build/bazel/remote/execution/v2/remote_execution.proto",
    "google/bytestream/bytestream.proto",
    "google/devtools/remoteworkers/v1test2/bots.proto",
    "google/rpc/error_details.proto",
    "actiond/internal/v1/asset.proto",
    "actiond/internal/v1/cas.proto",
    "actiond/internal/v1/history.proto",
    "actiond/internal/v1/images.proto",
    "actiond/internal/v1/shell.proto",
    "actiond/internal/v1/store.proto",
    "actiond/v1/resource_usage.proto",
    "buildbarn/remoteworker/remoteworker.proto",
    "opentelemetry/proto/collector/trace/v1/trace_service.proto",
];

/// Below `proto/`: the directories that imports are relative to.
const INCLUDES: [&str; 4] = ["remote-apis", "googleapis", "opentelemetry-proto", "."];

/// The packages for which there is code. The others hold options, or are in `prost-types`.
const PACKAGES: [&str; 14] = [
    "actiond.internal.v1",
    "actiond.v1",
    "build.bazel.remote.asset.v1",
    "build.bazel.remote.execution.v2",
    "build.bazel.semver",
    "buildbarn.remoteworker",
    "google.bytestream",
    "google.devtools.remoteworkers.v1test2",
    "google.longrunning",
    "google.rpc",
    "opentelemetry.proto.collector.trace.v1",
    "opentelemetry.proto.common.v1",
    "opentelemetry.proto.resource.v1",
    "opentelemetry.proto.trace.v1",
];

/// Message fields that bulk requests leave encoded, as `Message.field`: the server parses a digest
/// in place, and sends a stored Directory as it is.
const ENCODED_FIELDS: [&str; 9] = [
    "FindMissingBlobsRequest.blob_digests",
    "FindMissingBlobsResponse.missing_blob_digests",
    "BatchUpdateBlobsRequest.Request.digest",
    "BatchUpdateBlobsResponse.Response.digest",
    "BatchReadBlobsRequest.digests",
    "BatchReadBlobsResponse.Response.digest",
    "GetTreeResponse.directories",
    "DeleteBlobsRequest.blob_digests",
    "DeleteBlobsResponse.Response.digest",
];

/// The beginnings of packages of services that actiond is only a client of: schedulers of workers, and collectors of
/// traces. They are left out of the tables and of the descriptors, which are about what the server decodes and offers.
const CLIENT_PACKAGES: [&str; 3] =
    ["buildbarn.", "google.devtools.remoteworkers.", "opentelemetry."];

/// Files that only these packages import.
const CLIENT_IMPORTS: [&str; 2] = ["google/api/resource.proto", "google/protobuf/field_mask.proto"];

/// The packages that have such messages.
const ENCODED_PACKAGES: [&str; 2] = ["actiond.internal.v1", "build.bazel.remote.execution.v2"];

/// The name of the file with the descriptors.
pub const DESCRIPTORS: &str = "descriptors.bin";

/// The root of the workspace.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The directory of the code that is checked in.
pub fn checked_in() -> PathBuf {
    workspace().join("crates/proto/src/generated")
}

/// Writes all of the generated files to the directory `out`, which exists.
///
/// # Errors
/// A `.proto` file that cannot be compiled, or a file that cannot be written.
pub fn generate(out: &Path) -> Result<()> {
    let mut files = compile()?;
    messages(&files, out)?;
    files.file.retain(|file| {
        let is_clients = CLIENT_PACKAGES.iter().any(|it| file.package().starts_with(it));
        !is_clients && !CLIENT_IMPORTS.contains(&file.name())
    });
    let encoded = encoded_messages(&files, out)?;
    let path = out.join("shapes.rs");
    let tables = shapes::generate(&files, shapes::module)
        + &shapes::generate(&encoded, shapes::encoded_module);
    fs::write(&path, tables).with_context(|| format!("write {}", path.display()))?;
    for file in &mut files.file {
        file.source_code_info = None;
    }
    let path = out.join(DESCRIPTORS);
    fs::write(&path, files.encode_to_vec()).with_context(|| format!("write {}", path.display()))
}

/// Reads the `.proto` files.
fn compile() -> Result<FileDescriptorSet> {
    let includes = INCLUDES.map(|include| workspace().join("proto").join(include));
    let mut compiler = protox::Compiler::new(includes)?;
    compiler.include_imports(true).include_source_info(true).open_files(FILES)?;
    let mut files = compiler.file_descriptor_set();
    // In an order of their own: the compiler's follows its search for imports.
    files.file.sort_by(|a, b| a.name().cmp(b.name()));
    Ok(files)
}

/// Generates the messages and clients of [`PACKAGES`].
fn messages(files: &FileDescriptorSet, out: &Path) -> Result<()> {
    tonic_prost_build::configure()
        .build_server(false)
        .client_mod_attribute(".", "#[cfg(feature = \"client\")]")
        .bytes(".")
        .out_dir(out)
        .emit_rerun_if_changed(false)
        .compile_fds(files.clone())
        .context("generate the messages")?;
    keep(out, &PACKAGES)
}

/// Removes the generated files of all but these packages.
fn keep(out: &Path, packages: &[&str]) -> Result<()> {
    for entry in fs::read_dir(out)? {
        let path = entry?.path();
        let package = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if path.extension().is_some_and(|extension| extension == "rs")
            && !packages.contains(&package)
        {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Generates the messages that have [`ENCODED_FIELDS`], below `encoded/`.
fn encoded_messages(files: &FileDescriptorSet, out: &Path) -> Result<FileDescriptorSet> {
    let mut files = files.clone();
    let mut found = 0;
    for file in &mut files.file {
        file.source_code_info = None;
        if ENCODED_PACKAGES.contains(&file.package()) {
            keep_encoded(file, &mut found);
        }
    }
    ensure!(found == ENCODED_FIELDS.len(), "a field of ENCODED_FIELDS does not exist");
    let out = out.join("encoded");
    fs::create_dir_all(&out)?;
    let mut config = prost_build::Config::new();
    config.bytes(["."]).extern_path(".google.rpc.Status", "crate::google::rpc::Status");
    config
        .out_dir(&out)
        .compile_fds(files.clone())
        .context("generate the messages with encoded fields")?;
    keep(&out, &ENCODED_PACKAGES)?;
    Ok(files)
}

/// Drops from `file` all but the messages that have [`ENCODED_FIELDS`], and makes those fields
/// `bytes`, which are the same on the wire.
fn keep_encoded(file: &mut FileDescriptorProto, found: &mut usize) {
    file.service.clear();
    file.enum_type.clear();
    file.extension.clear();
    file.message_type.retain_mut(|message| {
        let name = message.name().to_owned();
        encode_fields(message, &name, found)
    });
}

/// Returns whether `message`, whose path is `path`, or one inside it has such a field.
fn encode_fields(message: &mut DescriptorProto, path: &str, found: &mut usize) -> bool {
    let before = *found;
    for field in &mut message.field {
        if ENCODED_FIELDS.contains(&format!("{path}.{}", field.name()).as_str()) {
            *found += 1;
            field.set_type(Type::Bytes);
            field.type_name = None;
        } else if field.r#type() == Type::Enum {
            field.set_type(Type::Int32);
            field.type_name = None;
        }
    }
    for nested in &mut message.nested_type {
        let path = format!("{path}.{}", nested.name());
        encode_fields(nested, &path, found);
    }
    *found > before
}
