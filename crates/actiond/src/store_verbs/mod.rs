//! `linux-actiond store`: what operators do with the store.
//!
//! A store belongs to one process at a time. So where a server has it, the verbs ask that server,
//! through the socket in the root directory or at a place that is given; otherwise they open the store
//! themselves. They open it without a limit, so that looking at a store never evicts anything.
//!
//! ```text
//!  verb ──► Access ─┬─ no server: Store::open ──► reapi::maintenance
//!                   └─ a server:  gRPC ─────────► reapi::maintenance, over there
//! ```

mod access;
mod show;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use model::{ByteSize, Digest, DigestFunction, DigestFunctions};
use proto::actiond::internal::v1::{CollectGarbageRequest, ListBlobsRequest};

use self::access::{Access, Removed};
use crate::output::{Progress, print};
use crate::server_flags::ServerArgs;
use crate::span::Span;
use crate::{logging, root_directory};

/// Flags of `store`.
#[derive(Debug, Args)]
pub struct StoreArgs {
    /// Directory of the store, as `serve` has it. A server that runs on it is found by itself
    #[arg(
        long,
        value_name = "DIR",
        default_value_os_t = root_directory::default(),
        hide_default_value = true,
        global = true
    )]
    pub root: PathBuf,

    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would show a doc comment as help")]
    pub server: ServerArgs,

    /// Print JSON: one object, or for `ls` one object per line
    #[arg(long, global = true)]
    pub json: bool,

    /// The verb
    #[command(subcommand)]
    pub command: StoreCommand,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Show how much disk space the store takes, by kind, by age and by size
    Du {
        /// Show only this grouping. `target` needs the history of actions; a blob of several targets counts for the
        /// one that was built last
        #[arg(long, value_name = "GROUPING")]
        by: Option<Grouping>,
    },
    /// List blobs, those that were used last first
    Ls {
        /// Only blobs that were not used for this long, such as 12h or 7d
        #[arg(long, value_name = "TIME")]
        older_than: Option<Span>,
        /// Only blobs of this size or more, such as 100m
        #[arg(long, value_name = "BYTES")]
        larger_than: Option<ByteSize>,
        /// The order of the list
        #[arg(long, value_name = "ORDER", default_value = "age")]
        sort: Order,
        /// List this many blobs at most
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
    },
    /// Evict the blobs that were idle for longest. Those that running actions need always stay
    #[command(group = clap::ArgGroup::new("goal").required(true).multiple(true))]
    Gc {
        /// Evict until the store takes this much of the disk at most, such as 20G
        #[arg(long, value_name = "BYTES", group = "goal")]
        to: Option<ByteSize>,
        /// Evict everything that was not used for this long, such as 7d
        #[arg(long, value_name = "TIME", group = "goal")]
        older_than: Option<Span>,
    },
    /// Read and hash every blob on the disk. Damaged ones go to quarantine, so that clients upload
    /// them again; the exit code is 1 if there are any
    Verify,
    /// Remove blobs. The exit code is 1 if one is not there or is in use
    Rm {
        /// HASH/SIZE, or with the digest function before it, such as blake3:HASH/SIZE
        #[arg(value_name = "DIGEST", required = true)]
        digests: Vec<BlobName>,
    },
}

/// `--by`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Grouping {
    /// Blobs, cached results and others.
    Kind,
    /// The time since the last use.
    Age,
    /// The size of the blobs.
    Size,
    /// The target whose actions made the blobs.
    Target,
}

/// `--sort`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// The time since the last use, the shortest first.
    Age,
    /// The size, the largest first.
    Size,
}

/// A digest on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobName(pub Digest);

impl FromStr for BlobName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (named, digest) = match text.split_once(':') {
            Some((name, digest)) => (Some(name.parse()?), digest),
            None => (None, text),
        };
        let (hash, size) = digest.split_once('/').ok_or("use HASH/SIZE")?;
        let function = match named {
            Some(function) => function,
            None => DigestFunctions::of(DigestFunction::ALL)
                .infer(hash.len())
                .map_err(|error| error.to_string())?,
        };
        let size = size.parse().map_err(|_| "the size is not a number of bytes".to_owned())?;
        Digest::parse_hex(function, hash, size).map(Self).map_err(|error| error.to_string())
    }
}

