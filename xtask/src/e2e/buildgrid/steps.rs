//! Builds of BuildGrid's clients while workers come and go.

use std::fs;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::e2e::{
    light::{recc, tree},
    patience::within_patience,
    steps::step,
};

use super::{
    cluster::{Cluster, as_words},
    worker::{Gate, Worker},
};

impl Cluster<'_> {
    pub(super) fn workers_that_come_and_go(&mut self) -> Result<()> {
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
            self.put_recc_before_the_compiler()?;
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
}
