//! TLS, client certificates and tokens, with clients that use gRPC's own TLS: trexe, casupload and casdownload.
//!
//! `bazel::tls` has Bazel do the same.

use anyhow::{Context, Result, ensure};

use super::surroundings::Surroundings;
use crate::e2e::{Place, certificates, session::Finished, steps::step};

pub(super) fn run(place: &Place) -> Result<()> {
    if place.vm.is_some() {
        println!("  SKIPPED: the server in a VM has no principals");
        return Ok(());
    }
    let folder = place.scratch.join("client");
    certificates::make(&folder)?;
    let mut here = Surroundings::open_with(place, None, &certificates::flags(&folder))?;
    let url = format!("--remote=https://{}", here.server.own_place()?);
    steps(&mut here, &url).with_context(|| here.server.log_tail())?;
    here.close()
}

fn steps(here: &mut Surroundings, url: &str) -> Result<()> {
    const SERVER: &str = "--server-cert=/client/own.pem";
    let shown = |name: &str| {
        ["cert", "key"].map(|kind| {
            let ending = if kind == "cert" { "pem" } else { "key" };
            format!("--client-{kind}=/client/{name}.{ending}")
        })
    };
    let [certificate, key] = shown("certified");
    let certified = [SERVER, &certificate, &key];
    step("a client with a certificate runs an action, and the log names its principal", || {
        let (ran, finished) = here.counting(|here| trexe(here, 0, url, &certified))?;
        ensure!(ran == 1 && finished.stdout == "it ran\n", "{ran} ran: {}", finished.stdout);
        ensure!(here.server.log()?.contains(r#""principal":"certified""#), "no principal");
        Ok("one action ran".into())
    })?;
    step("a client without a certificate is refused", || refused(here, url, &[SERVER]))?;
    for (name, what) in [("stranger", "of another CA"), ("expired", "that has expired")] {
        let [certificate, key] = shown(name);
        step(&format!("a certificate {what} is refused"), || {
            refused(here, url, &[SERVER, &certificate, &key])
        })?;
    }
    step("a client refuses the certificate of a server of another CA", || {
        refused(here, url, &["--server-cert=/client/other.pem", &certificate, &key])
    })?;
    step("a client that speaks without TLS is refused", || {
        refused(here, &url.replace("https", "http"), &[])
    })?;
    step(
        "with a certificate, a wrong token is refused and a right one names the principal",
        || {
            let token = |name: &str| format!("--access-token=/client/{name}.token");
            let with = |token: &str| [&certified[..], &[token]].concat().join(" ");
            let wrong = with(&token("wrong"));
            refused(here, url, &wrong.split(' ').collect::<Vec<_>>())?;
            let right = with(&token("right"));
            trexe(here, 0, url, &right.split(' ').collect::<Vec<_>>())?;
            ensure!(here.server.log()?.contains(r#""principal":"builder""#), "no principal");
            Ok("builder".into())
        },
    )?;
    step("no secret is in the log", || {
        let log = here.server.log()?;
        for secret in certificates::SECRETS {
            ensure!(!log.contains(secret), "the log has {secret}");
        }
        Ok(format!("{} lines", log.lines().count()))
    })
}

/// trexe with a command that it must not take from the cache.
fn trexe(here: &mut Surroundings, exit_code: i32, url: &str, flags: &[&str]) -> Result<Finished> {
    let first = ["trexe", url, "--retry-limit=0", "--wait", "--do-not-cache"];
    let command = ["--platform-properties=rootfs=host", "/bin/sh", "-c", "echo it ran"];
    here.ends_with(exit_code, &[&first[..], flags, &command].concat())
}

/// Fails unless the client ends with an error, and nothing ran. Gives its words.
fn refused(here: &mut Surroundings, url: &str, flags: &[&str]) -> Result<String> {
    let (ran, finished) = here.counting(|here| trexe(here, 1, url, flags))?;
    ensure!(ran == 0, "{ran} actions ran");
    let last = finished.stderr.lines().last().unwrap_or_default();
    Ok(last.chars().take(160).collect())
}
