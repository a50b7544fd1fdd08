//! TLS, client certificates and tokens, with clients that use gRPC's own TLS: trexe, casupload and casdownload.
//!
//! Debian builds Bazel without the library that it needs for TLS; its tokens are tested in `bazel::access`.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use super::surroundings::Surroundings;
use crate::{
    e2e::{Place, session::Finished, steps::step},
    process,
    setup::{self, Need},
};

const OPENSSL: Need = Need { program: "openssl", package: "openssl", why: "makes certificates" };

/// Makes the CA of the server and its clients, the CA of others, and certificates of both. The key of each is beside it.
const CERTIFICATES: &str = r#"
set -e
new() { openssl req "$@" -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes 2> /dev/null; }
ca() { new -x509 -days 30 -subj "/CN=$1" -addext keyUsage=critical,keyCertSign -keyout "$1.key" -out "$1.pem"; }
leaf() { # NAME CA EXTENSION…
  name=$1; by=$2; shift 2
  new -x509 -days 30 -subj "/CN=ci" -addext basicConstraints=critical,CA:FALSE "$@" \
    -CA "$by.pem" -CAkey "$by.key" -keyout "$name.key" -out "$name.pem"
}
ca own; ca other
leaf server own -addext subjectAltName=IP:127.0.0.1 -addext extendedKeyUsage=serverAuth
leaf certified own -addext extendedKeyUsage=clientAuth
leaf stranger other -addext extendedKeyUsage=clientAuth
# `openssl req` makes none that has expired.
new -new -subj /CN=ci -keyout expired.key -out expired.request
: > index; echo 01 > serial
cat > ca.cnf <<END
[ca]
default_ca = past
[past]
database = index
serial = serial
new_certs_dir = .
default_md = sha256
policy = names
x509_extensions = leaf
[names]
commonName = supplied
[leaf]
basicConstraints = critical,CA:FALSE
extendedKeyUsage = clientAuth
END
openssl ca -batch -notext -config ca.cnf -cert own.pem -keyfile own.key -in expired.request \
  -startdate 20010101000000Z -enddate 20020101000000Z -out expired.pem 2> /dev/null
printf t0k3n-of-builder > right.token; printf T0k3n-of-builder > wrong.token
"#;

/// Each hash is that of a token: `printf t0k3n-of-builder | sha256sum`.
const PRINCIPALS: &str = "\
[[token]]
name = 'builder'
sha256 = '3817682dae19441b94a5691ef29d4a52346c6b7f1245f0d3cc4ebcaab60281bd'
rights = ['client']
[[certificate]]
name = 'certified'
common_name = 'ci'
rights = ['client']
";

/// Text that must not be in the log: the scheme of a header with a token, tokens, and the first line of a key.
const SECRETS: [&str; 4] = ["Bearer", "t0k3n", "T0k3n", "PRIVATE KEY"];

pub(super) fn run(place: &Place) -> Result<()> {
    if place.vm.is_some() {
        println!("  SKIPPED: the server in a VM has no principals");
        return Ok(());
    }
    setup::ensure(&[OPENSSL])?;
    let folder = place.scratch.join("client");
    fs::create_dir_all(&folder)?;
    process::run(Command::new("bash").args(["-c", CERTIFICATES]).current_dir(&folder))?;
    fs::write(folder.join("principals.toml"), PRINCIPALS)?;
    let mut here = Surroundings::open_with(place, None, &flags(&folder))?;
    let url = format!("--remote=https://{}", here.server.own_place()?);
    steps(&mut here, &url).with_context(|| here.server.log_tail())?;
    here.close()
}

/// The flags of a server that asks clients for certificates and tokens.
fn flags(folder: &Path) -> Vec<std::ffi::OsString> {
    let of = |flag: &str, name: &str| format!("--{flag}={}", folder.join(name).display()).into();
    vec![
        "--listen=127.0.0.1:0".into(),
        of("tls-cert", "server.pem"),
        of("tls-key", "server.key"),
        of("tls-client-ca", "own.pem"),
        of("token-file", "principals.toml"),
    ]
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
        for secret in SECRETS {
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
