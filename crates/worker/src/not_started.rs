//! A program that cannot be executed: the action fails, as it does on a developer's machine, and says
//! why on its standard error. It is not an error of the server, of which a build tool would say that the
//! machine is broken.
//!
//! The exit codes are those of shells (POSIX, 2.8.2): 127 for a program that is not there, 126 for one
//! that is there and cannot be executed.

use std::fmt::Write as _;

use model::{CommandSpec, Printable};
use runtimes::{Lack, Runtimes};
use rustix::io::Errno;
use sandbox::{Hindrance, Obstacle, Part, RunError};
use store::is_exhaustion;

const NOT_FOUND: i32 = 127;
const NOT_EXECUTABLE: i32 = 126;

/// The directory of the input root, in which no runtime puts a program.
const INPUT_ROOT: &[u8] = b"/execroot/";

/// The end of an action whose program was not executed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotStarted {
    pub(crate) exit_code: i32,
    /// One line, with its end, for standard error.
    pub(crate) text: String,
}

/// The end of a command whose execve(2) failed with `error`; `None` if the machine lacked a resource, which is
/// not the action's fault.
pub(crate) fn not_started(
    command: &CommandSpec,
    error: &RunError,
    runtimes: &Runtimes,
) -> Option<NotStarted> {
    let program = command.arguments.first().map_or(&b""[..], |word| word.to_bytes());
    let (exit_code, reason) = match error.obstacle() {
        Some(obstacle) => (code(obstacle), Some(obstacle)),
        None if is_exhaustion(error.errno()) || error.errno() == Errno::IO => return None,
        None => (NOT_EXECUTABLE, None),
    };
    let mut text = format!("actiond: cannot run `{}`: ", Printable::bytes(program));
    match reason {
        Some(obstacle) => text.push_str(&reason_of(obstacle, program, command)),
        None => text.push_str(&error.errno_text()),
    }
    let lack = reason.and_then(|obstacle| lack(obstacle, program));
    if let Some(advice) = lack.and_then(|lack| runtimes.advice(&command.properties, lack)) {
        // Writing to a String never fails.
        let _ = write!(text, "; {advice}");
    }
    text.push('\n');
    Some(NotStarted { exit_code, text })
}

fn is_missing(hindrance: Hindrance) -> bool {
    let Hindrance::Unreachable(errno) = hindrance else { return false };
    matches!(Errno::from_raw_os_error(errno), Errno::NOENT | Errno::NOTDIR)
}

fn code(obstacle: &Obstacle) -> i32 {
    match obstacle.part {
        Part::Program if is_missing(obstacle.hindrance) => NOT_FOUND,
        Part::Program | Part::Interpreter | Part::Loader => NOT_EXECUTABLE,
    }
}

/// Why it is not executed, in words. All paths in it are a client's or an action's.
fn reason_of(obstacle: &Obstacle, program: &[u8], command: &CommandSpec) -> String {
    let is_searched = !program.contains(&b'/');
    let path = Printable::bytes(&obstacle.path);
    match obstacle.part {
        Part::Program if is_searched && is_missing(obstacle.hindrance) => {
            format!("not found in {}", search_path(command))
        }
        Part::Program if is_searched => format!("`{path}` {}", worded(obstacle.hindrance)),
        Part::Program => format!("it {}", worded(obstacle.hindrance)),
        Part::Interpreter => {
            let mut text = format!("its interpreter `{path}` {}", worded(obstacle.hindrance));
            if obstacle.path.last() == Some(&b'\r') {
                text.push_str(
                    ": its first line ends in a carriage return, as lines of text files do on Windows",
                );
            }
            text
        }
        Part::Loader => format!(
            "it is dynamically linked, and its loader `{path}` {}",
            worded(obstacle.hindrance)
        ),
    }
}

