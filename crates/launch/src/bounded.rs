//! Servers of others with a bound on their memory, so that one of them can't take the machine from all other tests.

use std::{ffi::OsStr, process::Command};

/// The memory that such a server can write to, in bytes: several times what a test makes it hold.
pub const MEMORY_BYTES_MAX: u64 = 2 << 30;

/// The memory at which a server in Go collects its garbage all the time: otherwise it may reach
/// [`MEMORY_BYTES_MAX`] with garbage alone.
const GO_MEMORY_LIMIT: &str = "1GiB";

/// A command for that program, which gets no more than [`MEMORY_BYTES_MAX`]. The process has the id of the one that is
/// started: `prlimit` becomes the program.
pub fn bounded(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("prlimit");
    command.arg(format!("--data={MEMORY_BYTES_MAX}")).arg("--").arg(program);
    command.env("GOMEMLIMIT", GO_MEMORY_LIMIT);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_has_the_bound_and_its_arguments() {
        let output = bounded("sh").args(["-c", "ulimit -d; echo \"$0\"", "word"]).output().unwrap();
        let expected = format!("{}\nword\n", MEMORY_BYTES_MAX / 1024);
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    }
}
