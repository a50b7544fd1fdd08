//! Stopping actions, and the deaths of helpers and daemons.

use std::os::fd::{AsFd, BorrowedFd};
use std::process::Command;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use sandbox::{Exit, ExitStatus, Pool, RunError, StepName, StopConditions, Stopped};

use crate::support::{
    Action, Bounded, TOOLS, config, end_processes_with, eventually, processes_with,
};

fn run(action: Action, stop: &StopConditions<'_>) -> Result<(Exit, String), RunError> {
    let pool = Pool::new(config());
    let mut sandbox = pool.acquire(&TOOLS)?;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let exit = action.run_with(&mut sandbox, &mut stdout, &mut stderr, stop)?;
    Ok((exit, String::from_utf8_lossy(&stdout).into_owned()))
}

fn deadline(milliseconds: u64) -> StopConditions<'static> {
    let timeout = Some(Duration::from_millis(milliseconds));
    StopConditions { timeout, ..StopConditions::default() }
}

/// Runs a script that does not end with later and later deadlines, until it had the time to write
/// something.
fn run_until_it_has_spoken(script: &str) -> (Exit, String) {
    for milliseconds in [1000, 4000, 16_000, 64_000, 256_000] {
        let (exit, stdout) = run(Action::sh(script), &deadline(milliseconds)).unwrap();
        if !stdout.is_empty() {
            return (exit, stdout);
        }
    }
    panic!("{script} wrote nothing in minutes");
}

#[test]
fn a_deadline_kills_and_what_was_said_is_kept() {
    let scripts = [
        "echo begun; sleep 1000",
        "echo begun; trap '' TERM INT HUP QUIT; while :; do sleep 1; done",
        "echo begun; kill -STOP $$",
        "echo begun; setsid sleep 1000 & sleep 1000",
        "echo begun; exec >&- 2>&-; sleep 1000",
    ];
    for script in scripts {
        let (exit, stdout) = run_until_it_has_spoken(script);
        assert_eq!(exit.stopped, Some(Stopped::Deadline), "{script}");
        assert_eq!(exit.status, ExitStatus::Signal(9), "{script}");
        assert_eq!(stdout, "begun\n", "{script}");
    }
}

#[test]
fn a_deadline_that_has_passed_kills_at_once() {
    let (exit, _) = run(Action::sh("sleep 1000"), &deadline(0)).unwrap();
    assert_eq!(exit.stopped, Some(Stopped::Deadline));
}

#[test]
fn a_far_deadline_does_nothing() {
    let stop =
        StopConditions { timeout: Some(Duration::from_secs(u64::MAX)), ..Default::default() };
    let (exit, _) = run(Action::sh("exit 3"), &stop).unwrap();
    assert_eq!((exit.stopped, exit.status), (None, ExitStatus::Code(3)));
}

#[test]
fn an_event_cancels() {
    let event = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let cancelled: Option<BorrowedFd<'_>> = Some(event.as_fd());
    let marker = format!("6{:06}", std::process::id());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let running = format!("sleep\0{marker}");
            eventually("the action runs", || !processes_with(&running).is_empty());
            rustix::io::write(&event, &1_u64.to_ne_bytes()).unwrap();
        });
        let stop = StopConditions { cancelled, ..StopConditions::default() };
        let (exit, _) = run(Action::sh(&format!("sleep {marker}")), &stop).unwrap();
        assert_eq!((exit.stopped, exit.status), (Some(Stopped::Cancelled), ExitStatus::Signal(9)));
    });
    // It still is.
    let stop = StopConditions { cancelled, ..StopConditions::default() };
    let (exit, _) = run(Action::sh("sleep 1000"), &stop).unwrap();
    assert_eq!(exit.stopped, Some(Stopped::Cancelled));
}

/// Says no when it was asked so many times.
#[derive(Debug)]
struct Patience(std::sync::atomic::AtomicUsize);

impl Patience {
    fn of(times: usize) -> Self {
        Self(times.into())
    }
}

