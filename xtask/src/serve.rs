//! `cargo xtask serve -- FLAGS`: set up, build a release, and run the daemon with the flags given.

use std::ffi::OsString;

use anyhow::Result;

use crate::{binaries, process, setup};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Flags of `linux-actiond serve`, as they are.
    #[arg(last = true)]
    flags: Vec<OsString>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    setup::run()?;
    let daemon = binaries::build("actiond", "linux-actiond")?;
    Err(process::become_program(process::as_root(daemon).arg("serve").args(&arguments.flags)))
}