fn search_path(command: &CommandSpec) -> String {
    let path = command.environment.iter().find_map(|it| it.to_bytes().strip_prefix(b"PATH="));
    match path {
        Some(path) => format!("PATH (`{}`)", Printable::bytes(path)),
        None => "the default PATH, for the command sets none".to_owned(),
    }
}

fn worded(hindrance: Hindrance) -> String {
    match hindrance {
        _ if is_missing(hindrance) => "does not exist".to_owned(),
        Hindrance::Unreachable(errno) => {
            format!("cannot be reached: {}", std::io::Error::from_raw_os_error(errno))
        }
        Hindrance::Directory => "is a directory".to_owned(),
        Hindrance::Special => "is no regular file".to_owned(),
        Hindrance::Forbidden(mode) => {
            format!("is not executable: permission denied (mode {mode:04o})")
        }
        Hindrance::Format => {
            "is no program: it has neither a `#!` line nor a format that Linux executes".to_owned()
        }
        Hindrance::Machine(machine) => match processor(machine) {
            Some(name) => format!("is a program for another processor ({name})"),
            None => format!("is a program for another processor (ELF machine {machine})"),
        },
    }
}

/// Names for `e_machine` (elf(5)) that a build may meet.
fn processor(machine: u16) -> Option<&'static str> {
    Some(match machine {
        3 => "i386",
        8 => "MIPS",
        20 => "PowerPC",
        21 => "PowerPC64",
        22 => "S390",
        40 => "ARM",
        62 => "x86_64",
        183 => "AArch64",
        243 => "RISC-V",
        258 => "LoongArch",
        _ => return None,
    })
}

/// The part that the action's root lacks, if that is the reason.
fn lack(obstacle: &Obstacle, program: &[u8]) -> Option<Lack> {
    if !is_missing(obstacle.hindrance) || obstacle.path.last() == Some(&b'\r') {
        return None;
    }
    let path = &obstacle.path;
    let is_of_root = path.starts_with(b"/") && !path.starts_with(INPUT_ROOT);
    match obstacle.part {
        Part::Loader => Some(Lack::Libc),
        Part::Program if !program.contains(&b'/') => Some(Lack::Programs),
        Part::Program | Part::Interpreter => is_of_root.then_some(Lack::Programs),
    }
}

#[cfg(test)]
mod tests {
    use model::{WorkerPlatform, proto};
    use prost::Message as _;
    use runtimes::RuntimeOptions;

    use super::*;

    fn command(program: &str, environment: &[(&str, &str)]) -> CommandSpec {
        let variable = |(name, value): &(&str, &str)| proto::command::EnvironmentVariable {
            name: (*name).to_owned(),
            value: (*value).to_owned(),
        };
        let command = proto::Command {
            arguments: vec![program.to_owned()],
            environment_variables: environment.iter().map(variable).collect(),
            ..Default::default()
        };
        let message = command.encode_to_vec();
        CommandSpec::parse(&message, None, &WorkerPlatform::default()).unwrap()
    }

    #[track_caller]
    fn check(program: &str, part: Part, path: &str, hindrance: Hindrance, code: i32, told: &str) {
        let obstacle =
            Obstacle { program: b"x".to_vec(), part, path: path.as_bytes().to_vec(), hindrance };
        let command = command(program, &[("PATH", "/usr/bin:/bin")]);
        assert_eq!(super::code(&obstacle), code);
        assert_eq!(reason_of(&obstacle, program.as_bytes(), &command), told);
    }

    const MISSING: Hindrance = Hindrance::Unreachable(Errno::NOENT.raw_os_error());