impl sandbox::Watchdog for Patience {
    fn allows(&self) -> bool {
        use std::sync::atomic::Ordering::Relaxed;
        self.0.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

#[test]
fn a_supervisor_stops_what_it_does_not_allow() {
    let strict = Patience::of(1);
    let stop = StopConditions { supervisor: Some(&strict), ..StopConditions::default() };
    let (exit, _) = run(Action::sh("yes > /dev/null"), &stop).unwrap();
    assert_eq!((exit.stopped, exit.status), (Some(Stopped::Forbidden), ExitStatus::Signal(9)));
    // An action that may go on ends by itself.
    let lenient = Patience::of(usize::MAX);
    let stop = StopConditions { supervisor: Some(&lenient), ..StopConditions::default() };
    let (exit, _) = run(Action::sh("sleep 0.12; exit 3"), &stop).unwrap();
    assert_eq!((exit.stopped, exit.status), (None, ExitStatus::Code(3)));
}

#[test]
fn a_sink_that_refuses_stops_endless_output() {
    for script in ["yes", "yes >&2", "trap '' PIPE; while :; do echo x; done"] {
        let pool = Pool::new(config());
        let mut sandbox = pool.acquire(&TOOLS).unwrap();
        let (mut stdout, mut stderr) = (Bounded(100_000), Bounded(100_000));
        let exit = Action::sh(script)
            .run_with(&mut sandbox, &mut stdout, &mut stderr, &StopConditions::default())
            .unwrap();
        assert_eq!(exit.stopped, Some(Stopped::SinkRefused), "{script}");
    }
}

#[test]
fn a_refusal_at_the_very_end_is_told_too() {
    let pool = Pool::new(config());
    let mut sandbox = pool.acquire(&TOOLS).unwrap();
    let (mut stdout, mut stderr) = (Bounded(1), Bounded(1));
    let exit = Action::sh("echo more than that")
        .run_with(&mut sandbox, &mut stdout, &mut stderr, &StopConditions::default())
        .unwrap();
    assert_eq!(exit.stopped, Some(Stopped::SinkRefused));
}

#[test]
fn a_stopped_action_leaves_the_sandbox_usable() {
    let pool = Pool::new(config());
    for _ in 0..3 {
        let mut sandbox = pool.acquire(&TOOLS).unwrap();
        let mut action = Action::sh("sleep 1000");
        action.timeout = Duration::from_millis(50);
        action.run_in(&mut sandbox).unwrap();
        pool.release(sandbox);
        let mut sandbox = pool.acquire(&TOOLS).unwrap();
        Action::sh("echo fine").run_in(&mut sandbox).unwrap().expect_stdout("fine");
        pool.release(sandbox);
    }
}

#[test]
fn a_sandbox_runs_one_action_before_it_is_released() {
    let pool = Pool::new(config());
    let mut sandbox = pool.acquire(&TOOLS).unwrap();
    Action::sh("true").run_in(&mut sandbox).unwrap();
    Action::sh("true").run_in(&mut sandbox).unwrap_err();
    pool.release(sandbox);
}

/// The helper above the processes whose command line has `marker` in it.
fn helper_of(marker: &str) -> Option<i32> {
    let mut pid = processes_with(marker).pop()?;
    loop {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        if field("Name:") == Some("sandbox-helper") {
            return pid.parse().ok();
        }
        pid = field("PPid:")?.to_owned();
    }
}

#[test]
fn a_killed_helper_takes_its_action_with_it_and_is_replaced() {
    let marker = format!("6{:06}", std::process::id());
    let pool = Pool::new(config());
    let mut sandbox = pool.acquire(&TOOLS).unwrap();
    std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            Action::sh(&format!("setsid sleep {marker} & exec sleep {marker}")).run_in(&mut sandbox)
        });
        let mut helper = None;
        eventually("the action", || {
            helper = helper_of(&format!("sleep\0{marker}"));
            helper.is_some()
        });
        let helper = rustix::process::Pid::from_raw(helper.unwrap()).unwrap();
        rustix::process::kill_process(helper, rustix::process::Signal::KILL).unwrap();
        run.join().unwrap().unwrap_err();
    });
    eventually("the action's death", || processes_with(&format!("sleep\0{marker}")).is_empty());
    pool.release(sandbox);
    let mut sandbox = pool.acquire(&TOOLS).unwrap();
    Action::sh("echo fine").run_in(&mut sandbox).unwrap().expect_stdout("fine");
}

#[test]
fn a_killed_init_is_not_taken_for_the_actions_end() {
    let marker = format!("4{:06}", std::process::id());
    let pool = Pool::new(config());
    let mut sandbox = pool.acquire(&TOOLS).unwrap();
    std::thread::scope(|scope| {
        let run = scope.spawn(|| Action::new(&["sleep", &marker]).run_in(&mut sandbox));
        let mut init = None;
        eventually("the action", || {
            let helper = helper_of(&format!("sleep\0{marker}"));
            init = helper.and_then(|helper| children_of(helper).pop());
            init.is_some()
        });
        let init = rustix::process::Pid::from_raw(init.unwrap()).unwrap();
        rustix::process::kill_process(init, rustix::process::Signal::KILL).unwrap();
        assert_eq!(run.join().unwrap().unwrap_err().step(), StepName::Init);
    });
    pool.release(sandbox);
    let mut sandbox = pool.acquire(&TOOLS).unwrap();
    Action::sh("echo fine").run_in(&mut sandbox).unwrap().expect_stdout("fine");
}

