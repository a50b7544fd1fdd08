//! Bazel on one workspace, with everything remote and nothing to fall back to.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
};

use anyhow::{Context, Result, bail, ensure};

use super::events::Report;
use crate::e2e::{
    Place, copy_folder,
    session::{Finished, Session},
};
use crate::{daemon::Daemon, workspace};

/// Modules that Bazel's own modules name and nothing here loads.
const EMPTY_MODULES: [&str; 4] = ["apple_support", "buildozer", "protobuf", "zlib"];

pub(in crate::e2e) struct Bazel {
    session: Session,
    folder: PathBuf,
}

/// One invocation: what it printed, and what its events say.
pub(super) struct Invocation {
    finished: Finished,
    pub(super) report: Report,
}

impl Invocation {
    /// Fails with Bazel's own words unless it ended with `exit_code`.
    fn expect(self, exit_code: i32) -> Result<Self> {
        let Finished { exit_code: found, stdout, stderr } = &self.finished;
        ensure!(
            *found == exit_code,
            "Bazel ended with {found}, not {exit_code}:\n{stdout}{stderr}"
        );
        Ok(self)
    }

    /// Bazel's output on the terminal.
    pub(super) fn stderr(&self) -> &str {
        &self.finished.stderr
    }
}

impl Bazel {
    /// A copy of the workspace `e2e/bazel/NAME` in the place's scratch folder.
    pub(super) fn open(place: &Place, name: &str, server: &Daemon) -> Result<Self> {
        let address = server.address();
        Self::open_with(place, name, &format!("build --remote_executor=grpc://{address}\n"))
    }

    /// The same with other lines of the `.bazelrc` that name the server.
    pub(in crate::e2e) fn open_with(place: &Place, name: &str, lines: &str) -> Result<Self> {
        Self::open_in(Command::new("bwrap"), None, place, name, lines)
    }

    /// The same with a command that ends with `bwrap`; see [`Session::open_through`].
    pub(super) fn open_through(
        command: Command,
        place: &Place,
        name: &str,
        lines: &str,
    ) -> Result<Self> {
        Self::open_in(command, None, place, name, lines)
    }

    /// The same with a folder below `/tmp` that the client has under its own name.
    pub(super) fn open_sharing(
        command: Command,
        shared: &Path,
        place: &Place,
        name: &str,
        lines: &str,
    ) -> Result<Self> {
        Self::open_in(command, Some(shared), place, name, lines)
    }

    fn open_in(
        command: Command,
        shared: Option<&Path>,
        place: &Place,
        name: &str,
        lines: &str,
    ) -> Result<Self> {
        let sources = workspace::root().join("e2e/bazel");
        let folder = place.scratch.join("client");
        fs::create_dir_all(&folder)?;
        copy_folder(&sources.join(name), &folder.join("workspace"))?;
        copy_folder(&sources.join("offline"), &folder.join("offline"))?;
        fs::write(folder.join("bazelrc"), bazelrc(lines))?;
        let session = Session::open_through(command, shared, &place.client_root, &folder)?;
        // Bazel's client does not end by it: it has the server write what its threads do.
        let session = session.stop_with("QUIT");
        Ok(Self { session, folder })
    }

    /// Ends Bazel's session, and gives what its command ended with.
    pub(super) fn close(self) -> Result<ExitStatus> {
        self.session.close()
    }

    /// The copy's path on the host.
    pub(super) fn workspace(&self) -> PathBuf {
        self.folder.join("workspace")
    }

    /// The folder that the client sees as `/client`, on the host.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A build that must succeed.
    pub(in crate::e2e) fn build(&mut self, words: &[&str]) -> Result<Report> {
        Ok(self.invoke("build", words)?.expect(0)?.report)
    }

    /// The same where actions may run on the client too.
    pub(super) fn build_anywhere(&mut self, words: &[&str]) -> Result<Report> {
        let finished = self.session.run("/client/workspace", &self.words("build", words))?;
        let report = Report::read(&self.events()).with_context(|| finished.stderr.clone())?;
        Ok(Invocation { finished, report }.expect(0)?.report)
    }

    /// Tests that must pass.
    pub(super) fn test(&mut self, words: &[&str]) -> Result<Report> {
        Ok(self.invoke("test", words)?.expect(0)?.report)
    }

    /// An invocation that must end with `exit_code`: 1 is a failed build, 3 a failed test.
    pub(super) fn fails_with(
        &mut self,
        exit_code: i32,
        verb: &str,
        words: &[&str],
    ) -> Result<Invocation> {
        self.invoke(verb, words)?.expect(exit_code)
    }

    /// A build that Bazel gives up because of the server. Gives the line in which it says so.
    pub(super) fn is_refused(&mut self, words: &[&str]) -> Result<String> {
        let stderr = self.gives_up(words)?;
        let reason = stderr.lines().find(|line| line.contains("ERROR"));
        let reason = reason.with_context(|| format!("Bazel gave up:\n{stderr}"))?;
        Ok(reason.chars().take(200).collect())
    }

