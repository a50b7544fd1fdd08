//! A command that can be run as it is: what to execute, where, and what comes out of it.

use std::collections::HashSet;
use std::ffi::CString;

use ::proto::shape::decoded_bytes;
use prost::Message;

use crate::node_properties::NodeProperties;
use crate::outputs::{OutputError, OutputPath, outputs};
use crate::path::{PathError, RelPath};
use crate::platform::WorkerPlatform;
use crate::properties::Properties;
use crate::property_error::{PropertyError, shown};
use crate::proto;

pub use proto::command::OutputDirectoryFormat;

/// The largest `Command` message. Linux passes at most 6 MiB of arguments and environment to a
/// program; the rest leaves room for 100,000 outputs.
const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// The most memory for a decoded `Command`: a string takes 24 bytes beside its text, so that half a
/// million arguments or outputs fit. Every running action holds one.
const MAX_DECODED_BYTES: u64 = 64 << 20;

/// A validated REAPI `Command`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandSpec {
    /// The program and its arguments; at least the program, and that not empty.
    pub arguments: Vec<CString>,
    /// The whole environment, each variable as `NAME=value`, no name twice.
    pub environment: Vec<CString>,
    /// The working directory of the program, relative to the input root.
    pub working_directory: RelPath,
    /// The outputs to collect when the program has ended; no path twice. One output may lie inside
    /// another, if that other can be a directory.
    pub outputs: Vec<OutputPath>,
    /// In which forms the client wants output directories.
    pub output_directory_format: OutputDirectoryFormat,
    /// The properties that the client wants with its outputs.
    pub output_node_properties: OutputNodeProperties,
    /// The action's requirements on its environment.
    pub properties: Properties,
}

/// The properties of output files that a client asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutputNodeProperties {
    /// The time of the last modification.
    pub mtime: bool,
    /// The permission bits.
    pub unix_mode: bool,
}

impl OutputNodeProperties {
    /// Whether the client asked for none.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// Those of `properties` that the client asked for.
    pub fn choose(self, properties: NodeProperties) -> NodeProperties {
        NodeProperties {
            mtime: properties.mtime.filter(|_| self.mtime),
            unix_mode: properties.unix_mode.filter(|_| self.unix_mode),
        }
    }
}

