//! A client's session beside a daemon that shows actions the client's own root.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};

use crate::{
    daemon::Daemon,
    e2e::{
        Place, copy_folder,
        session::{Finished, Session},
        steps::step,
    },
    workspace,
};

/// The path of the workspace's copy, as the client sees it.
pub(super) const WORKSPACE: &str = "/client/workspace";

pub(super) struct Surroundings {
    pub(super) server: Daemon,
    session: Session,
    folder: PathBuf,
}

impl Surroundings {
    /// A copy of the workspace `e2e/NAME`, or an empty one.
    pub(super) fn open(place: &Place, name: Option<&str>) -> Result<Self> {
        Self::open_with(place, name, &[])
    }

    /// The same with more flags for the server.
    pub(super) fn open_with(place: &Place, name: Option<&str>, flags: &[OsString]) -> Result<Self> {
        let mut rootfs = OsString::from("--allow-host-rootfs=");
        rootfs.push(&place.client_root);
        let server = place.start_daemon(&[flags, &[rootfs]].concat())?;
        let folder = place.scratch.join("client");
        std::fs::create_dir_all(folder.join("workspace"))?;
        if let Some(name) = name {
            copy_folder(&workspace::root().join("e2e").join(name), &folder.join("workspace"))?;
        }
        let session = Session::open(&place.client_root, &folder)?;
        Ok(Self { server, session, folder })
    }

    /// The workspace's copy on the host.
    pub(super) fn workspace(&self) -> PathBuf {
        self.folder.join("workspace")
    }

    /// A file that the client calls `/client/NAME`.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// `http://ADDRESS` of the server.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.server.address())
    }

    /// Runs a command in the workspace, which must end with `exit_code`.
    pub(super) fn ends_with(&mut self, exit_code: i32, words: &[&str]) -> Result<Finished> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let finished = self.session.run(WORKSPACE, &words)?;
        let Finished { exit_code: found, stdout, stderr } = &finished;
        ensure!(
            *found == exit_code,
            "{} ended with {found}, not {exit_code}:\n{stdout}{stderr}\n{}",
            words.join(" "),
            self.server.log_tail()
        );
        Ok(finished)
    }

    /// Runs a command in the workspace, which must succeed.
    pub(super) fn run(&mut self, words: &[&str]) -> Result<Finished> {
        self.ends_with(0, words)
    }

    /// Runs `act`, and gives the number of actions that the server ran meanwhile beside its outcome.
    pub(super) fn counting<T>(
        &mut self,
        act: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<(usize, T)> {
        let before = self.server.executions()?;
        let outcome = act(self)?;
        Ok((self.server.executions()? - before, outcome))
    }

    /// Ends the server in order.
    pub(super) fn close(self) -> Result<()> {
        let Self { server, session, .. } = self;
        drop(session);
        step("SIGTERM ends the server in order, and nothing of it is left", || {
            let strategy = server.strategy()?;
            server.stop()?;
            Ok(format!("no process, mount or loop device; input roots were {strategy}"))
        })
    }
}

/// Replaces text in a file, which must hold it.
pub(super) fn edit(path: &Path, from: &str, to: &str) -> Result<()> {
    let text = std::fs::read_to_string(path)?;
    ensure!(text.contains(from), "{} does not hold {from:?}", path.display());
    Ok(std::fs::write(path, text.replace(from, to))?)
}
