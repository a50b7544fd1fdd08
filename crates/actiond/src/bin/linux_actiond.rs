//! `linux-actiond`: the daemon for Linux hosts.

fn main() {}