/// Does it.
///
/// # Errors
/// When there is no store, its server can't be asked, or the disk fails.
pub fn run(arguments: &StoreArgs) -> anyhow::Result<ExitCode> {
    logging::start_for_command()?;
    let mut access = Access::open(&arguments.root, &arguments.server)?;
    let code = verb(&mut access, &arguments.command, arguments.json)?;
    access.close()?;
    Ok(code)
}

fn verb(access: &mut Access, command: &StoreCommand, json: bool) -> anyhow::Result<ExitCode> {
    match command {
        StoreCommand::Du { by } => {
            let usage = access.usage(*by == Some(Grouping::Target))?;
            print(&if json { show::usage_json(&usage) } else { show::usage(&usage, *by) })?;
        }
        StoreCommand::Ls { older_than, larger_than, sort, limit } => {
            let request = ListBlobsRequest {
                idle_seconds_min: older_than.map_or(0, |span| span.0.as_secs()),
                size_bytes_min: larger_than.map_or(0, |size| size.0),
            };
            let mut blobs = Vec::new();
            access.list(&request, |some| {
                blobs.extend(some.blobs);
                ControlFlow::Continue(())
            })?;
            show::sort(&mut blobs, *sort);
            blobs.truncate(limit.unwrap_or(usize::MAX));
            print(&show::blobs(&blobs, json))?;
        }
        StoreCommand::Gc { to, older_than } => {
            let request = CollectGarbageRequest {
                used_bytes_max: to.map(|size| size.0),
                idle_seconds_min: older_than.map(|span| span.0.as_secs()),
            };
            let mut last = None;
            let mut progress = Progress::start();
            access.collect_garbage(&request, |now| {
                progress.show(&show::collected(&now));
                last = Some(now);
                ControlFlow::Continue(())
            })?;
            progress.end();
            let last = last.filter(|last| last.done).context("the server did not finish")?;
            print(&if json { show::collected_json(&last) } else { show::collected(&last) + "\n" })?;
        }
        StoreCommand::Verify => return verify(access, json),
        StoreCommand::Rm { digests } => return remove(access, digests, json),
    }
    Ok(ExitCode::SUCCESS)
}

fn verify(access: &mut Access, json: bool) -> anyhow::Result<ExitCode> {
    let (mut last, mut damaged) = (None, Vec::new());
    let mut progress = Progress::start();
    access.verify(|mut now| {
        progress.show(&show::verified(&now));
        damaged.append(&mut now.damaged);
        last = Some(now);
        ControlFlow::Continue(())
    })?;
    progress.end();
    let last = last.filter(|last| last.done).context("the server did not finish")?;
    if json {
        print(&show::verified_json(&last, &damaged))?;
    } else {
        let lines: String = damaged.iter().map(|name| format!("damaged: {name}\n")).collect();
        print(&format!("{lines}{}; {} damaged\n", show::verified(&last), damaged.len()))?;
    }
    Ok(if damaged.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn remove(access: &mut Access, digests: &[BlobName], json: bool) -> anyhow::Result<ExitCode> {
    let mut all = true;
    for BlobName(digest) in digests {
        let removed = access.remove(digest)?;
        all &= removed == Removed::Gone;
        print(&show::removed(digest, removed, json))?;
    }
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests() {
        let sha256 = Digest::of(DigestFunction::Sha256, b"abc");
        let blake3 = Digest::of(DigestFunction::Blake3, b"abc");
        let parse = |text: String| text.parse::<BlobName>().ok();
        assert_eq!(parse(sha256.to_string()), Some(BlobName(sha256)));
        for function in DigestFunction::ALL {
            let digest = Digest::of(function, b"abc");
            assert_eq!(parse(format!("{function}:{digest}")), Some(BlobName(digest)));
            if function != DigestFunction::Blake3 {
                assert_eq!(parse(digest.to_string()), Some(BlobName(digest)));
            }
        }
        assert_eq!(parse(format!("blake3:{blake3}")), Some(BlobName(blake3)));
        for bad in ["", "abc", "abc/3", "md5:abc/3", &format!("{}/x", sha256.hex()), "/3"] {
            assert_eq!(parse(bad.to_owned()), None, "{bad}");
        }
    }
}
