//! Verbs that ask a running server about its actions: `linux-actiond ps`, `logs`, `show`, `why`, and others.
//!
//! ```text
//!  verb ──► Server ─┬─ actiond.internal.v1.History   ps, top, logs, stats, why
//!                   ├─ google.longrunning.Operations kill, top
//!                   ├─ ByteStream                    show, cat, ls, tree, diff, export
//!                   ├─ Execution                     replay
//!                   └─ actiond.internal.v1.Shell     replay --shell
//! ```
//!
//! They ask through the socket in the root directory, or at a place that is given, with the rights of the token
//! in the environment. Text that clients and actions chose is escaped before it is printed; only `cat` writes
//! blobs as they are.

mod allowance;
mod blobs;
mod content;
mod export;
mod files;
mod live;
mod outputs;
mod replay;
mod shell;
mod show;
mod top;
mod totals;
mod trees;
mod variant;
mod why;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use model::ByteSize;

use crate::server_flags::ServerArgs;
use crate::span::Span;
use crate::store_verbs::BlobName;
use crate::{logging, root_directory};

/// The server that is asked, and how its answer is printed.
#[derive(Debug, Args)]
pub struct Asked {
    /// Root directory of the server, as `serve` has it
    #[arg(long, value_name = "DIR", default_value_os_t = root_directory::default())]
    pub root: PathBuf,

    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would show a doc comment as help")]
    pub server: ServerArgs,

    /// Print JSON, one object per line
    #[arg(long)]
    pub json: bool,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// List running and queued actions of a server
    Ps {
        #[command(flatten)]
        #[allow(missing_docs, reason = "clap would show a doc comment as help")]
        asked: Asked,
    },
    /// Watch running, queued and ended actions of a server on the terminal
    Top {
        #[command(flatten)]
        #[allow(missing_docs, reason = "clap would show a doc comment as help")]
        asked: Asked,
        /// The time between two looks, in milliseconds; 100 at least
        #[arg(
            long,
            value_name = "MS",
            default_value_t = 1000,
            value_parser = clap::value_parser!(u64).range(100..=3_600_000)
        )]
        period: u64,
    },
    /// Cancel operations. The exit code is 1 if one is unknown
    Kill {
        #[command(flatten)]
        #[allow(missing_docs, reason = "clap would show a doc comment as help")]
        asked: Asked,
        /// Names of operations, as `ps` lists them
        #[arg(value_name = "OPERATION", required = true)]
        operations: Vec<String>,
    },
    /// Show the last executions and cache lookups
    Logs {
        #[command(flatten)]
        #[allow(missing_docs, reason = "clap would show a doc comment as help")]
        asked: Asked,
        /// Go on with what comes, until interrupted
        #[arg(long, short)]
        follow: bool,
        /// Show this many of the past, 1,000 at most
        #[arg(long, short = 'n', value_name = "N", default_value_t = 20)]
        lines: u32,
        /// Only those of this target
        #[arg(long, value_name = "TARGET")]
        target: Option<String>,
        /// Also lookups in the action cache, which clients make before they execute
        #[arg(long)]
        lookups: bool,
    },
    /// Add up executions, hits, and misses by reason
    Stats {
        #[command(flatten)]
        #[allow(missing_docs, reason = "clap would show a doc comment as help")]
        asked: Asked,
        /// The time up to now, such as 1h or 7d; whole hours are added up
        #[arg(long, value_name = "TIME", default_value = "1d")]
        since: Span,
    },
    /// Show an Action with its command line and its last runs, or a Command, Directory or Tree
    Show {
        #[command(flatten)]
        #[allow(missing_docs, reason = "clap would show a doc comment as help")]
        asked: Asked,
        /// HASH/SIZE, or with the digest function before it, such as blake3:HASH/SIZE
        digest: BlobName,
    },
    /// Write a blob to standard output, as it is
    Cat {
        #[command(flatten)]
        #[allow(missing_docs, reason = "clap would show a doc comment as help")]
        asked: Asked,
        /// HASH/SIZE, or with the digest function before it, such as blake3:HASH/SIZE
        digest: BlobName,
    },
    /// List a Directory, or the input root of an Action
    Ls {
        #[command(flatten)]
        #[allow(missing_docs, reason = "clap would show a doc comment as help")]
        asked: Asked,
        /// HASH/SIZE of a Directory or an Action
        digest: BlobName,
    },
    /// List everything below a Directory, or in the input root of an Action
    Tree {
        #[command(flatten)]
        #[allow(missing_docs, reason = "clap would show a doc comment as help")]
        asked: Asked,
        /// HASH/SIZE of a Directory or an Action
        digest: BlobName,
    },
    /// Compare two Actions, down to the input file. The exit code is 1 if they differ
    Diff {
        #[command(flatten)]
        #[allow(missing_docs, reason = "clap would show a doc comment as help")]
        asked: Asked,
        /// The old Action
        old: BlobName,
        /// The new Action
        new: BlobName,
    },
    /// Say why the last run of a target, or of an Action, was not answered from the cache
    Why {
        #[command(flatten)]
        #[allow(missing_docs, reason = "clap would show a doc comment as help")]
        asked: Asked,
        /// A target as the client names it, such as //a:b, or HASH/SIZE of an Action
        #[arg(value_name = "TARGET|DIGEST")]
        what: String,
    },
    /// Write an Action's inputs, command and outputs to a directory, for use without a server
    Export {
        #[command(flatten)]
        #[allow(missing_docs, reason = "clap would show a doc comment as help")]
        asked: Asked,
        /// HASH/SIZE of an Action
        digest: BlobName,
        /// The directory; it must be empty or not exist
        directory: PathBuf,
        /// Write nothing if the files take more than this in all. A file counts at each place where it is
        #[arg(long, value_name = "BYTES", default_value_t = EXPORTED_BYTES_MAX)]
        up_to: ByteSize,
    },
    /// Run an Action again on the server, without the cache, and compare the results. The exit code is 1
    /// if they differ
    Replay {
        #[command(flatten)]
        #[allow(missing_docs, reason = "clap would show a doc comment as help")]
        asked: Asked,
        /// HASH/SIZE of an Action
        digest: BlobName,
        #[command(flatten)]
        #[allow(missing_docs, reason = "clap would show a doc comment as help")]
        choices: replay::Choices,
    },
}

