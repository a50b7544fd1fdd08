//! Builds of BuildGrid's clients while workers come and go.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::{
    e2e::{
        copy_folder,
        light::{recc, tree},
        session::{Finished, Session},
        steps::step,
    },
    state_volume, workspace,
};

use super::{
    InsideArguments,
    patience::within_patience,
    server::Server,
    worker::{Gate, Worker},
};

/// The workspace's copy, as the client sees it.
const WORKSPACE: &str = "/client/workspace";

pub(super) fn run(arguments: &InsideArguments) -> Result<()> {
    let state = std::env::var_os(state_volume::STATE_VARIABLE)
        .context("this part of e2e runs on a state volume")?;
    println!("e2e buildgrid:");
    let mut here = Cluster::start(arguments, PathBuf::from(state))?;
    let outcome = here.steps();
    outcome.with_context(|| here.server.log_tail())?;
    println!("e2e buildgrid: passed");
    Ok(())
}

/// BuildGrid, a client, and the means to start workers.
struct Cluster<'a> {
    arguments: &'a InsideArguments,
    folder: PathBuf,
    client: PathBuf,
    session: Session,
    server: Server,
}

impl<'a> Cluster<'a> {
    fn start(arguments: &'a InsideArguments, folder: PathBuf) -> Result<Self> {
        let client = folder.join("client");
        fs::create_dir_all(client.join("workspace"))?;
        copy_folder(&workspace::root().join("e2e/ninja"), &client.join("workspace"))?;
        let session = Session::open(&arguments.client_root, &client)?;
        let (root, packages) = (&arguments.server_root, &arguments.packages);
        let server = Server::start(root, packages, folder.join("buildgrid"))?;
        Ok(Self { arguments, folder, client, session, server })
    }

    fn worker(&self, name: &str) -> Result<Worker> {
        self.worker_that_drains_for(name, 300_000)
    }

    fn worker_that_drains_for(&self, name: &str, drain_timeout_ms: u32) -> Result<Worker> {
        let InsideArguments { worker, client_root, .. } = self.arguments;
        let (folder, buildgrid) = (&self.folder, self.server.address());
        Worker::start(worker, folder, name, client_root, buildgrid, drain_timeout_ms)
    }

    fn steps(&mut self) -> Result<()> {
        let (first, second) = (self.worker("first")?, self.worker("second")?);
        self.a_build(&[&first, &second])?;
        step("an idle worker ends at SIGTERM", || {
            second.signal(Signal::TERM)?;
            second.ends_with(0)?;
            Ok("exit code 0".into())
        })?;
        self.outcomes()?;
        let third = self.a_killed_worker(first)?;
        self.a_cancelled_action(&third)?;
        self.a_worker_that_was_cut_off(&third)?;
        self.a_restarted_scheduler(&third)?;
        self.a_draining_worker(third)?;
        self.a_worker_whose_time_is_up()
    }

    fn a_build(&mut self, workers: &[&Worker]) -> Result<()> {
        let executions =
            || -> Result<Vec<usize>> { workers.iter().map(|worker| worker.executions()).collect() };
        step("Ninja builds the program without a server, to compare with", || {
            self.ends_with(0, &["ninja"])?;
            fs::rename(self.path("workspace/out"), self.path("local"))?;
            Ok("out/report.txt".into())
        })?;
        step("every compilation and the link run on the workers, with equal outputs", || {
            let line = recc::compiler(&self.url(), &["REMOTE_PLATFORM_pool=e2e"]);
            fs::write(self.path("workspace/compiler.ninja"), line)?;
            self.build()?;
            let ran = executions()?;
            ensure!(ran.iter().sum::<usize>() == recc::COMMANDS, "{ran:?} actions ran");
            let built = self.path("workspace/out");
            let compared = tree::ensure_equal(&self.path("local"), &built)?;
            Ok(format!("{ran:?} actions on two workers, {compared} equal files"))
        })?;
        step("a second build is served from BuildGrid's action cache", || {
            let before = executions()?;
            self.build()?;
            ensure!(executions()? == before, "actions ran");
            Ok("none run".into())
        })
    }

