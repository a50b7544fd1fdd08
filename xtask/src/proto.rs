//! `cargo xtask proto`: compile the `.proto` files to the code in `crates/proto`.
//!
//! The compiler is in the crate `proto-codegen`, a program of its own so that the other verbs do not
//! build it. A test of that crate fails when the code is out of date.

use anyhow::Result;

use crate::process;

pub(crate) fn run() -> Result<()> {
    process::run(process::cargo().args(["run", "--quiet", "--package", "proto-codegen"]))
}
