//! A server of one slot that has BuildGrid run what waits too long there.

use std::{ffi::OsString, fs};

use anyhow::{Result, ensure};

use crate::{
    daemon::Daemon,
    e2e::{
        light::{recc, tree},
        steps::step,
    },
};

use super::{
    cluster::{Cluster, as_words},
    worker::{Gate, Worker},
};

impl Cluster<'_> {
    /// The client talks to a server whose only slot is taken.
    pub(super) fn a_server_that_overflows(&mut self) -> Result<()> {
        let worker = self.worker("sixth")?;
        let server = self.overflowing_server()?;
        self.url = format!("http://{}", server.address());
        let gate = Gate::new(7);
        let filler = self.operation(&gate.wait())?;
        gate.reached()?;
        ensure!(worker.executions()? == 0, "{filler} is to run on the server");
        self.an_overflowing_build(&server, &worker)?;
        self.outcomes_elsewhere(&worker)?;
        self.a_cancelled_action_elsewhere()?;
        self.an_engine_that_is_gone(&gate)?;
        server.stop()
    }

    fn overflowing_server(&self) -> Result<Daemon> {
        let folder = self.folder.join("overflowing");
        fs::create_dir(&folder)?;
        let flags = [
            format!("--allow-host-rootfs={}", self.arguments.client_root.display()),
            format!("--overflow=grpc://{}", self.server.address()),
            // The action that is to fill the slot has to be there by then.
            "--overflow-wait=5s".to_owned(),
            "--upstream-timeout=60s".to_owned(),
            "--jobs=1".to_owned(),
            "--http=off".to_owned(),
            // No server listens to it.
            "--orphan-grace-ms=3600000".to_owned(),
        ];
        Daemon::start(&self.arguments.worker, &folder, &flags.map(OsString::from), None)
    }

    fn an_overflowing_build(&mut self, server: &Daemon, worker: &Worker) -> Result<()> {
        step("a server without a free slot has BuildGrid run a build, with equal outputs", || {
            self.put_recc_before_the_compiler()?;
            // BuildGrid has the results of the earlier builds, whose root was the same.
            self.change_the_program()?;
            self.build()?;
            let ran = worker.executions()?;
            ensure!(ran > 0, "no action ran on the worker");
            let compared = tree::ensure_equal(&self.path("local"), &self.path("workspace/out"))?;
            let answered = server.finished_actions()?.len();
            ensure!(answered == recc::COMMANDS, "the server has answered {answered} actions");
            Ok(format!("{ran} actions on a worker, {compared} equal files"))
        })?;
        step("a second build is served from the server's own action cache", || {
            let (ran, before) = (worker.executions()?, server.finished_actions()?.len());
            self.build()?;
            ensure!(worker.executions()? == ran, "actions ran");
            let finished = server.finished_actions()?;
            let hits = finished[before..].iter().filter(|action| action.cached).count();
            ensure!(hits == finished.len() - before, "{hits} hits of {finished:?}");
            Ok("none run".into())
        })
    }

    /// Builds another program without a server, to compare with.
    fn change_the_program(&mut self) -> Result<()> {
        let source = self.path("workspace/main.cc");
        let text = fs::read_to_string(&source)?;
        ensure!(text.contains("lines: "), "main.cc has changed");
        fs::write(&source, text.replace("lines: ", "overflowed: "))?;
        let rules = fs::read_to_string(self.path("workspace/compiler.ninja"))?;
        fs::write(self.path("workspace/compiler.ninja"), "cxx = env PATH=/usr/bin:/bin g++\n")?;
        fs::remove_dir_all(self.path("local"))?;
        self.build()?;
        fs::rename(self.path("workspace/out"), self.path("local"))?;
        Ok(fs::write(self.path("workspace/compiler.ninja"), rules)?)
    }

    fn outcomes_elsewhere(&mut self, worker: &Worker) -> Result<()> {
        step(
            "a command that fails elsewhere has its exit code, its streams and its outputs",
            || {
                let ran = worker.executions()?;
                let script = "echo words on stderr >&2; echo overflowed > out; exit 4";
                let finished = self.trexe(4, "failed-elsewhere", &[], script)?;
                ensure!(finished.stderr.contains("words on stderr\n"), "{}", finished.stderr);
                self.output_is("failed-elsewhere", "overflowed\n")?;
                ensure!(worker.executions()? == ran + 1, "it did not run on the worker");
                Ok("exit code 4".into())
            },
        )
    }

    fn a_cancelled_action_elsewhere(&mut self) -> Result<()> {
        let gate = Gate::new(8);
        step("an operation of the server that is cancelled is stopped on the worker", || {
            let operation = self.operation(&gate.wait())?;
            gate.reached()?;
            let words = self.trexe_words(&[&format!("--operation={operation}"), "--cancel"]);
            self.ends_with(0, &as_words(&words))?;
            gate.left()?;
            Ok("the action is gone".into())
        })
    }

    fn an_engine_that_is_gone(&mut self, filler: &Gate) -> Result<()> {
        let gate = Gate::new(9);
        step("an action whose engine is killed amid it runs on the server", || {
            self.start_trexe("came-back", &format!("{}; echo done > out", gate.wait()))?;
            let earlier = gate.reached()?;
            self.server.kill()?;
            filler.open()?;
            // The worker's run of it goes on, for the worker waits for its scheduler.
            gate.reached_beside(&earlier)?;
            gate.open()?;
            self.finished(0)?;
            self.output_is("came-back", "done\n")?;
            Ok("its output is right".into())
        })
    }
}