    /// Ninja from nothing.
    fn build(&mut self) -> Result<()> {
        let words = ["rm", "-rf", "out", ".ninja_log", ".ninja_deps", recc::METRICS];
        self.ends_with(0, &words)?;
        self.ends_with(0, &["ninja", "-j4"])?;
        Ok(())
    }

    fn outcomes(&mut self) -> Result<()> {
        step("a command that fails has its exit code, its streams and its outputs", || {
            let script = "echo words on stderr >&2; echo partly > out; exit 3";
            let finished = self.trexe(3, "failed", &[], script)?;
            ensure!(finished.stderr.contains("words on stderr\n"), "{}", finished.stderr);
            self.output_is("failed", "partly\n")?;
            Ok("exit code 3".into())
        })?;
        step("a command that takes too long is stopped", || {
            let finished = self.trexe(1, "late", &["--exec-timeout=1"], "sleep 1000000")?;
            ensure!(finished.stderr.contains("after its timeout of 1 s"), "{}", finished.stderr);
            Ok("after a second".into())
        })
    }

    fn a_killed_worker(&mut self, killed: Worker) -> Result<Worker> {
        let gate = Gate::new(1);
        let mut next = None;
        step("the action of a worker that is killed runs on another one", || {
            self.start_trexe("killed", &format!("{}; echo done > out", gate.wait()))?;
            let earlier = gate.reached()?;
            killed.signal(Signal::KILL)?;
            let worker = self.worker("third")?;
            gate.reached_after(&earlier)?;
            gate.open()?;
            self.finished(0)?;
            self.output_is("killed", "done\n")?;
            let expired = self.server.expired_sessions()?;
            next = Some(worker);
            Ok(format!("{expired} sessions had expired by then"))
        })?;
        next.context("a worker")
    }

    fn a_cancelled_action(&mut self, worker: &Worker) -> Result<()> {
        let gate = Gate::new(2);
        step("an operation that is cancelled is stopped on the worker", || {
            let operation = self.operation(&gate.wait())?;
            gate.reached()?;
            let words = self.trexe_words(&[&format!("--operation={operation}"), "--cancel"]);
            self.ends_with(0, &as_words(&words))?;
            gate.left()?;
            worker.wait_for("does not want the action")?;
            Ok("the action is gone".into())
        })
    }

    fn a_worker_that_was_cut_off(&mut self, worker: &Worker) -> Result<()> {
        let gate = Gate::new(3);
        step("a worker that was taken for dead gets a session anew", || {
            let before = self.server.expired_sessions()?;
            self.start_trexe("cut-off", &format!("{}; echo done > out", gate.wait()))?;
            let earlier = gate.reached()?;
            worker.signal(Signal::STOP)?;
            let expired = within_patience(|| Ok(self.server.expired_sessions()? > before));
            worker.signal(Signal::CONT)?;
            ensure!(expired?, "the session does not expire");
            worker.wait_for("the scheduler does not answer")?;
            gate.reached_after(&earlier)?;
            gate.open()?;
            self.finished(0)?;
            self.output_is("cut-off", "done\n")?;
            Ok("its action ran once more".into())
        })
    }

    fn a_restarted_scheduler(&mut self, worker: &Worker) -> Result<()> {
        let gate = Gate::new(4);
        step("BuildGrid and its database are killed amid an action and started again", || {
            let before = worker.executions()?;
            let operation = self.operation(&format!("{}; echo done > out", gate.wait()))?;
            gate.reached()?;
            self.server.kill()?;
            self.server.restart()?;
            let flags = [format!("--operation={operation}"), "--d=restarted".to_owned()];
            let words = self.trexe_words(&as_words(&flags));
            let is_done = within_patience(|| {
                // Once more, if its session had expired.
                gate.open()?;
                let finished = self.run(&as_words(&words))?;
                Ok(finished.exit_code == 0 && self.path("workspace/restarted/out").exists())
            })?;
            ensure!(is_done, "the operation does not end");
            self.output_is("restarted", "done\n")?;
            Ok(format!("{} run", worker.executions()? - before))
        })
    }