/// The descriptors of a helper and PID 1, seen from outside: nothing outside, and little
/// inside.
#[test]
fn neither_helper_nor_init_has_power_over_the_host() {
    let marker = format!("3{:06}", std::process::id());
    let pool = Pool::new(config());
    let mut sandbox = pool.acquire(&TOOLS).unwrap();
    std::thread::scope(|scope| {
        let action = Action::new(&["sleep", &marker]);
        let run = scope.spawn(|| action.run_in(&mut sandbox));
        let mut helper = None;
        eventually("the action", || {
            helper = helper_of(&format!("sleep\0{marker}"));
            helper.is_some()
        });
        let helper = helper.unwrap();
        let init = children_of(helper).pop().unwrap();
        let field = |pid: i32, name: &str| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let value = status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
            u64::from_str_radix(value, 16).unwrap()
        };
        for pid in [helper, init] {
            assert_eq!(field(pid, "Seccomp_filters:"), 1, "the inherited filter");
        }
        // CAP_SETGID, CAP_SETUID, CAP_NET_ADMIN, CAP_SYS_ADMIN
        assert_eq!(field(helper, "CapPrm:"), 1 << 6 | 1 << 7 | 1 << 12 | 1 << 21);
        assert_eq!(field(helper, "CapBnd:"), 0);
        for set in ["CapPrm:", "CapEff:", "CapInh:", "CapBnd:", "CapAmb:"] {
            eventually("the init's drop", || field(init, set) == 0);
        }
        let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/user")).unwrap();
        assert_ne!(namespace(&helper.to_string()), namespace("self"));
        assert_eq!(namespace(&init.to_string()), namespace(&helper.to_string()));
        assert_eq!(std::fs::read_dir(format!("/proc/{init}/fd")).unwrap().count(), 0);
        end_processes_with(&format!("sleep\0{marker}"));
        run.join().unwrap().unwrap();
    });
}

fn children_of(pid: i32) -> Vec<i32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    children.unwrap_or_default().split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

const DAEMON: &str = "SANDBOX_TEST_DAEMON";

/// Not a test by itself: the daemon of the next one.
#[test]
fn daemon_to_be_killed() {
    if let Ok(marker) = std::env::var(DAEMON) {
        Action::sh(&format!("setsid sleep {marker} & exec sleep {marker}")).run();
    }
}

#[test]
fn a_killed_daemon_leaves_no_process() {
    let marker = format!("5{:06}", std::process::id());
    let mut daemon = Command::new(std::env::current_exe().unwrap())
        .args(["lifecycle::daemon_to_be_killed", "--exact"])
        .env(DAEMON, &marker)
        .spawn()
        .unwrap();
    let marker = format!("sleep\0{marker}");
    let mut helper = None;
    eventually("the action", || {
        helper = helper_of(&marker);
        helper.is_some()
    });
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    eventually("the action's death", || processes_with(&marker).is_empty());
    let helper = std::path::PathBuf::from(format!("/proc/{}", helper.unwrap()));
    eventually("the helper's end", || !helper.exists());
}

#[test]
fn times_and_usage_are_told() {
    let before = std::time::SystemTime::now();
    let (exit, _) = run(
        Action::sh("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"),
        &StopConditions::default(),
    )
    .unwrap();
    assert!(before <= exit.started && exit.started <= exit.ended);
    assert!(exit.ended <= std::time::SystemTime::now());
    assert_eq!(exit.usage.wall, exit.ended.duration_since(exit.started).unwrap());
    assert!(exit.usage.user + exit.usage.system > Duration::ZERO);
    assert!(exit.usage.max_resident_bytes > 100_000);
    assert!(!exit.oom_killed);
}

#[test]
fn many_at_once() {
    let pool = Pool::new(config());
    std::thread::scope(|scope| {
        for slot in 0..4 {
            let pool = &pool;
            scope.spawn(move || {
                for round in 0..25 {
                    let mut sandbox = pool.acquire(&TOOLS).unwrap();
                    let outcome =
                        Action::sh(&format!("echo {slot} {round}")).run_in(&mut sandbox).unwrap();
                    outcome.expect_stdout(&format!("{slot} {round}"));
                    pool.release(sandbox);
                }
            });
        }
    });
}
