//! `cargo xtask VERB`: the one entry for everything longer than a line.

fn main() {}