    fn a_draining_worker(&mut self, worker: Worker) -> Result<()> {
        let gate = Gate::new(5);
        step("a draining worker ends its action and takes no other", || {
            self.start_trexe("drained", &format!("{}; echo done > out", gate.wait()))?;
            gate.reached()?;
            worker.signal(Signal::TERM)?;
            worker.wait_for("draining")?;
            gate.open()?;
            self.finished(0)?;
            self.output_is("drained", "done\n")?;
            worker.ends_with(0)?;
            Ok("exit code 0".into())
        })
    }

    fn a_worker_whose_time_is_up(&mut self) -> Result<()> {
        let gate = Gate::new(6);
        step("a worker whose time to drain is up gives its action to another one", || {
            let first = self.worker_that_drains_for("fourth", 100)?;
            let expired = self.server.expired_sessions()?;
            self.start_trexe("given-back", &format!("{}; echo done > out", gate.wait()))?;
            let earlier = gate.reached()?;
            first.signal(Signal::TERM)?;
            first.ends_with(1)?;
            let _next = self.worker("fifth")?;
            gate.reached_after(&earlier)?;
            gate.open()?;
            self.finished(0)?;
            self.output_is("given-back", "done\n")?;
            let expired = self.server.expired_sessions()? - expired;
            Ok(format!("exit code 1, {expired} sessions expired meanwhile"))
        })
    }

    fn url(&self) -> String {
        format!("http://{}", self.server.address())
    }

    /// A file that the client calls `/client/NAME`.
    fn path(&self, name: &str) -> PathBuf {
        self.client.join(name)
    }

    fn output_is(&self, folder: &str, expected: &str) -> Result<()> {
        let path: &Path = &self.path("workspace").join(folder).join("out");
        let output = fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
        ensure!(output == expected, "the output is {output:?}");
        Ok(())
    }

    /// trexe with these flags.
    fn trexe_words(&self, flags: &[&str]) -> Vec<String> {
        let remote = format!("--remote={}", self.url());
        let words = ["trexe", &remote].into_iter().chain(flags.iter().copied());
        words.map(str::to_owned).collect()
    }

    /// trexe that runs a script of the shell.
    fn script_words(&self, flags: &[&str], script: &str) -> Vec<String> {
        let own = ["--platform-properties=rootfs=host,pool=e2e", "--env=PATH=/usr/bin:/bin"];
        let script = ["--output-path=out", "/bin/sh", "-c", script];
        self.trexe_words(&[&own[..], flags, &script].concat())
    }

    /// Runs a script, and downloads its output into a folder of the workspace.
    fn trexe(&mut self, code: i32, folder: &str, flags: &[&str], script: &str) -> Result<Finished> {
        let folder = format!("--d={folder}");
        let words = self.script_words(&[&["--wait", &folder], flags].concat(), script);
        self.ends_with(code, &as_words(&words))
    }

    /// The same without waiting; [`Self::finished`] must follow.
    fn start_trexe(&mut self, folder: &str, script: &str) -> Result<()> {
        let folder = format!("--d={folder}");
        let words = self.script_words(&["--wait", &folder], script);
        self.session.start(WORKSPACE, &words)
    }

    fn finished(&mut self, exit_code: i32) -> Result<Finished> {
        let finished = self.session.finish()?;
        ensure!(finished.exit_code == exit_code, "{finished:?}");
        Ok(finished)
    }

    /// The name of an operation that runs a script.
    fn operation(&mut self, script: &str) -> Result<String> {
        let words = self.script_words(&["--no-wait", "--do-not-cache"], script);
        Ok(self.ends_with(0, &as_words(&words))?.stdout.trim().to_owned())
    }

    fn run(&mut self, words: &[&str]) -> Result<Finished> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        self.session.run(WORKSPACE, &words)
    }

    fn ends_with(&mut self, exit_code: i32, words: &[&str]) -> Result<Finished> {
        let finished = self.run(words)?;
        let is_right = finished.exit_code == exit_code;
        ensure!(is_right, "{}: {finished:?}", words.join(" "));
        Ok(finished)
    }
}

fn as_words(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}
