//! Bounds, where there are no cgroups.

use std::ops::ControlFlow;

use model::Limits;
use sandbox::{Config, OutputSink, Pool, Sandbox, StepName, StopConditions};

use crate::raw_program::{RESULTS, RawProgram, SCRATCH, results};
use crate::support::{Action, FIRST_USER, PATIENCE, TOOLS, config};

fn limited(mut action: Action, limits: Limits) -> Action {
    action.limits = limits;
    action
}

#[test]
fn processes_are_bounded() {
    let limits = Limits { pids_max: Some(20), ..Limits::default() };
    // The probe itself is one of them.
    limited(Action::probe(&["spawn-until-refused"]), limits)
        .run()
        .expect_code(0)
        .expect_stdout("19");
}

#[test]
fn the_bound_is_each_sandboxs_own() {
    let limits = Limits { pids_max: Some(20), ..Limits::default() };
    std::thread::scope(|scope| {
        let run = || limited(Action::probe(&["spawn-until-refused"]), limits).run();
        let runs: Vec<_> = (0..3).map(|_| scope.spawn(run)).collect();
        for run in runs {
            run.join().unwrap().expect_stdout("19");
        }
    });
}

#[test]
fn the_bound_is_the_same_for_the_next_action() {
    let pool = Pool::new(config());
    for processes in [20, 5, 30] {
        let mut sandbox = pool.acquire(&TOOLS).unwrap();
        let limits = Limits { pids_max: Some(processes), ..Limits::default() };
        let action = limited(Action::probe(&["spawn-until-refused"]), limits);
        action.run_in(&mut sandbox).unwrap().expect_stdout(&(processes - 1).to_string());
        pool.release(sandbox);
    }
}

#[test]
fn a_fork_bomb_does_no_harm() {
    let mut config = config();
    config.processes_max = 100;
    let pool = Pool::new(config);
    let mut sandbox = pool.acquire(&TOOLS).unwrap();
    let mut bomb = Action::sh("f() { f | f & }; f; sleep 0.3; f; f; sleep 0.3");
    bomb.timeout = std::time::Duration::from_secs(5);
    bomb.run_in(&mut sandbox).unwrap();
    pool.release(sandbox);
    let mut sandbox = pool.acquire(&TOOLS).unwrap();
    Action::sh("echo alive").run_in(&mut sandbox).unwrap().expect_stdout("alive");
}

/// A program that makes timers, each of which takes one of the signals that its user may have queued.
fn timers(number: u64) -> RawProgram {
    (0..number).fold(RawProgram::new(), |program, _| {
        program.call(libc::SYS_timer_create as u64, &[libc::CLOCK_MONOTONIC as u64, 0, SCRATCH])
    })
}

fn program(program: RawProgram) -> Action {
    Action::new(&["./raw"]).file("raw", 0o755, &program.build())
}

/// Runs an action in the sandbox of a neighbour as soon as its own says something, and ends its own.
struct Neighbour {
    sandbox: Sandbox,
    /// The outputs of both.
    said: Option<(Vec<u8>, Vec<u8>)>,
}

impl OutputSink for Neighbour {
    fn write(&mut self, bytes: &[u8]) -> ControlFlow<()> {
        let outcome = program(timers(1)).run_in(&mut self.sandbox).unwrap();
        self.said = Some((bytes.to_vec(), outcome.stdout_bytes));
        ControlFlow::Break(())
    }
}

#[test]
fn what_counts_as_the_owners_of_a_namespace_is_each_sandboxs_own() {
    const MORE_THAN_ALLOWED: u64 = 4097;
    let pool = Pool::new(Config { first_user: Some(FIRST_USER), ..config() });
    let mut sandbox = pool.acquire(&TOOLS).unwrap();
    let mut neighbour = Neighbour { sandbox: pool.acquire(&TOOLS).unwrap(), said: None };
    let last = RESULTS + 8 * (MORE_THAN_ALLOWED - 1);
    let hog = timers(MORE_THAN_ALLOWED)
        .call(libc::SYS_write as u64, &[1, last, 8])
        .call(libc::SYS_ppoll as u64, &[]);
    let stop = StopConditions { timeout: Some(PATIENCE), ..StopConditions::default() };
    program(hog).run_with(&mut sandbox, &mut neighbour, &mut Vec::new(), &stop).unwrap();
    let (one, other) = neighbour.said.expect("the hog has what it can get");
    assert_eq!(results(&one), [-i64::from(libc::EAGAIN)]);
    assert_eq!(results(&other), [0]);
}

#[test]
fn the_size_of_a_file_is_bounded() {
    let mut config = config();
    config.file_bytes = 64 << 10;
    let pool = Pool::new(config);
    let run = |script: &str| {
        let mut sandbox = pool.acquire(&TOOLS).unwrap();
        let outcome = Action::sh(script).run_in(&mut sandbox).unwrap();
        pool.release(sandbox);
        outcome
    };
    run("truncate -s 64K file && echo fits").expect_stdout("fits");
    // 128 and the number of SIGXFSZ.
    run("truncate -s 65K file; echo $?").expect_stdout("153");
    run("head -c 65K /dev/zero > /tmp/file; echo $?").expect_stdout("153");
    run("ulimit -f unlimited 2>/dev/null && echo raised; true").expect_stdout("");
    run("trap '' XFSZ; truncate -s 65K file 2>/dev/null || echo refused").expect_stdout("refused");
}

