//! `actiond-bench`: puts the same load on any Remote Execution API v2 server
//! and tells what its clients see.
//!
//! It knows nothing of actiond: what it measures of one server it can measure
//! of another, in the same run, on the same machine. Absolute figures of a
//! shared machine mean little; ratios within a run do.
//!
//! - [`client`]: a connection and the few calls that the loads need.
//! - [`stream`]: ByteStream, without copies.
//! - [`content`]: the blobs, trees and the smallest program there is.
//! - [`sample`]: latencies and rates, and how they are summed up.
//! - [`actions`], [`blobs`], [`forms`], [`results`]: the loads.
//! - [`report`]: the table and the JSON.

mod actions;
mod blobs;
mod client;
mod content;
mod forms;
mod report;
mod results;
mod sample;
mod stream;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;

use crate::client::Client;
use crate::report::Report;

/// Measures a Remote Execution API v2 server.
#[derive(Debug, Parser)]
struct Arguments {
    /// The server, as http://HOST:PORT.
    #[arg(long)]
    server: String,
    /// A second server that gets the same load in the same run.
    #[arg(long)]
    vs: Option<String>,
    /// Samples of each latency.
    #[arg(long, default_value_t = 300)]
    samples: usize,
    /// Only loads whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// A platform property, NAME=VALUE, that every action carries.
    #[arg(long)]
    property: Vec<String>,
    /// A static program that writes COUNT small files, all different with each
    /// SEED, below DIRECTORY when run with --tree=DIRECTORY --tree-files=COUNT
    /// --seed=SEED; without it that load is left out, and said to be.
    #[arg(long)]
    writer: Option<PathBuf>,
    /// Milliseconds between an action's answer and the next request, for a client that works in between:
    /// the server's work after its answer then delays nothing.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pause: u64,
    /// The file for the JSON report.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// The input of every load.
struct Load {
    client: Client,
    samples: usize,
    only: Option<String>,
    pause: Duration,
    writer: Option<Vec<u8>>,
    report: Report,
}

impl Load {
    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only))
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("actiond-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<()> {
    let ours = measure(&arguments, &arguments.server).await?;
    let theirs = match &arguments.vs {
        Some(url) => Some(measure(&arguments, url).await?),
        None => None,
    };
    report::print(&ours, theirs.as_ref());
    if let Some(path) = &arguments.json {
        let json = report::to_json(&ours, theirs.as_ref())?;
        std::fs::write(path, json).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

async fn measure(arguments: &Arguments, url: &str) -> Result<Report> {
    let writer = match &arguments.writer {
        Some(path) => {
            Some(std::fs::read(path).with_context(|| format!("reading {}", path.display()))?)
        }
        None => None,
    };
    let mut load = Load {
        client: Client::connect(url, &arguments.property).await?,
        samples: arguments.samples,
        only: arguments.only.clone(),
        pause: Duration::from_millis(arguments.pause),
        writer,
        report: Report::new(url),
    };
    actions::run(&mut load).await.context("actions")?;
    blobs::run(&mut load).await.context("blobs")?;
    forms::run(&mut load).await.context("compressed blobs and chunks")?;
    results::run(&mut load).await.context("results")?;
    Ok(load.report)
}