/// An error of a `Command` that can't be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The message is larger than 16 MiB.
    #[error("the command takes {0} bytes, more than {MAX_MESSAGE_BYTES}")]
    TooLarge(u64),
    /// The message takes more than 64 MiB of memory once it is decoded.
    #[error("the command takes more than {MAX_DECODED_BYTES} bytes of memory")]
    TooManyFields,
    /// The bytes are not a `Command` message.
    #[error("not a Command message")]
    Decode(#[from] prost::DecodeError),
    /// There is no program to run.
    #[error("the command has no program")]
    NoProgram,
    /// An argument has a NUL byte, which no program can be given.
    #[error("argument {0} has a NUL byte")]
    ArgumentNul(usize),
    /// An environment variable's name is empty or has a `=`, or name or value have a NUL byte.
    #[error("the environment variable {0:?} can't be set")]
    Environment(String),
    /// An environment variable is there twice.
    #[error("the environment variable {0:?} is set twice")]
    EnvironmentTwice(String),
    /// The working directory is no path inside the input root.
    #[error("working directory")]
    WorkingDirectory(#[source] PathError),
    /// An output can't be collected.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// A node property that this server does not know; REAPI demands that it is refused.
    #[error("the output node property {0:?} is not supported")]
    NodeProperty(String),
    /// A platform property is refused.
    #[error(transparent)]
    Property(#[from] PropertyError),
}

impl CommandSpec {
    /// Refuses a `Command` message of that size if none may be so large; to be asked before the
    /// message is read.
    pub fn check_size(size_bytes: u64) -> Result<(), CommandError> {
        if size_bytes > MAX_MESSAGE_BYTES as u64 {
            return Err(CommandError::TooLarge(size_bytes));
        }
        Ok(())
    }

    /// The memory that reading and parsing a `Command` message of that size takes at most.
    pub fn parse_bytes_max(size_bytes: u64) -> u64 {
        size_bytes.saturating_mul(48).min(MAX_DECODED_BYTES) + size_bytes
    }

    /// Parses and validates a `Command` message. `platform` is the one of the `Action`, which since
    /// API 2.2 stands for the command's own; it must be satisfied by `worker`.
    pub fn parse(
        message: &[u8],
        platform: Option<&proto::Platform>,
        worker: &WorkerPlatform,
    ) -> Result<Self, CommandError> {
        Self::check_size(message.len() as u64)?;
        if decoded_bytes::<proto::Command>(message, MAX_DECODED_BYTES) > MAX_DECODED_BYTES {
            return Err(CommandError::TooManyFields);
        }
        let command = proto::Command::decode(message)?;
        let properties = properties(&command, platform, worker)?;
        let working_directory = working_directory(&command.working_directory)?;
        Ok(Self {
            outputs: outputs(&command, &working_directory)?,
            output_directory_format: command.output_directory_format(),
            output_node_properties: node_properties(&command.output_node_properties)?,
            environment: environment(command.environment_variables)?,
            arguments: arguments(command.arguments)?,
            working_directory,
            properties,
        })
    }
}

#[allow(deprecated, reason = "clients of API 2.1 and before set the platform here")]
fn properties(
    command: &proto::Command,
    platform: Option<&proto::Platform>,
    worker: &WorkerPlatform,
) -> Result<Properties, PropertyError> {
    Properties::parse(platform.or(command.platform.as_ref()), worker)
}

/// Reads the working directory. A slash at its end means nothing, as it does in a shell.
fn working_directory(text: &str) -> Result<RelPath, CommandError> {
    let directory = match text.strip_suffix('/') {
        // A slash alone is the root of the file system, not of the inputs.
        Some("") | None => text,
        Some(directory) => directory,
    };
    RelPath::resolve(&RelPath::root(), directory).map_err(CommandError::WorkingDirectory)
}

fn arguments(arguments: Vec<String>) -> Result<Vec<CString>, CommandError> {
    if arguments.first().is_none_or(String::is_empty) {
        return Err(CommandError::NoProgram);
    }
    arguments
        .into_iter()
        .enumerate()
        .map(|(index, argument)| {
            CString::new(argument).map_err(|_| CommandError::ArgumentNul(index))
        })
        .collect()
}

fn environment(
    variables: Vec<proto::command::EnvironmentVariable>,
) -> Result<Vec<CString>, CommandError> {
    let mut names = HashSet::with_capacity(variables.len());
    for variable in &variables {
        if !names.insert(&variable.name) {
            return Err(CommandError::EnvironmentTwice(shown(&variable.name)));
        }
    }
    variables
        .iter()
        .map(|variable| {
            let name = &variable.name;
            let refuse = || CommandError::Environment(shown(name));
            if name.is_empty() || name.contains('=') {
                return Err(refuse());
            }
            CString::new(format!("{name}={}", variable.value)).map_err(|_| refuse())
        })
        .collect()
}

fn node_properties(names: &[String]) -> Result<OutputNodeProperties, CommandError> {
    let mut properties = OutputNodeProperties::default();
    for name in names {
        match name.as_str() {
            "mtime" => properties.mtime = true,
            "unix_mode" => properties.unix_mode = true,
            _ => return Err(CommandError::NodeProperty(shown(name))),
        }
    }
    Ok(properties)
}

#[cfg(test)]
#[allow(deprecated, reason = "the old lists of outputs must go on working")]
mod tests {
    use super::*;

    fn command() -> proto::Command {
        proto::Command { arguments: vec!["true".to_owned()], ..Default::default() }
    }

    fn parse(command: &proto::Command) -> Result<CommandSpec, CommandError> {
        CommandSpec::parse(&command.encode_to_vec(), None, &WorkerPlatform::default())
    }

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn arguments_and_environment() {
        let variable = |name: &str, value: &str| proto::command::EnvironmentVariable {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let spec = parse(&proto::Command {
            arguments: strings(&["cc", "", "-c"]),
            environment_variables: vec![variable("B", "x=y"), variable("A", "")],
            ..Default::default()
        })
        .unwrap();
        assert_eq!(spec.arguments, [c"cc".into(), c"".into(), c"-c".into()] as [CString; 3]);
        assert_eq!(spec.environment, [c"B=x=y".into(), c"A=".into()] as [CString; 2]);

        let refused = |names: &[(&str, &str)]| {
            parse(&proto::Command {
                environment_variables: names.iter().map(|(n, v)| variable(n, v)).collect(),
                ..command()
            })
            .unwrap_err()
        };
        for (name, value) in [("", "x"), ("A=B", "x"), ("A\0", "x"), ("A", "x\0")] {
            assert!(matches!(refused(&[(name, value)]), CommandError::Environment(_)));
        }
        assert_eq!(
            refused(&[("A", "1"), ("A", "1")]),
            CommandError::EnvironmentTwice("A".to_owned())
        );
    }

    #[test]
    fn a_command_needs_a_program() {
        let with = |arguments: &[&str]| {
            parse(&proto::Command { arguments: strings(arguments), ..Default::default() })
                .map(|spec| spec.arguments.len())
        };
        assert_eq!(with(&[]), Err(CommandError::NoProgram));
        assert_eq!(with(&["", "x"]), Err(CommandError::NoProgram));
        assert_eq!(with(&["a", "b\0c"]), Err(CommandError::ArgumentNul(1)));
        assert_eq!(with(&["a", "b"]), Ok(2));
    }

    #[test]
    fn working_directories() {
        for (text, expected) in [("", ""), (".", ""), ("a/b", "a/b"), ("w/", "w"), ("./", "")] {
            let command = proto::Command { working_directory: text.to_owned(), ..command() };
            let spec = parse(&command).ok();
            assert_eq!(spec.as_ref().map(|s| s.working_directory.as_str()), Some(expected));
        }
        for bad in ["/", "/a", "..", "../", "a/../..", "a//b", "a//", "//", "a\0"] {
            let command = proto::Command { working_directory: bad.to_owned(), ..command() };
            let refused = matches!(parse(&command), Err(CommandError::WorkingDirectory(_)));
            assert!(refused, "{bad:?}");
        }
    }

    #[test]
    fn the_platform_of_the_action_wins() {
        let platform = |value: &str| proto::Platform {
            properties: vec![proto::platform::Property {
                name: "libc".to_owned(),
                value: value.to_owned(),
            }],
        };
        let message =
            proto::Command { platform: Some(platform("old")), ..command() }.encode_to_vec();
        let libc = |action: Option<&proto::Platform>| {
            let worker = WorkerPlatform::default();
            CommandSpec::parse(&message, action, &worker).unwrap().properties.libc
        };
        assert_eq!(libc(None).as_deref(), Some("old"));
        assert_eq!(libc(Some(&platform("new"))).as_deref(), Some("new"));
        assert_eq!(libc(Some(&proto::Platform::default())), None);
    }

    #[test]
    fn formats_and_node_properties() {
        let with = |format, names: &[&str]| {
            parse(&proto::Command {
                output_directory_format: format,
                output_node_properties: strings(names),
                ..command()
            })
        };
        let spec = with(1, &["mtime"]).unwrap();
        assert_eq!(spec.output_directory_format, OutputDirectoryFormat::DirectoryOnly);
        assert!(spec.output_node_properties.mtime && !spec.output_node_properties.unix_mode);
        let unknown = with(99, &[]).unwrap().output_directory_format;
        assert_eq!(unknown, OutputDirectoryFormat::TreeOnly, "as REAPI has it");
        assert!(with(0, &["MTime"]).is_err());
    }

    #[test]
    fn what_is_no_command() {
        let parse = |message: &[u8]| CommandSpec::parse(message, None, &WorkerPlatform::default());
        assert!(matches!(parse(b"\xff\xff"), Err(CommandError::Decode(_))));
        assert_eq!(
            parse(&vec![0; MAX_MESSAGE_BYTES + 1]),
            Err(CommandError::TooLarge(MAX_MESSAGE_BYTES as u64 + 1))
        );
    }
}
