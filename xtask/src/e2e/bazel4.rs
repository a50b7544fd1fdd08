//! Bazel 4.2.3 from Debian 12: it knows no `output_paths`, and names output files and directories apart.
//!
//! It has no bzlmod and no build events that name runners, so that the server's log and Bazel's own words
//! are what is looked at.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};

use super::{
    Client, Place, Suite, bazel,
    debian_root::Recipe,
    light::tree,
    session::{Finished, Session},
    steps::step,
};
use crate::{daemon::Daemon, workspace};

pub(super) const CLIENT: Client = Client {
    name: "bazel-4",
    recipe: Recipe {
        name: "bazel-4",
        suites: &["bookworm", "trixie"],
        packages: &["bazel-bootstrap", "default-jre-headless", "g++"],
        stubs: &[],
    },
    is_optional: true,
    suites: &[],
    more_suites: &[Suite { name: "stress", run }],
};

/// The actions of `//:stress_all`.
const ACTIONS: usize = 26;

/// Trees of 256 and of 4 files, with a file beside each; nothing of them depends on a sandbox.
const COMPARED: [&str; 2] = ["//:shared_generated_tree", "//:generated_tree_reuse_0"];

fn run(place: &Place) -> Result<()> {
    let server = place.start_daemon(&[])?;
    let mut bazel = Bazel4::open(place, &server)?;
    steps(&server, &mut bazel).with_context(|| server.log_tail())?;
    drop(bazel);
    step("SIGTERM ends the server in order, and nothing of it is left", || {
        server.stop()?;
        Ok("no process, mount or loop device".into())
    })
}

fn steps(server: &Daemon, bazel: &mut Bazel4) -> Result<()> {
    step("a build without a server is what the others are compared with", || {
        let words = [&["--remote_executor=", "--spawn_strategy=local"], &COMPARED[..]].concat();
        let said = bazel.build(&words)?;
        ensure!(said.contains("2 local"), "{said}");
        bazel.keep_outputs("local")?;
        Ok("two actions".into())
    })?;
    step("every action runs on the server, and the outputs are those of the local build", || {
        bazel.expunge()?;
        let said = bazel.build(&["//:stress_all"])?;
        let ran = server.executions()?;
        ensure!(ran == ACTIONS && said.contains("26 remote."), "{ran} actions ran:\n{said}");
        bazel.keep_outputs("remote")?;
        let compared =
            tree::ensure_equal(&bazel.folder.join("local"), &bazel.folder.join("remote"))?;
        Ok(format!("{ran} actions, {compared} equal files and directories"))
    })?;
    step("a second build from nothing is served from the action cache", || {
        bazel.expunge()?;
        let said = bazel.build(&["//:stress_all"])?;
        let ran = server.executions()? - ACTIONS;
        ensure!(ran == 0 && said.contains("26 remote cache hit"), "{ran} actions ran:\n{said}");
        Ok(format!("{ACTIONS} hits, none run"))
    })
}

struct Bazel4 {
    session: Session,
    folder: PathBuf,
    executor: String,
}

impl Bazel4 {
    fn open(place: &Place, server: &Daemon) -> Result<Self> {
        let folder = place.scratch.join("client");
        let copy = folder.join("workspace");
        fs::create_dir_all(&folder)?;
        super::copy_folder(&workspace::root().join("e2e/bazel/stress"), &copy)?;
        bazel::generate_stress_inputs(&copy)?;
        fs::write(copy.join("WORKSPACE"), "")?;
        // It names a program of the workspace's own folder without a slash, which finds none.
        fs::create_dir(copy.join("tools"))?;
        fs::copy(&place.action_tool, copy.join("tools/action_tool"))?;
        for (file, from, to) in [
            ("stress.bzl", "\"//:action_tool\"", "\"//:tools/action_tool\""),
            ("BUILD.bazel", "[\"action_tool\"]", "[\"tools/action_tool\"]"),
        ] {
            let (path, text) = (copy.join(file), fs::read_to_string(copy.join(file))?);
            ensure!(text.contains(from), "{file} does not hold {from}");
            fs::write(path, text.replace(from, to))?;
        }
        let executor = format!("--remote_executor=grpc://{}", server.address());
        let session = Session::open(&place.client_root, &folder)?;
        Ok(Self { session, folder, executor })
    }

    /// Builds, and gives what Bazel said.
    fn build(&mut self, words: &[&str]) -> Result<String> {
        let executor = self.executor.clone();
        let flags = [
            executor.as_str(),
            "--spawn_strategy=remote",
            "--noremote_local_fallback",
            "--incompatible_strict_action_env",
            "--jobs=16",
            "--color=no",
            "--curses=no",
            "--verbose_failures",
        ];
        self.bazel(&[&["build"], &flags[..], words].concat())
    }

    fn expunge(&mut self) -> Result<()> {
        self.bazel(&["clean", "--expunge"]).map(drop)
    }

    fn bazel(&mut self, words: &[&str]) -> Result<String> {
        let first = ["bazel", "--output_user_root=/client/output"];
        let words: Vec<_> = first.iter().chain(words).map(|word| (*word).to_owned()).collect();
        let Finished { exit_code, stdout, stderr } =
            self.session.run("/client/workspace", &words)?;
        ensure!(exit_code == 0, "Bazel ended with {exit_code}:\n{stdout}{stderr}");
        Ok(stderr)
    }

    /// Copies the outputs that are compared to a folder beside the workspace.
    fn keep_outputs(&mut self, name: &str) -> Result<()> {
        let outputs = COMPARED.map(|label| label.trim_start_matches("//:"));
        let outputs = outputs.map(|it| format!("bazel-bin/{it}.summary bazel-bin/{it}.tree"));
        let script = format!(
            "mkdir /client/{name} && cp --recursive --dereference {} /client/{name}",
            outputs.join(" ")
        );
        let words = ["sh".to_owned(), "-c".to_owned(), script];
        let finished = self.session.run("/client/workspace", &words)?;
        ensure!(finished.exit_code == 0, "cannot keep the outputs: {}", finished.stderr);
        Ok(())
    }
}
