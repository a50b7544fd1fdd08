//! The Action that `replay` runs: a copy of another one that asks not to be cached, and differs from it in what the
//! caller asks for. Pure.

use model::{Digest, DigestFunction, proto};
use proto::Message as _;
use proto::command::EnvironmentVariable;
use proto::platform::Property;
use sandbox::DEFAULT_PATH;

use super::blobs::ReadAction;

/// The tracer in the root file system of the action.
const STRACE: &str = "/usr/bin/strace";

/// The file of the trace, in the working directory of the action.
pub(crate) const TRACE: &str = ".actiond-strace";

const PATH: &str = "PATH";

/// The variable with the kind of the terminal, which programs need to use more of it than lines.
const TERM: &str = "TERM";

/// A shell: bash where there is one, which has a history and completes names. No files of the root file system are
/// read at its start, for those are of a home that actions lack. A person at a terminal gets prompts.
const SHELL: [&str; 3] = [
    "/bin/sh",
    "-c",
    "[ -t 0 ] && set -- -i; \
     if [ -x /bin/bash ]; then exec /bin/bash --noprofile --norc \"$@\"; else exec /bin/sh \"$@\"; fi",
];

/// Platform properties that choose the root file system.
const OF_ROOT: [&str; 4] = ["rootfs", "container-image", "libc", "requires-bash"];

/// The differences to the Action that was read.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Changes {
    /// Run the command under strace, which writes [`TRACE`].
    pub(crate) trace: bool,
    /// Show it the host's root file system.
    pub(crate) tools: bool,
    /// Run a shell in the place of the command.
    pub(crate) shell: bool,
}

/// An Action with the blobs that it needs beside those of the one that it is a copy of.
pub(crate) struct Variant {
    pub(crate) action: Digest,
    pub(crate) blobs: Vec<(Digest, Vec<u8>)>,
}

/// The copy of an Action with these changes.
pub(crate) fn of(read: &ReadAction, changes: Changes, function: DigestFunction) -> Variant {
    let mut action = proto::Action { do_not_cache: true, ..read.action.clone() };
    let mut blobs = Vec::new();
    let mut add = |data: Vec<u8>| {
        let digest = Digest::of(function, &data);
        blobs.push((digest, data));
        digest
    };
    if changes.trace {
        action.command_digest = Some(add(traced(&read.command).encode_to_vec()).to_proto());
    }
    if changes.shell {
        let terminal = std::env::var("TERM").unwrap_or_default();
        let shell = shell(&read.command, &terminal);
        action.command_digest = Some(add(shell.encode_to_vec()).to_proto());
        // A person is slower than a command. The timeout of the server's configuration stays.
        action.timeout = None;
    }
    if changes.tools {
        let kept =
            read.platform().into_iter().filter(|(name, _)| !OF_ROOT.contains(&name.as_str()));
        let host = [("rootfs".to_owned(), "host".to_owned())];
        let properties = kept.chain(host).map(|(name, value)| Property { name, value });
        let mut properties: Vec<Property> = properties.collect();
        // The API wants them in this order.
        properties.sort_by(|a, b| (&a.name, &a.value).cmp(&(&b.name, &b.value)));
        action.platform = Some(proto::Platform { properties });
    }
    let action = add(action.encode_to_vec());
    Variant { action, blobs }
}

/// A shell with the environment of the command, in its directory, and without its outputs.
fn shell(command: &proto::Command, terminal: &str) -> proto::Command {
    let mut shell = command.clone();
    shell.arguments = SHELL.map(str::to_owned).into();
    shell.output_paths.clear();
    #[allow(deprecated, reason = "clients of older versions of the API declare outputs there")]
    {
        shell.output_files.clear();
        shell.output_directories.clear();
    }
    let variables = &mut shell.environment_variables;
    if !terminal.is_empty() && !variables.iter().any(|variable| variable.name == TERM) {
        let (name, value) = (TERM.to_owned(), terminal.to_owned());
        variables.push(EnvironmentVariable { name, value });
        // The API wants them in this order.
        variables.sort_by(|a, b| a.name.cmp(&b.name));
    }
    shell
}

