//! Bazel over TLS, with client certificates and tokens: right, wrong and expired ones.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use super::{client::Bazel, stress};
use crate::{
    daemon::Daemon,
    e2e::{Place, certificates, steps::step},
};

/// The folder in which the client finds its certificates.
const CERTIFICATES: &str = "/client/certificates";

/// The name by which Bazel's Java classes look for the library that speaks TLS for them.
const LIBRARY: &str = "libnetty_tcnative.so";

pub(super) fn run(place: &Place) -> Result<()> {
    if place.vm.is_some() {
        println!("  SKIPPED: the server in a VM has no principals");
        return Ok(());
    }
    let folder = place.scratch.join("client/certificates");
    certificates::make(&folder)?;
    fs::copy(library(&place.client_root)?, folder.join(LIBRARY))?;
    let server = place.start_daemon(&certificates::flags(&folder))?;
    let lines = format!(
        "startup --host_jvm_args=-Djava.library.path={CERTIFICATES}\n\
         build --remote_executor=grpcs://{}\n",
        server.own_place()?
    );
    let mut bazel = Bazel::open_with(place, "stress", &lines)?;
    stress::generate_inputs(&bazel.workspace())?;
    fs::copy(&place.action_tool, bazel.workspace().join("action_tool"))?;
    steps(&server, &mut bazel).with_context(|| server.log_tail())?;
    server.stop()
}

/// The library in Debian's package, which has it under a name that nothing looks for.
fn library(root: &Path) -> Result<PathBuf> {
    let folders = fs::read_dir(root.join("usr/lib"))?;
    let mut paths = folders.flatten().map(|entry| entry.path().join("jni/libnetty-tcnative.so"));
    paths.find(|path| path.exists()).context("the package libnetty-tcnative-jni has no library")
}

fn steps(server: &Daemon, bazel: &mut Bazel) -> Result<()> {
    let trusted = |name: &str| format!("--tls_certificate={CERTIFICATES}/{name}.pem");
    let shown = |name: &str| {
        [("certificate", "pem"), ("key", "key")]
            .map(|(flag, ending)| format!("--tls_client_{flag}={CERTIFICATES}/{name}.{ending}"))
    };
    let own = trusted("own");
    let [certificate, key] = shown("certified");
    let certified = [own.as_str(), &certificate, &key];
    let token = |token: &str| format!("--remote_header=authorization=Bearer {token}");
    step("a client with a certificate builds, and the log names its principal", || {
        let report = bazel.build(&with(&certified, &["//:bare_files_0"]))?;
        ensure!(report.remote() == 1, "Bazel says {report:?}");
        ensure!(server.log()?.contains(r#""principal":"certified""#), "no principal in the log");
        Ok("one action ran on the server".into())
    })?;
    step("a client without a certificate is refused", || {
        bazel.is_refused(&[&own, "//:bare_files_1"])
    })?;
    for (name, what) in [("stranger", "of another CA"), ("expired", "that has expired")] {
        let [certificate, key] = shown(name);
        step(&format!("a certificate {what} is refused"), || {
            bazel.is_refused(&[&own, &certificate, &key, "//:bare_files_1"])
        })?;
    }
    step("a client refuses the certificate of a server of another CA", || {
        bazel.is_refused(&[&trusted("other"), &certificate, &key, "//:bare_files_1"])
    })?;
    step("a client that speaks without TLS is refused", || {
        let executor = format!("--remote_executor=grpc://{}", server.own_place()?);
        bazel.is_refused(&[&executor, "//:bare_files_1"])
    })?;
    step(
        "with a certificate, a wrong token is refused and a right one names the principal",
        || {
            let wrong = token("T0k3n-of-builder");
            let refusal = bazel.is_refused(&with(&certified, &[&wrong, "//:bare_files_1"]))?;
            let report =
                bazel.build(&with(&certified, &[&token("t0k3n-of-builder"), "//:bare_files_2"]))?;
            ensure!(report.remote() == 1, "Bazel says {report:?}");
            ensure!(server.log()?.contains(r#""principal":"builder""#), "no principal in the log");
            Ok(refusal)
        },
    )?;
    step("nothing of those who were refused ran, and no secret is in the log", || {
        let executions = server.executions()?;
        ensure!(executions == 2, "the server ran {executions} actions");
        let log = server.log()?;
        for secret in certificates::SECRETS {
            ensure!(!log.contains(secret), "the log has {secret}");
        }
        Ok("two actions in the server's log".into())
    })
}

fn with<'a>(flags: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [flags, more].concat()
}