/// The files that are written without a flag: more than actions of real builds have, and less than a disk.
const EXPORTED_BYTES_MAX: ByteSize = ByteSize(16 << 30);

impl ClientCommand {
    fn asked(&self) -> &Asked {
        match self {
            Self::Ps { asked }
            | Self::Top { asked, .. }
            | Self::Kill { asked, .. }
            | Self::Logs { asked, .. }
            | Self::Stats { asked, .. }
            | Self::Show { asked, .. }
            | Self::Cat { asked, .. }
            | Self::Ls { asked, .. }
            | Self::Tree { asked, .. }
            | Self::Diff { asked, .. }
            | Self::Why { asked, .. }
            | Self::Export { asked, .. }
            | Self::Replay { asked, .. } => asked,
        }
    }
}

/// Does it.
///
/// # Errors
/// When the server can't be asked, or lacks what it is asked for.
pub fn run(command: &ClientCommand) -> anyhow::Result<ExitCode> {
    logging::start_for_command()?;
    let Asked { root, server, json } = command.asked();
    let (server, json) = (server.connect_or(root)?, *json);
    match command {
        ClientCommand::Ps { .. } => live::ps(&server, json)?,
        ClientCommand::Top { period, .. } => {
            top::top(&server, std::time::Duration::from_millis(*period), json)?;
        }
        ClientCommand::Kill { operations, .. } => return live::kill(&server, operations, json),
        ClientCommand::Logs { follow, lines, target, lookups, .. } => {
            let wanted = live::Wanted { target: target.as_deref(), lookups: *lookups };
            live::logs(&server, &wanted, *lines, *follow, json)?;
        }
        ClientCommand::Stats { since, .. } => live::stats(&server, since.0.as_secs(), json)?,
        ClientCommand::Show { digest, .. } => content::show(&server, &digest.0, json)?,
        ClientCommand::Cat { digest, .. } => content::cat(&server, &digest.0)?,
        ClientCommand::Ls { digest, .. } => content::list(&server, &digest.0, false, json)?,
        ClientCommand::Tree { digest, .. } => content::list(&server, &digest.0, true, json)?,
        ClientCommand::Diff { old, new, .. } => {
            return content::diff(&server, &old.0, &new.0, json);
        }
        ClientCommand::Why { what, .. } => why::why(&server, what, json)?,
        ClientCommand::Export { digest, directory, up_to, .. } => {
            export::export(&server, &digest.0, directory, *up_to, json)?;
        }
        ClientCommand::Replay { digest, choices, .. } => {
            return replay::replay(&server, &digest.0, choices, json);
        }
    }
    Ok(ExitCode::SUCCESS)
}
