//! Principals with tokens: what each may do, and who is refused.
//!
//! [`super::tls`] does the same over TLS.

use std::fs;

use anyhow::{Context, Result, ensure};

use super::{client::Bazel, stress};
use crate::{
    daemon::Daemon,
    e2e::{Place, steps::step},
};

/// `printf %s secret | sha256sum`, and of `t0k3n-of-reader`.
const PRINCIPALS: &str = "\
[[token]]
name = 'builder'
sha256 = '2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b'
rights = ['client']
[[token]]
name = 'reader'
sha256 = 'd7623b0dfe109c71a904e35c4cfc5c6d8f2832a855997cf9919c5c082ff90529'
rights = ['read']
";

/// Text that must not be in the log: the scheme of a header with a token, tokens, and the start of a hash.
const SECRETS: [&str; 4] = ["Bearer", "t0k3n", "Secret", "2bb80d53"];

pub(super) fn run(place: &Place) -> Result<()> {
    if place.vm.is_some() {
        println!("  SKIPPED: the server in a VM has no principals");
        return Ok(());
    }
    let principals = place.scratch.join("principals.toml");
    fs::write(&principals, PRINCIPALS)?;
    // The place that every daemon of these tests has grants all rights to anybody; this one asks.
    let server = place.start_daemon(&[
        "--listen=127.0.0.1:0".into(),
        format!("--token-file={}", principals.display()).into(),
    ])?;
    let executor = format!("build --remote_executor=grpc://{}\n", server.own_place()?);
    let mut bazel = Bazel::open_with(place, "stress", &executor)?;
    stress::generate_inputs(&bazel.workspace())?;
    fs::copy(&place.action_tool, bazel.workspace().join("action_tool"))?;
    steps(&server, &mut bazel).with_context(|| server.log_tail())?;
    server.stop()
}

fn steps(server: &Daemon, bazel: &mut Bazel) -> Result<()> {
    let token = |token: &str| format!("--remote_header=authorization=Bearer {token}");
    step("a client with a token builds, and the log names its principal", || {
        let report = bazel.build(&[&token("secret"), "//:bare_files_0"])?;
        ensure!(report.remote() == 1, "Bazel says {report:?}");
        ensure!(server.log()?.contains(r#""principal":"builder""#), "no principal in the log");
        Ok("one action ran on the server".into())
    })?;
    step("a client without a token is refused", || bazel.is_refused(&["//:bare_files_1"]))?;
    step("a wrong token is refused", || bazel.is_refused(&[&token("Secret"), "//:bare_files_1"]))?;
    step("a token that may only read runs nothing", || {
        bazel.is_refused(&[&token("t0k3n-of-reader"), "//:bare_files_1"])
    })?;
    step("nothing of those who were refused ran, and no secret is in the log", || {
        let executions = server.executions()?;
        ensure!(executions == 1, "the server ran {executions} actions");
        let log = server.log()?;
        for secret in SECRETS {
            ensure!(!log.contains(secret), "the log has {secret}");
        }
        Ok("one action in the server's log".into())
    })
}
