//! Writes the certificates of a test into a folder, for tests that are not in this crate's reach: those
//! with real clients.
//!
//! `servers.pem` and `clients.pem` are CAs. Each identity is `NAME.pem` and `NAME.key`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use testkit::pki::{Authority, Request};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("test-certificates: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from).context("no folder is named")?;
    std::fs::create_dir_all(&folder)?;
    let (servers, clients) = (Authority::new("servers")?, Authority::new("clients")?);
    servers.write(&folder.join("servers.pem"))?;
    clients.write(&folder.join("clients.pem"))?;
    let server = || Request::server(&["127.0.0.1"]);
    servers.sign(server()?)?.write(&folder, "server")?;
    servers.sign(server()?.expired())?.write(&folder, "expired-server")?;
    servers.sign(Request::server(&["build.example"])?)?.write(&folder, "misnamed-server")?;
    let client = || Request::client("ci");
    clients.sign(client()?)?.write(&folder, "client")?;
    clients.sign(client()?.expired())?.write(&folder, "expired-client")?;
    servers.sign(client()?)?.write(&folder, "foreign-client")?;
    Ok(())
}
