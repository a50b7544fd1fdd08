//! `actiond-fleet`: what fleets of actiond workers do to the scheduler, the storage and the network of a cluster.
//!
//! `docs/scale.md` is about its results. It runs no action and opens no connection: costs of single calls, which were
//! measured, are put together to the load of many workers. It knows nothing of failures of machines, but for a restart of
//! the schedulers, and of clients no more than the load of their calls.
//!
//! - [`arguments`]: the command line, with the costs that were measured.
//! - [`cluster`]: the parts of a cluster and the work that an action makes.
//! - [`clock`]: simulated time.
//! - [`simulation`]: slots that go round.
//! - [`table`]: the outcomes.

mod arguments;
mod clock;
mod cluster;
mod simulation;
mod table;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match table::table(&arguments::Arguments::parse()) {
        Ok(table) => {
            print!("{table}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("actiond-fleet: {error:#}");
            ExitCode::FAILURE
        }
    }
}
