//! Bazel's remote downloader: the server fetches the files that repository rules name, from a web server of the test.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::client::Bazel;
use crate::{
    daemon::Daemon,
    e2e::{Place, steps::step},
};

/// The file, and its SHA-256.
const CONTENT: &str = "a file of the web\n";
const SHA256: &str = "441676fc47f3504c9e078bc9e61511ff8c9e063b32b1c9350da716cf86a34527";

/// The words of Bazel for an answer without a blob, whose status it does not look at: it takes the empty blob.
const NO_BLOB: &str =
    "Checksum was e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 but wanted";

/// The label of the file in the repository that a rule makes of it.
const TARGET: &str = "@page//file:page.txt";

/// A web server; killed when dropped.
struct WebServer {
    process: Child,
    port: u16,
}

impl WebServer {
    /// Python's web server in the client's root, for the files in `folder`.
    fn start(client_root: &Path, folder: &Path) -> Result<Self> {
        let mut command = Command::new("bwrap");
        command.args(["--die-with-parent", "--unshare-pid", "--ro-bind"]).arg(client_root).arg("/");
        command.args(["--dev", "/dev", "--ro-bind"]).arg(folder).arg("/client");
        command.args(["python3", "-u", "-m", "http.server", "--bind", "127.0.0.1"]);
        command.args(["--directory", "/client", "0"]).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(fs::File::create(folder.with_extension("log"))?);
        let mut process = command.spawn().context("starting a web server")?;
        let mut line = String::new();
        let stdout = process.stdout.take().context("the web server says where it is")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let port = line.split("port ").nth(1).and_then(|rest| rest.split(' ').next());
        let port = port.and_then(|port| port.parse().ok()).with_context(|| line.clone())?;
        Ok(Self { process, port })
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        let _already_gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

pub(super) fn run(place: &Place) -> Result<()> {
    let folder = place.scratch.join("web");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("page.txt"), CONTENT)?;
    let web = WebServer::start(&place.client_root, &folder)?;
    let mut server = place.start_daemon(&[OsString::from("--allow-fetch=127.0.0.1")])?;
    let address = server.address();
    let lines = format!(
        "build --remote_executor=grpc://{address} --experimental_remote_downloader=grpc://{address}\n\
         build --noexperimental_remote_downloader_local_fallback --repository_cache=\n"
    );
    let mut bazel = Bazel::open_with(place, "cpp", &lines)?;
    let outcome = steps(&mut server, &mut bazel, web, &folder);
    outcome.with_context(|| server.log_tail())?;
    server.stop()
}

fn steps(server: &mut Daemon, bazel: &mut Bazel, web: WebServer, folder: &Path) -> Result<()> {
    let port = web.port;
    let url = |name: &str| format!("http://127.0.0.1:{port}/{name}");
    let path = bazel.workspace().join("MODULE.bazel");
    let module = fs::read_to_string(&path)?;
    let write = |urls: &[String], sha256: &str| {
        let rule = format!(
            "\nhttp_file = use_repo_rule(\"@bazel_tools//tools/build_defs/repo:http.bzl\", \"http_file\")\n\
             http_file(name = \"page\", urls = {urls:?}, sha256 = {sha256:?}, downloaded_file_path = \"page.txt\")\n"
        );
        fs::write(&path, module.clone() + &rule)
    };
    let mirrors = [url("gone.txt"), url("page.txt")];
    let other = [url("other.txt")];
    write(&mirrors, SHA256)?;
    step("a file comes through the server, from the mirror that has it", || {
        bazel.build_anywhere(&[TARGET])?;
        let log = server.log_tail();
        ensure!(log.contains("fetched"), "the server fetched nothing:\n{log}");
        Ok("http_file".into())
    })?;
    step("a file with another checksum is refused by the server", || {
        fs::write(folder.join("other.txt"), "another file\n")?;
        write(&other, SHA256)?;
        is_refused(server, bazel, "sha256 hash")?;
        Ok("ABORTED".into())
    })?;
    step("a host that the operator does not name is not asked", || {
        write(&[url("page.txt").replace("127.0.0.1", "localhost")], SHA256)?;
        is_refused(server, bazel, "--allow-fetch")?;
        Ok("PERMISSION_DENIED".into())
    })?;
    step("without its web server, the file is still on the server", || {
        drop(web);
        write(&mirrors, SHA256)?;
        bazel.expunge()?;
        bazel.build_anywhere(&[TARGET])?;
        Ok("found".into())
    })
}

/// Has Bazel give up at a file that the server does not fetch, for the reason that it logs.
fn is_refused(server: &Daemon, bazel: &mut Bazel, reason: &str) -> Result<()> {
    let told = bazel.gives_up(&[TARGET])?;
    ensure!(told.contains(NO_BLOB), "{told}");
    let log = server.log_tail();
    ensure!(log.contains(reason), "{log}");
    Ok(())
}
