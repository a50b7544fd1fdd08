//! BuildGrid, a client of it, and the means to start workers.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use crate::{
    e2e::{
        copy_folder,
        light::recc,
        session::{Finished, Session},
    },
    workspace,
};

use super::{InsideArguments, server::Server, worker::Worker};

/// The workspace's copy, as the client sees it.
const WORKSPACE: &str = "/client/workspace";

/// BuildGrid, a client, and the means to start workers.
pub(super) struct Cluster<'a> {
    pub(super) arguments: &'a InsideArguments,
    pub(super) folder: PathBuf,
    client: PathBuf,
    session: Session,
    pub(super) server: Server,
    /// The server that the client talks to: BuildGrid, unless another one is put in its place.
    pub(super) url: String,
}

impl<'a> Cluster<'a> {
    pub(super) fn start(arguments: &'a InsideArguments, folder: PathBuf) -> Result<Self> {
        let client = folder.join("client");
        fs::create_dir_all(client.join("workspace"))?;
        copy_folder(&workspace::root().join("e2e/ninja"), &client.join("workspace"))?;
        let session = Session::open(&arguments.client_root, &client)?;
        let (root, packages) = (&arguments.server_root, &arguments.packages);
        let server = Server::start(root, packages, folder.join("buildgrid"))?;
        let url = format!("http://{}", server.address());
        Ok(Self { arguments, folder, client, session, server, url })
    }

    pub(super) fn worker(&self, name: &str) -> Result<Worker> {
        self.worker_that_drains_for(name, 300_000)
    }

    pub(super) fn worker_that_drains_for(
        &self,
        name: &str,
        drain_timeout_ms: u32,
    ) -> Result<Worker> {
        let InsideArguments { worker, client_root, .. } = self.arguments;
        let (folder, buildgrid) = (&self.folder, self.server.address());
        Worker::start(worker, folder, name, client_root, buildgrid, drain_timeout_ms)
    }

    /// Has recc run the compiler, for a build of which BuildGrid can give every action to a worker.
    pub(super) fn put_recc_before_the_compiler(&self) -> Result<()> {
        let line = recc::compiler(&self.url, &["REMOTE_PLATFORM_pool=e2e"]);
        Ok(fs::write(self.path("workspace/compiler.ninja"), line)?)
    }

    /// Ninja from nothing.
    pub(super) fn build(&mut self) -> Result<()> {
        let words = ["rm", "-rf", "out", ".ninja_log", ".ninja_deps", recc::METRICS];
        self.ends_with(0, &words)?;
        self.ends_with(0, &["ninja", "-j4"])?;
        Ok(())
    }

    /// A file that the client calls `/client/NAME`.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.client.join(name)
    }

    pub(super) fn output_is(&self, folder: &str, expected: &str) -> Result<()> {
        let path: &Path = &self.path("workspace").join(folder).join("out");
        let output = fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
        ensure!(output == expected, "the output is {output:?}");
        Ok(())
    }

    /// trexe with these flags.
    pub(super) fn trexe_words(&self, flags: &[&str]) -> Vec<String> {
        let remote = format!("--remote={}", self.url);
        let words = ["trexe", &remote].into_iter().chain(flags.iter().copied());
        words.map(str::to_owned).collect()
    }

    /// trexe that runs a script of the shell.
    pub(super) fn script_words(&self, flags: &[&str], script: &str) -> Vec<String> {
        let own = ["--platform-properties=rootfs=host,pool=e2e", "--env=PATH=/usr/bin:/bin"];
        let script = ["--output-path=out", "/bin/sh", "-c", script];
        self.trexe_words(&[&own[..], flags, &script].concat())
    }

    /// Runs a script, and downloads its output into a folder of the workspace.
    pub(super) fn trexe(
        &mut self,
        code: i32,
        folder: &str,
        flags: &[&str],
        script: &str,
    ) -> Result<Finished> {
        let folder = format!("--d={folder}");
        let words = self.script_words(&[&["--wait", &folder], flags].concat(), script);
        self.ends_with(code, &as_words(&words))
    }

    /// The same without waiting; [`Self::finished`] must follow.
    pub(super) fn start_trexe(&mut self, folder: &str, script: &str) -> Result<()> {
        let folder = format!("--d={folder}");
        let words = self.script_words(&["--wait", &folder], script);
        self.session.start(WORKSPACE, &words)
    }

    pub(super) fn finished(&mut self, exit_code: i32) -> Result<Finished> {
        let finished = self.session.finish()?;
        ensure!(finished.exit_code == exit_code, "{finished:?}");
        Ok(finished)
    }

    /// The name of an operation that runs a script.
    pub(super) fn operation(&mut self, script: &str) -> Result<String> {
        let words = self.script_words(&["--no-wait", "--do-not-cache"], script);
        Ok(self.ends_with(0, &as_words(&words))?.stdout.trim().to_owned())
    }

    pub(super) fn run(&mut self, words: &[&str]) -> Result<Finished> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        self.session.run(WORKSPACE, &words)
    }

    pub(super) fn ends_with(&mut self, exit_code: i32, words: &[&str]) -> Result<Finished> {
        let finished = self.run(words)?;
        let is_right = finished.exit_code == exit_code;
        ensure!(is_right, "{}: {finished:?}", words.join(" "));
        Ok(finished)
    }
}

pub(super) fn as_words(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}