#[test]
fn memory_is_bounded() {
    let limits = Limits { memory_bytes: Some(256 << 20), ..Limits::default() };
    let allocate =
        |bytes: u64| limited(Action::probe(&["allocate", &bytes.to_string()]), limits).run();
    allocate(16 << 20).expect_code(0).expect_stdout("allocated");
    allocate(512 << 20).expect_code(0).expect_stdout("refused");
}

#[test]
fn a_limit_below_what_an_exec_needs_is_the_kernels_to_refuse() {
    let limits = Limits { memory_bytes: Some(1), ..Limits::default() };
    // The kernel kills what does not fit after the point of no return.
    match limited(Action::sh("true"), limits).try_run() {
        Ok(outcome) => assert_ne!(outcome.exit.status, sandbox::ExitStatus::Code(0)),
        Err(error) => assert_eq!(error.step(), StepName::Execute),
    }
}

#[test]
fn limits_can_not_be_raised_again() {
    let limits = Limits { memory_bytes: Some(1 << 30), pids_max: Some(50), ..Limits::default() };
    let script = "ulimit -v unlimited 2>/dev/null || echo kept; ulimit -u 1000 2>/dev/null || echo kept; ulimit -v; ulimit -c 1; ulimit -c 0; ulimit -c";
    // dash has no ulimit -u; bash has.
    let action = Action::new(&["/bin/bash", "-c", script]);
    limited(action, limits).run().expect_stdout("kept\nkept\n1048576\n0");
}

#[test]
fn cpus_are_bounded() {
    let available = std::thread::available_parallelism().unwrap().get();
    let limits = Limits { cpu_cores: Some(1), ..Limits::default() };
    limited(Action::sh("nproc"), limits).run().expect_code(0).expect_stdout("1");
    let limits = Limits { cpu_cores: Some(8192), ..Limits::default() };
    limited(Action::sh("nproc"), limits).run().expect_code(0).expect_stdout(&available.to_string());
}

#[test]
fn scratch_space_is_bounded() {
    let mut config = config();
    config.tmp_bytes = 1 << 20;
    config.tmp_inodes = 50;
    config.shm_bytes = 1 << 20;
    let pool = Pool::new(config);
    let run = |script: &str, expected: &str| {
        let mut sandbox = pool.acquire(&TOOLS).unwrap();
        Action::sh(script).run_in(&mut sandbox).unwrap().expect_stdout(expected);
        pool.release(sandbox);
    };
    run("head -c 5000000 /dev/zero > /tmp/f 2>/dev/null; stat -c %s /tmp/f", "1048576");
    run("head -c 5000000 /dev/zero > /dev/shm/f 2>/dev/null; stat -c %s /dev/shm/f", "1048576");
    run("cd /tmp; for i in $(seq 100); do touch $i || break; done 2>/dev/null; ls | wc -l", "49");
    run("head -c 1000000 /dev/zero > /tmp/f && echo fits again", "fits again");
}

#[test]
fn at_most_so_many_sandboxes() {
    let mut config = config();
    config.helpers_max = 2;
    let pool = Pool::new(config);
    let one = pool.acquire(&TOOLS).unwrap();
    let _two = pool.acquire(&TOOLS).unwrap();
    assert_eq!(pool.acquire(&TOOLS).unwrap_err().step(), StepName::Spawn);
    pool.release(one);
    // Another view takes the idle one's place.
    let bare = std::sync::Arc::new(runtimes::Rootfs::bare());
    let _three = pool.acquire(&bare).unwrap();
    assert_eq!(pool.acquire(&TOOLS).unwrap_err().step(), StepName::Spawn);
}

#[test]
fn a_cgroup_without_controllers_is_entered_and_removed() {
    let hierarchy = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .map(std::path::Path::new)
        .into_iter()
        .find(|path| path.join("cgroup.controllers").exists())
        .expect("version 2 cgroups");
    let parent = hierarchy.join(format!("sandbox-test-{}", std::process::id()));
    std::fs::create_dir(&parent).unwrap();
    let cgroups = sandbox::Cgroups::below(&parent, sandbox::Controllers::default()).unwrap();
    let mut config = config();
    config.cgroups = Some(std::sync::Arc::new(cgroups));
    let actions = parent.join("actiond-actions");
    let count = || {
        std::fs::read_dir(&actions)
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().path().is_dir())
            .count()
    };
    let pool = Pool::new(config);
    // The first one that comes back gets a spare beside it; more are not needed.
    for sandboxes in [1, 2, 2] {
        let mut sandbox = pool.acquire(&TOOLS).unwrap();
        Action::sh("grep ^0: /proc/self/cgroup")
            .run_in(&mut sandbox)
            .unwrap()
            .expect_stdout("0::/");
        assert_eq!(count(), sandboxes);
        pool.release(sandbox);
    }
    drop(pool);
    assert!(!actions.exists());
    std::fs::remove_dir(&parent).unwrap();
}
