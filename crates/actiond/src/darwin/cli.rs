//! Flags, as plain data.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::logging::LogArgs;

/// A remote execution worker and cache for one machine: every action in a sandbox of a small Linux
/// VM.
#[derive(Debug, Parser)]
#[command(name = "darwin-actiond", version, max_term_width = 100)]
pub struct Cli {
    /// The verb.
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Boot the VM and serve the Remote Execution API from it
    ServeVm(Box<ServeVmArgs>),
    /// Show what this Mac offers, and what is lost without it
    Doctor(DoctorArgs),
    /// Write what a program carries (kernel, initramfs, runtimes) to files, as serve-vm does before
    /// it boots, and print their paths
    Extract(ExtractArgs),
}

/// Flags of `serve-vm`.
#[derive(Debug, Args)]
pub struct ServeVmArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would show a doc comment as help")]
    pub common: vm::serve::Arguments,

    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would show a doc comment as help")]
    pub log: LogArgs,
}

/// Flags of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The directory that `serve-vm` would use: its disk must have room
    #[arg(long, value_name = "DIR", default_value = "/tmp/actiond-vm")]
    pub root: PathBuf,
}

/// Flags of `extract`.
#[derive(Debug, Args)]
pub struct ExtractArgs {
    /// The program [default: this one]
    #[arg(long, value_name = "FILE")]
    pub program: Option<PathBuf>,

    /// The folder for the files
    #[arg(long, value_name = "DIR", default_value = "/tmp/actiond-vm")]
    pub root: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parse(words: &[&str]) -> Result<Command, clap::Error> {
        let words = ["darwin-actiond"].iter().chain(words);
        Cli::try_parse_from(words).map(|cli| cli.command)
    }

    #[test]
    fn the_flags_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_vm_has_the_flags_that_all_hosts_have() {
        let words = ["serve-vm", "--cpus=4", "--memory-mib", "2048", "--listen=127.0.0.1:9000"];
        let Ok(Command::ServeVm(arguments)) = parse(&words) else { panic!("not parsed") };
        let common = arguments.common;
        assert_eq!((common.cpus, common.memory_mib), (4, 2048));
        assert_eq!(common.listen.port(), 9000);
        assert!(parse(&["serve-vm", "--accel=kvm"]).is_err(), "that one is QEMU's");
    }

    #[test]
    fn there_is_no_serve_without_a_vm() {
        assert!(parse(&["serve"]).is_err());
        assert!(parse(&[]).is_err());
    }

    #[test]
    fn extract_has_a_program_or_is_about_this_one() {
        let program = |words: &[&str]| match parse(words) {
            Ok(Command::Extract(arguments)) => arguments.program,
            other => panic!("{other:?}"),
        };
        assert_eq!(program(&["extract"]), None);
        assert_eq!(program(&["extract", "--program=/a"]), Some("/a".into()));
    }
}
