//! `actiond-attack`: attacks a server, and looks whether anything gave way.
//!
//! A case is data: what is tried, and what must come of it. Most are actions that
//! run the attacker in a sandbox; the others are requests that lie. After every
//! case the host is looked at from outside, and the server must still serve.
//!
//! - [`case`]: what a case is made of.
//! - [`cases`]: all of them, by what they are after.
//! - [`guarded`]: a server with principals, for cases about them.
//! - [`host`]: what an attack could change here, and whether it did.
//! - [`world`]: the server, the attacker, the host; and how an action is run.
//! - [`judge`]: one case, from the attempt to the verdict.

mod case;
mod cases;
mod guarded;
mod host;
mod judge;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

use crate::case::Case;
use crate::host::Local;
use crate::judge::Verdict;
use crate::world::World;

/// Attacks a Remote Execution API v2 server.
#[derive(Debug, Parser)]
struct Arguments {
    /// The server's address, as HOST:PORT or http://HOST:PORT.
    #[arg(long)]
    server: String,
    /// The static program that the actions run.
    #[arg(long)]
    attacker: PathBuf,
    /// The server's root directory, if it is on this machine: its store is
    /// looked at too.
    #[arg(long, requires = "pid")]
    root: Option<PathBuf>,
    /// The server's process.
    #[arg(long, requires = "root")]
    pid: Option<u32>,
    /// The server's program: another one with principals is started and attacked.
    #[arg(long)]
    daemon: Option<PathBuf>,
    /// The server gives each sandbox a user of this machine.
    #[arg(long, requires = "root")]
    own_users: bool,
    /// Only cases whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Leave out what takes seconds.
    #[arg(long)]
    quick: bool,
    /// Only list the cases.
    #[arg(long)]
    list: bool,
}

/// The outcome of all cases.
#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
    skipped: usize,
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
            eprintln!("actiond-attack: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything held.
async fn run(arguments: Arguments) -> anyhow::Result<bool> {
    let wanted = |name: &str| arguments.only.as_ref().is_none_or(|only| name.contains(only));
    if arguments.list {
        for (name, _) in cases::all() {
            println!("{name}");
        }
        return Ok(true);
    }
    let local = arguments.root.clone().zip(arguments.pid).map(|(root, pid)| Local {
        root,
        pid,
        own_users: arguments.own_users,
    });
    let world = World::new(&arguments.server, &arguments.attacker, local).await?;
    let world = world.with_daemon(arguments.daemon.clone());
    let mut tally = Tally::default();
    for (name, case) in cases::all() {
        if wanted(&name) {
            tally.count(&name, &case, &world, arguments.quick).await;
        }
    }
    println!("{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped);
    Ok(tally.failed == 0 && tally.passed > 0)
}

impl Tally {
    async fn count(&mut self, name: &str, case: &Case, world: &World, quick: bool) {
        let start = Instant::now();
        let verdict = judge::judge(world, case, quick).await;
        let took = start.elapsed().as_millis();
        match verdict {
            Verdict::Held => {
                self.passed += 1;
                println!("held     {name:<44} {took:>6} ms");
            }
            Verdict::Skipped(why) => {
                self.skipped += 1;
                println!("skipped  {name:<44} {why}");
            }
            Verdict::Breach(what) => {
                self.failed += 1;
                println!("BREACH   {name:<44} {what}");
            }
        }
    }
}
