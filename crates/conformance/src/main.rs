//! `actiond-conformance`: checks a server against the Remote Execution API, clause by clause.
//!
//! It is a client and nothing else, so it can check any server. Each check quotes the clause that it
//! proves. A server that lacks an optional feature skips the checks of that feature; the report gives
//! the reason, and a skip never counts as a pass. Two parts of the API are out of reach: what only the
//! server's own files show, and what would need a machine to fail.
//!
//! - [`check`]: the parts of a check, and its verdict.
//! - [`areas`]: the table of all checks.
//! - [`server`]: the server under test, and what it announces.
//! - [`expect`]: judging answers.
//! - [`run`]: runs the checks.
//! - [`report`]: text, JSON, JUnit and Markdown.

mod areas;
mod check;
mod expect;
mod report;
mod run;
mod server;
mod skip;

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;

use crate::report::Report;
use crate::server::{Platform, Server};

/// Checks a server against the Remote Execution API v2.
#[derive(Debug, Parser)]
struct Arguments {
    /// The server, as HOST:PORT, http://HOST:PORT or grpc://HOST:PORT.
    #[arg(long, required_unless_present = "list")]
    server: Option<String>,
    /// The instance name of all requests.
    #[arg(long, default_value = "")]
    instance: String,
    /// A platform property that every action carries; may be repeated.
    #[arg(long, value_name = "NAME=VALUE")]
    platform: Vec<Platform>,
    /// Run only checks whose `area/name` contains this.
    #[arg(long, value_name = "PATTERN")]
    only: Option<String>,
    /// Fail on clauses that say SHOULD as well.
    #[arg(long)]
    strict: bool,
    /// The number of checks that run at once.
    #[arg(long, value_name = "N", default_value_t = 4)]
    jobs: usize,
    /// Write the report to this file as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the report to this file in JUnit's XML format.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write the report to this file as a Markdown table.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Only list the checks with their clauses.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(run(Arguments::parse())),
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("actiond-conformance: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the server conforms.
async fn run(arguments: Arguments) -> anyhow::Result<bool> {
    let checks: Vec<_> = areas::select(arguments.only.as_deref()).collect();
    let Some(url) = arguments.server.filter(|_| !arguments.list) else {
        show(&report::list(&checks))?;
        return Ok(true);
    };
    let server = Server::connect(&url, &arguments.instance, arguments.platform).await?;
    let report = Report::new(url, run::all(&server, &checks, arguments.jobs).await);
    write(arguments.json.as_deref(), || report.to_json())?;
    write(arguments.junit.as_deref(), || Ok(report.to_junit()))?;
    write(arguments.markdown.as_deref(), || Ok(report.to_markdown()))?;
    show(&report.to_text())?;
    Ok(report.is_good(arguments.strict))
}

/// Prints to the end, or until the reader has enough, as `head` has.
fn show(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome.context("printing"),
    }
}

fn write(
    path: Option<&Path>,
    content: impl FnOnce() -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    std::fs::write(path, content()?).with_context(|| format!("writing {}", path.display()))
}