    /// A build that Bazel gives up, perhaps before it has begun. Gives all that it says.
    pub(super) fn gives_up(&mut self, words: &[&str]) -> Result<String> {
        let finished = self.session.run("/client/workspace", &self.words("build", words))?;
        let Finished { exit_code, stderr, .. } = finished;
        ensure!(exit_code != 0, "Bazel ended with 0:\n{stderr}");
        Ok(stderr)
    }

    /// A build that runs while the caller does something else; [`Bazel::finish_build`] must follow.
    pub(super) fn start_build(&mut self, words: &[&str]) -> Result<()> {
        self.session.start("/client/workspace", &self.words("build", words))
    }

    pub(super) fn finish_build(&mut self) -> Result<Report> {
        let finished = self.session.finish()?;
        Ok(self.invocation(finished)?.expect(0)?.report)
    }

    /// Forgets everything that Bazel knows of earlier builds.
    pub(super) fn expunge(&mut self) -> Result<()> {
        let finished = self.session.run("/client/workspace", &words_of("clean", &["--expunge"]))?;
        ensure!(finished.exit_code == 0, "bazel clean: {}", finished.stderr);
        Ok(())
    }

    /// Forgets the outputs and the actions of earlier builds, and goes on with the same server of Bazel's.
    pub(in crate::e2e) fn clean(&mut self) -> Result<()> {
        let finished = self.session.run("/client/workspace", &words_of("clean", &[]))?;
        ensure!(finished.exit_code == 0, "bazel clean: {}", finished.stderr);
        Ok(())
    }

    fn invoke(&mut self, verb: &str, words: &[&str]) -> Result<Invocation> {
        let finished = self.session.run("/client/workspace", &self.words(verb, words))?;
        self.invocation(finished)
    }

    fn words(&self, verb: &str, words: &[&str]) -> Vec<String> {
        // The events of an earlier invocation must not be taken for those of one that wrote none.
        let _there_were_none = fs::remove_file(self.events());
        words_of(verb, words)
    }

    fn invocation(&self, finished: Finished) -> Result<Invocation> {
        if finished.is_late() {
            bail!("Bazel does not end:\n{}{}", finished.stderr, self.threads()?);
        }
        let report = Report::read(&self.events()).with_context(|| finished.stderr.clone())?;
        report.ensure_nothing_ran_locally()?;
        Ok(Invocation { finished, report })
    }

    /// The output of Bazel's server, which has the stacks of its threads after SIGQUIT.
    fn threads(&self) -> Result<String> {
        let mut text = String::new();
        for base in fs::read_dir(self.folder.join("output"))? {
            let path = base?.path().join("server/jvm.out");
            if path.is_file() {
                text += &String::from_utf8_lossy(&fs::read(path)?);
            }
        }
        Ok(text)
    }

    fn events(&self) -> PathBuf {
        self.folder.join("events.json")
    }

    /// A file below `bazel-bin`, which is a symlink that only means something inside the root.
    pub(super) fn output(&self, path: &str) -> Result<PathBuf> {
        self.below_link("bazel-bin", path)
    }

    /// A file below `bazel-testlogs`.
    pub(super) fn test_log(&self, path: &str) -> Result<PathBuf> {
        self.below_link("bazel-testlogs", path)
    }

    fn below_link(&self, link: &str, path: &str) -> Result<PathBuf> {
        let target = fs::read_link(self.workspace().join(link))
            .with_context(|| format!("there is no {link}"))?;
        Ok(self.folder.join(target.strip_prefix("/client")?).join(path))
    }

    /// Replaces text in a source file of the copy.
    pub(super) fn edit(&self, path: &str, from: &str, to: &str) -> Result<()> {
        edit(&self.workspace().join(path), from, to)
    }
}

fn words_of(verb: &str, words: &[&str]) -> Vec<String> {
    ["bazel", "--bazelrc=/client/bazelrc", verb]
        .iter()
        .chain(words)
        .map(|word| (*word).to_owned())
        .collect()
}

fn edit(path: &Path, from: &str, to: &str) -> Result<()> {
    let text = fs::read_to_string(path)?;
    ensure!(text.contains(from), "{} does not hold {from:?}", path.display());
    Ok(fs::write(path, text.replace(from, to))?)
}

fn bazelrc(server_lines: &str) -> String {
    let overrides: String = EMPTY_MODULES
        .iter()
        .map(|name| format!("common --override_module={name}=/client/offline/modules/{name}\n"))
        .collect();
    format!(
        "startup --server_javabase=/usr/lib/jvm/default-java --output_user_root=/client/output\n\
         common --registry=file:///client/offline/registry --noenable_workspace\n\
         {overrides}\
         common --color=no --curses=no --show_progress_rate_limit=60\n\
         {server_lines}\
         build --noremote_local_fallback\n\
         build --spawn_strategy=remote --strategy=TestRunner=remote --genrule_strategy=remote\n\
         build --incompatible_strict_action_env --jobs=16\n\
         build --build_event_json_file=/client/events.json --nobuild_event_json_file_path_conversion\n\
         build --verbose_failures\n\
         test --test_output=errors\n"
    )
}