/// The command under strace, with the trace as one more output.
fn traced(command: &proto::Command) -> proto::Command {
    let mut traced = command.clone();
    let words = [STRACE, "-f", "-o", TRACE, "--"].map(str::to_owned);
    traced.arguments = words.into_iter().chain(command.arguments.iter().cloned()).collect();
    let needs_path = command.arguments.first().is_some_and(|program| !program.contains('/'));
    let variables = &mut traced.environment_variables;
    if needs_path && !variables.iter().any(|variable| variable.name == PATH) {
        // The sandbox searches there for a program, and strace only where PATH says.
        let (name, value) = (PATH.to_owned(), DEFAULT_PATH.to_owned());
        variables.push(EnvironmentVariable { name, value });
        // The API wants them in this order.
        variables.sort_by(|a, b| a.name.cmp(&b.name));
    }
    #[allow(deprecated, reason = "clients of older versions of the API declare outputs there")]
    let is_older = traced.output_paths.is_empty()
        && !(traced.output_files.is_empty() && traced.output_directories.is_empty());
    #[allow(deprecated, reason = "as above")]
    let outputs = if is_older { &mut traced.output_files } else { &mut traced.output_paths };
    outputs.push(TRACE.to_owned());
    // The API wants them in this order.
    outputs.sort();
    traced
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read() -> ReadAction {
        let command = proto::Command {
            arguments: vec!["tool".into(), "-o".into()],
            output_paths: vec!["a".into()],
            ..Default::default()
        };
        let property =
            |name: &str, value: &str| Property { name: name.into(), value: value.into() };
        let properties = vec![property("cores", "1"), property("libc", "glibc")];
        let action =
            proto::Action { platform: Some(proto::Platform { properties }), ..Default::default() };
        ReadAction { action, command, input_root: Digest::of(DigestFunction::Sha256, b"") }
    }

    fn message<M: proto::Message + Default>(variant: &Variant, digest: &Digest) -> M {
        let (_, data) = variant.blobs.iter().find(|(it, _)| it == digest).unwrap();
        M::decode(&**data).unwrap()
    }

    #[test]
    fn a_plain_replay_is_only_not_cached() {
        let variant = of(&read(), Changes::default(), DigestFunction::Sha256);
        let action: proto::Action = message(&variant, &variant.action);
        assert_eq!(action, proto::Action { do_not_cache: true, ..read().action });
        assert_eq!(variant.blobs.len(), 1);
    }

    #[test]
    fn the_command_is_traced() {
        let changes = Changes { trace: true, ..Changes::default() };
        let variant = of(&read(), changes, DigestFunction::Sha256);
        let action: proto::Action = message(&variant, &variant.action);
        let digest = action.command_digest.unwrap();
        let digest = Digest::from_proto(&digest, DigestFunction::Sha256).unwrap();
        let command: proto::Command = message(&variant, &digest);
        assert_eq!(command.arguments, [STRACE, "-f", "-o", TRACE, "--", "tool", "-o"]);
        assert_eq!(command.output_paths, [TRACE, "a"]);
    }

    #[test]
    fn a_shell_has_the_environment_of_the_command_and_no_outputs() {
        let mut command = read().command;
        let variable = |name: &str, value: &str| EnvironmentVariable {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        command.working_directory = "a/b".into();
        command.environment_variables = vec![variable("A", "1"), variable("Z", "2")];
        let shell = shell(&command, "xterm");
        assert_eq!(shell.arguments, SHELL);
        assert!(shell.output_paths.is_empty());
        assert_eq!(shell.working_directory, "a/b");
        let with_term = [variable("A", "1"), variable("TERM", "xterm"), variable("Z", "2")];
        assert_eq!(shell.environment_variables, with_term);
        assert_eq!(super::shell(&command, "").environment_variables, command.environment_variables);
        command.environment_variables = vec![variable("TERM", "dumb")];
        let kept = super::shell(&command, "xterm").environment_variables;
        assert_eq!(kept, [variable("TERM", "dumb")], "the command's own");
    }

    #[test]
    fn strace_searches_where_the_sandbox_does() {
        let check = |program: &str, environment: &[(&str, &str)], expected: &[(&str, &str)]| {
            let variables = environment.iter().map(|(name, value)| EnvironmentVariable {
                name: (*name).to_owned(),
                value: (*value).to_owned(),
            });
            let mut command = read().command;
            command.arguments[0] = program.to_owned();
            command.environment_variables = variables.collect();
            let traced = traced(&command).environment_variables;
            let found: Vec<_> = traced.iter().map(|it| (&*it.name, &*it.value)).collect();
            assert_eq!(found, expected, "{program} with {environment:?}");
        };
        let added = (PATH, "/usr/local/bin:/usr/bin:/bin");
        check("tool", &[], &[added]);
        check("tool", &[("A", "1"), ("Z", "2")], &[("A", "1"), added, ("Z", "2")]);
        check("tool", &[(PATH, "/opt")], &[(PATH, "/opt")]);
        check("tool", &[(PATH, "")], &[(PATH, "")]);
        // No search, so the environment stays as it is.
        check("/bin/tool", &[("A", "1")], &[("A", "1")]);
        check("./tool", &[], &[]);
    }

    #[test]
    fn the_root_is_the_hosts() {
        let changes = Changes { tools: true, ..Changes::default() };
        let variant = of(&read(), changes, DigestFunction::Sha256);
        let action: proto::Action = message(&variant, &variant.action);
        let properties = action.platform.unwrap().properties;
        let names: Vec<_> = properties.iter().map(|it| (&*it.name, &*it.value)).collect();
        assert_eq!(names, [("cores", "1"), ("rootfs", "host")]);
    }
}