    #[test]
    fn programs() {
        let check = |program, path, hindrance, code, told: &str| {
            check(program, Part::Program, path, hindrance, code, told);
        };
        check("/bin/x", "/bin/x", MISSING, 127, "it does not exist");
        check("x", "/usr/bin/x", MISSING, 127, "not found in PATH (`/usr/bin:/bin`)");
        let below_a_file = Hindrance::Unreachable(Errno::NOTDIR.raw_os_error());
        check("./a/x", "./a/x", below_a_file, 127, "it does not exist");
        let closed = Hindrance::Unreachable(Errno::ACCESS.raw_os_error());
        let told = "it cannot be reached: Permission denied (os error 13)";
        check("./a/x", "./a/x", closed, 126, told);
        check("./x", "./x", Hindrance::Directory, 126, "it is a directory");
        check("x", "/bin/x", Hindrance::Directory, 126, "`/bin/x` is a directory");
        check("./x", "./x", Hindrance::Special, 126, "it is no regular file");
        let told = "it is not executable: permission denied (mode 0644)";
        check("./x", "./x", Hindrance::Forbidden(0o644), 126, told);
        let told = "it is no program: it has neither a `#!` line nor a format that Linux executes";
        check("./x", "./x", Hindrance::Format, 126, told);
        let told = "it is a program for another processor (AArch64)";
        check("./x", "./x", Hindrance::Machine(183), 126, told);
        let told = "it is a program for another processor (ELF machine 9)";
        check("./x", "./x", Hindrance::Machine(9), 126, told);
    }

    #[test]
    fn interpreters_and_loaders() {
        let interpreter = |path, told: &str| {
            check("./x", Part::Interpreter, path, MISSING, 126, told);
        };
        interpreter("/bin/bash", "its interpreter `/bin/bash` does not exist");
        interpreter(
            "/bin/sh\r",
            "its interpreter `/bin/sh\\r` does not exist: its first line ends in a carriage return, \
             as lines of text files do on Windows",
        );
        let told = "it is dynamically linked, and its loader `/lib/ld.so` does not exist";
        check("./x", Part::Loader, "/lib/ld.so", MISSING, 126, told);
    }

    #[test]
    fn names_cannot_forge_anything() {
        let name = format!("x\n\u{1b}[2J{}", "y".repeat(10_000));
        let obstacle = Obstacle {
            program: name.clone().into(),
            part: Part::Interpreter,
            path: name.clone().into(),
            hindrance: MISSING,
        };
        let reason = reason_of(&obstacle, name.as_bytes(), &command(&name, &[("PATH", &name)]));
        assert!(!reason.contains(['\n', '\u{1b}']) && reason.len() < 300, "{reason}");
        let path = search_path(&command("x", &[("PATH", &name)]));
        assert!(!path.contains(['\n', '\u{1b}']) && path.len() < 300, "{path}");
        assert_eq!(search_path(&command("x", &[])), "the default PATH, for the command sets none");
    }

    #[test]
    fn advice_is_for_what_a_runtime_could_bring() {
        let lack = |program: &str, part, path: &str, hindrance| {
            let obstacle =
                Obstacle { program: Vec::new(), part, path: path.as_bytes().to_vec(), hindrance };
            lack(&obstacle, program.as_bytes())
        };
        let programs = Some(Lack::Programs);
        assert_eq!(lack("./x", Part::Loader, "/lib64/ld.so", MISSING), Some(Lack::Libc));
        assert_eq!(lack("cc", Part::Program, "/usr/bin/cc", MISSING), programs);
        assert_eq!(lack("/bin/sh", Part::Program, "/bin/sh", MISSING), programs);
        assert_eq!(lack("./x", Part::Interpreter, "/bin/sh", MISSING), programs);
        assert_eq!(lack("./x", Part::Interpreter, "/bin/sh\r", MISSING), None);
        assert_eq!(lack("./x", Part::Interpreter, "tool", MISSING), None);
        assert_eq!(lack("./x", Part::Program, "./x", MISSING), None);
        assert_eq!(lack("/execroot/x", Part::Program, "/execroot/x", MISSING), None);
        assert_eq!(lack("/bin/sh", Part::Program, "/bin/sh", Hindrance::Format), None);
        let advice = Runtimes::open(&RuntimeOptions::default())
            .unwrap()
            .advice(&command("x", &[]).properties, Lack::Libc);
        assert!(advice.is_some());
    }
}
